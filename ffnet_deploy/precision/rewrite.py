"""Writing a choice of types into a graph: constants converted, and one cast for each tensor and direction."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ffnet_deploy.precision.balance import casts_of
from ffnet_deploy.precision.formats import Conversion, Format, convert, rounded_up
from ffnet_deploy.precision.view import QUANTIZERS, Node, View


@dataclass(frozen=True)
class Rewritten:
    """A typed graph.

    Attributes:
        model: the graph.
        casts: number of casts put in: (to 16 bits, to FP32).
        constants: what converting the weights did to their values.
    """

    model: onnx.ModelProto
    casts: tuple[int, int]
    constants: Conversion


class Rewriter:
    """Writes the typed form of a view's graph.

    Args:
        view: the graph.
        wide: names of the nodes that compute in FP32; all others compute in `to`.
        to: the 16-bit format.
    """

    def __init__(self, view: View, wide: set[str], to: Format) -> None:
        self._view = view
        self._wide = wide
        self._format = to
        self._suffix = to.precision.value
        self._constants: dict[str, onnx.TensorProto] = {}
        self._scales = _scales(view)
        self._converted = Conversion(0, 0, 0, 0)
        self._casts = [0, 0]

    def write(self) -> Rewritten:
        """The typed graph."""
        model = onnx.ModelProto()
        model.CopyFrom(self._view.model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        for value in self._view.model.graph.input:
            if self._view.types[value.name] == TensorProto.FLOAT:
                model.graph.node.extend(self._casts_after(value.name))
        for proto in self._view.model.graph.node:
            node = self._view.nodes.get(proto.name)
            model.graph.node.append(proto if node is None else self._typed(node, node.name in self._wide))
            for name in () if node is None else node.outputs:
                model.graph.node.extend(self._casts_after(name))
        model.graph.initializer.extend(self._needed(model))
        return Rewritten(model, (self._casts[0], self._casts[1]), self._converted)

    def _typed(self, node: Node, wide: bool) -> onnx.NodeProto:
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        for at, name in node.inputs:
            proto.input[at] = self._constant(name, wide) if name in self._view.initializers else self._as(name, wide)
        for at, name in enumerate(node.proto.output):
            if name in node.outputs:
                proto.output[at] = self._made(name)
        if proto.op_type == "Cast" and node.outputs and not wide:
            _set_target(proto, self._format.tensor_type)
        return proto

    def _made(self, name: str) -> str:
        """The name under which a tensor is made: outputs of the graph keep theirs for the FP32 form."""
        producer = self._view.producers.get(name)
        narrow = producer is not None and producer.name not in self._wide
        return f"{name}_{self._suffix}" if narrow and name in self._view.outputs else name

    def _as(self, name: str, wide: bool) -> str:
        """The name of a tensor in the type asked for."""
        if wide not in casts_of(self._view, name, self._wide):
            return self._made(name)
        return name if name in self._view.outputs else f"{name}_{'fp32' if wide else self._suffix}"

    def _casts_after(self, name: str) -> list[onnx.NodeProto]:
        found = []
        producer = self._view.producers.get(name)
        for wide in sorted(casts_of(self._view, name, self._wide)):
            result = self._as(name, wide)
            if producer is not None and producer.op == "DequantizeLinear":
                found.append(self._again(producer, wide, result))
                continue
            self._casts[wide] += 1
            kind = TensorProto.FLOAT if wide else self._format.tensor_type
            found.append(helper.make_node("Cast", [self._made(name)], [result], name=f"{result}_cast", to=kind))
        return found

    def _again(self, dequantize: Node, wide: bool, result: str) -> onnx.NodeProto:
        """`dequantize` once more, giving `result` in the other type: behind a cast nothing would fuse with it."""
        proto = self._typed(dequantize, wide)
        proto.name, proto.output[0] = f"{result}_DequantizeLinear", result
        return proto

    def _constant(self, name: str, wide: bool) -> str:
        """The name of a constant in the type asked for; it is made on first use."""
        if name in self._scales:
            return self._scale(name, wide)
        if wide:
            return name
        converted = f"{name}_{self._suffix}"
        if converted not in self._constants:
            rounded, conversion = convert(self._array(name), self._format)
            self._converted += conversion
            self._constants[converted] = numpy_helper.from_array(rounded, converted)
        return converted

    def _scale(self, name: str, wide: bool) -> str:
        """The name of a scale in the type asked for; both types hold the same value.

        It is rounded up: nothing is clipped that was not before, and none becomes zero.
        """
        converted = f"{name}_{self._suffix}"
        if converted not in self._constants:
            rounded = rounded_up(self._array(name), self._format)
            self._constants[converted] = numpy_helper.from_array(rounded, converted)
            self._constants[name] = numpy_helper.from_array(rounded.astype(np.float32), name)
        return name if wide else converted

    def _array(self, name: str) -> NDArray[np.float32]:
        return np.asarray(numpy_helper.to_array(self._view.initializers[name]), np.float32)

    def _needed(self, model: onnx.ModelProto) -> list[onnx.TensorProto]:
        used = {name for node in model.graph.node for name in node.input}
        merged: Mapping[str, onnx.TensorProto] = {**self._view.initializers, **self._constants}
        return [tensor for name, tensor in merged.items() if name in used]


def _scales(view: View) -> set[str]:
    return {
        name
        for node in view.nodes.values()
        if node.op in QUANTIZERS
        for at, name in node.inputs
        if at == 1 and name in view.initializers
    }


def _set_target(proto: onnx.NodeProto, kind: int) -> None:
    for attribute in proto.attribute:
        if attribute.name == "to":
            attribute.i = kind
