"""Small graphs with a known numerical trap each, for the tests of 16-bit types."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

IR_VERSIONS = {17: 8, 20: 9}


class Builder:
    """Collects nodes; every node is named after its output."""

    def __init__(self, opset: int = 20, channels: int = 8, size: int = 16) -> None:
        self.opset = opset
        self.shape = [1, channels, size, size]
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, x: str, name: str, gain: float = 1.0, channels: int | None = None, seed: int = 0) -> str:
        """A 1x1 convolution of `channels` inputs whose outputs have about `gain` times the inputs' magnitude."""
        width = channels or self.shape[1]
        weight = np.random.default_rng(seed).normal(size=(width, width, 1, 1)) * gain / np.sqrt(width)
        return self.add("Conv", [x, self.constant(f"{name}.weight", weight)], name)

    def pair(self, x: str, scale: Any, axis: int = 1) -> str:
        """A symmetric INT8 Q/DQ pair on `x`; the name of its result."""
        zero = np.zeros(np.shape(scale), np.int8)
        constants = [self.constant(f"{x}.scale", np.asarray(scale, np.float64)), self.constant(f"{x}.zero", zero)]
        quantised = self.add("QuantizeLinear", [x, *constants], f"{x}.q", axis=axis)
        return self.add("DequantizeLinear", [quantised, *constants], f"{x}.dq", axis=axis)

    def quantized_conv(self, x: str, name: str, scales: Any, seed: int = 0) -> str:
        """A 1x1 convolution with Q/DQ on its input (scale 0.05) and weights (`scales` for each output)."""
        width = self.shape[1]
        weight = np.random.default_rng(seed).uniform(-127, 127, size=(width, width, 1, 1))
        weight *= np.reshape(scales, (-1, 1, 1, 1))
        pairs = [self.pair(x, 0.05), self.pair(self.constant(f"{name}.weight", weight), scales, axis=0)]
        return self.add("Conv", pairs, name)

    def mean(self, x: str, name: str, axes: list[int]) -> str:
        if self.opset < 18:
            return self.add("ReduceMean", [x], name, axes=axes, keepdims=1)
        return self.add("ReduceMean", [x, self.constant(f"{name}.axes", np.array(axes))], name, keepdims=1)

    def layer_norm(self, x: str, eps: float = 1e-6) -> str:
        """Layer norm over the channels, written out as the networks have it."""
        self.add("Sub", [x, self.mean(x, "mean", [1])], "centred")
        self.add("Mul", ["centred", "centred"], "squared")
        self.mean("squared", "variance", [1])
        self.add("Add", ["variance", self.constant("eps", eps)], "guarded")
        self.add("Sqrt", ["guarded"], "deviation")
        return self.add("Div", ["centred", "deviation"], "normalised")

    def model(self, output: str, shape: list[int] | None = None) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "planted",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape or self.shape)],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSIONS[self.opset])
        onnx.checker.check_model(model, full_check=True)
        return model


def image(builder: Builder, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=builder.shape).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])
