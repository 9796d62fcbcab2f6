"""Cast minimiser, and writing a choice of types into a graph.

Nodes between FP32 neighbours compute in FP32 too where that moves fewer bytes. Constants are converted, and a
tensor gets at most one cast for each direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ffnet_deploy.precision.formats import Conversion, Format, convert, rounded_up
from ffnet_deploy.precision.graph_index import LINEAR, QUANTIZERS, GraphIndex, TypedNode

_CAST_BYTES = 6
"""Read 4 and write 2, or the reverse, for each value cast."""
_WIDE_BYTES = 2
"""More for each value read or written by a node in FP32."""


def casts_of(index: GraphIndex, name: str, wide: set[str]) -> set[bool]:
    """The casts that a tensor needs, as whether to FP32: at most one for each direction.

    Args:
        index: the graph.
        name: of a float tensor that is no constant.
        wide: names of the nodes that compute in FP32.
    """
    producer = index.typed_producers.get(name)
    made_wide = index.wide_io if producer is None else producer.name in wide
    wanted = {user.name in wide for user in index.typed_users.get(name, [])}
    if name in index.outputs:
        wanted.add(index.wide_io)
    return wanted - {made_wide}


def spared(index: GraphIndex, wide: set[str], sizes: Mapping[str, int]) -> set[str]:
    """Nodes to compute in FP32 beyond `wide`: quantisers of FP32 neighbours, and what moves fewer bytes so.

    Args:
        index: the graph.
        wide: names of the nodes that must.
        sizes: number of values of each tensor.
    """
    chosen = set(wide)
    while joining := _quantizers(index, chosen) or _cheaper(index, chosen, sizes):
        chosen |= joining
    return chosen - wide


def _quantizers(index: GraphIndex, wide: set[str]) -> set[str]:
    """Q/DQ nodes that follow their neighbours, since a cast between them and a convolution would part them."""
    found = set()
    for node in index.typed_nodes.values():
        if node.op not in QUANTIZERS or node.name in wide:
            continue
        source = node.inputs[0][1]
        if node.op == "QuantizeLinear" and source not in index.initializers:
            producer = index.typed_producers.get(source)
            follows = index.wide_io if producer is None else producer.name in wide
        else:
            users = index.uses.get(node.proto.output[0], [])
            follows = bool(users) and all(use.node.name in wide for use in users)
        if follows:
            found.add(node.name)
    return found


def _cheaper(index: GraphIndex, wide: set[str], sizes: Mapping[str, int]) -> set[str]:
    """The first light node that moves fewer bytes in FP32, if there is one."""
    for node in index.typed_nodes.values():
        heavy = node.op in LINEAR or node.op in QUANTIZERS
        if not heavy and node.name not in wide and _gain(index, node, wide, sizes) > 0:
            return {node.name}
    return set()


def _gain(index: GraphIndex, node: TypedNode, wide: set[str], sizes: Mapping[str, int]) -> int:
    """Bytes that are not moved when `node` joins `wide`."""
    names = dict.fromkeys((*(name for _, name in node.inputs), *node.outputs))
    around = [name for name in names if name not in index.initializers]
    joined = wide | {node.name}
    casts = sum(
        (len(casts_of(index, name, wide)) - len(casts_of(index, name, joined))) * sizes[name] for name in around
    )
    return _CAST_BYTES * casts - _WIDE_BYTES * sum(sizes[name] for name in around)


@dataclass(frozen=True)
class Rewritten:
    """A typed graph.

    Attributes:
        model: The graph.
        casts: Number of casts put in: (to 16 bits, to FP32).
        constants: What converting the weights did to their values.
    """

    model: onnx.ModelProto
    casts: tuple[int, int]
    constants: Conversion


class Rewriter:
    """Writes the typed form of a graph.

    Args:
        index: the graph.
        wide: names of the nodes that compute in FP32; all others compute in `to`.
        to: the 16-bit format.
    """

    def __init__(self, index: GraphIndex, wide: set[str], to: Format) -> None:
        self._index = index
        self._wide = wide
        self._format = to
        self._suffix = to.precision.value
        self._constants: dict[str, onnx.TensorProto] = {}
        self._scales = _scales(index)
        self._converted = Conversion(0, 0, 0, 0)
        self._casts = [0, 0]

    def write(self) -> Rewritten:
        """The typed graph."""
        model = onnx.ModelProto()
        model.CopyFrom(self._index.model)
        del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
        for value in self._index.model.graph.input:
            if self._index.types[value.name] == TensorProto.FLOAT:
                model.graph.node.extend(self._casts_after(value.name))
        for value in () if self._index.wide_io else (*model.graph.input, *model.graph.output):
            if self._index.types[value.name] == TensorProto.FLOAT:
                value.type.tensor_type.elem_type = self._format.tensor_type
        for proto in self._index.model.graph.node:
            node = self._index.typed_nodes.get(proto.name)
            model.graph.node.append(proto if node is None else self._typed(node, node.name in self._wide))
            for name in () if node is None else node.outputs:
                model.graph.node.extend(self._casts_after(name))
        model.graph.initializer.extend(self._needed(model))
        return Rewritten(model, (self._casts[0], self._casts[1]), self._converted)

    def _typed(self, node: TypedNode, wide: bool) -> onnx.NodeProto:
        proto = onnx.NodeProto()
        proto.CopyFrom(node.proto)
        for at, name in node.inputs:
            proto.input[at] = self._constant(name, wide) if name in self._index.initializers else self._as(name, wide)
        for at, name in enumerate(node.proto.output):
            if name in node.outputs:
                proto.output[at] = self._made(name)
        if proto.op_type == "Cast" and node.outputs and not wide:
            next(one for one in proto.attribute if one.name == "to").i = self._format.tensor_type
        return proto

    def _made(self, name: str) -> str:
        """The name under which a tensor is made: outputs of the graph keep theirs for the form that the graph gives."""
        producer = self._index.typed_producers.get(name)
        if producer is None or name not in self._index.outputs:
            return name
        return self._named(name, producer.name in self._wide)

    def _as(self, name: str, wide: bool) -> str:
        """The name of a tensor in the type asked for."""
        if wide not in casts_of(self._index, name, self._wide):
            return self._made(name)
        return self._named(name, wide)

    def _named(self, name: str, wide: bool) -> str:
        """The name of one form of a tensor beside another."""
        if name in self._index.outputs and wide is self._index.wide_io:
            return name
        return f"{name}_{'fp32' if wide else self._suffix}"

    def _casts_after(self, name: str) -> list[onnx.NodeProto]:
        found = []
        producer = self._index.typed_producers.get(name)
        for wide in sorted(casts_of(self._index, name, self._wide)):
            result = self._as(name, wide)
            if producer is not None and producer.op == "DequantizeLinear":
                found.append(self._again(producer, wide, result))
                continue
            self._casts[wide] += 1
            kind = TensorProto.FLOAT if wide else self._format.tensor_type
            found.append(helper.make_node("Cast", [self._made(name)], [result], name=f"{result}_cast", to=kind))
        return found

    def _again(self, dequantize: TypedNode, wide: bool, result: str) -> onnx.NodeProto:
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
        return np.asarray(numpy_helper.to_array(self._index.initializers[name]), np.float32)

    def _needed(self, model: onnx.ModelProto) -> list[onnx.TensorProto]:
        used = {name for node in model.graph.node for name in node.input}
        merged: Mapping[str, onnx.TensorProto] = {**self._index.initializers, **self._constants}
        return [tensor for name, tensor in merged.items() if name in used]


def _scales(index: GraphIndex) -> set[str]:
    return {
        name
        for node in index.typed_nodes.values()
        if node.op in QUANTIZERS
        for at, name in node.inputs
        if at == 1 and name in index.initializers
    }
