"""A small network with everything that calibration has to deal with, as an ONNX graph with known weights."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ffnet_deploy.core.contract import METADATA_KEY, Contract
from tests.toy import contract as toy_contract
from tests.toy import fixed

SIZE = (32, 64)


@dataclass
class Builder:
    """Adds nodes one after the other; every method returns the name of what it made."""

    opset: int = 20
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def conv(self, x: str, name: str, size: tuple[int, int, int], groups: int = 1, stride: int = 1) -> str:
        out, channels, kernel = size
        inputs = channels // groups
        spread = (inputs * kernel * kernel) ** -0.5
        weight = self.rng.normal(0, 1.5 * spread, (out, inputs, kernel, kernel))
        self.constants[f"{name}.weight"] = weight.astype(np.float32)
        self.constants[f"{name}.bias"] = self.rng.normal(0, 0.1, out).astype(np.float32)
        settings = {"group": groups, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        return self.node("Conv", [x, f"{name}.weight", f"{name}.bias"], f"/{name}/Conv", **settings)

    def node(self, kind: str, inputs: list[str], name: str, **settings: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [f"{name}_output"], name, **settings))
        return f"{name}_output"

    def gelu(self, x: str, name: str) -> str:
        if self.opset >= 20:
            return self.node("Gelu", [x], f"/{name}/Gelu")
        self.constants |= {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
        erf = self.node("Erf", [self.node("Div", [x, "root"], f"/{name}/Div")], f"/{name}/Erf")
        raised = self.node("Mul", [x, self.node("Add", [erf, "one"], f"/{name}/Add")], f"/{name}/Mul")
        return self.node("Mul", [raised, "half"], f"/{name}/Half")

    def model(self, output: str, contract: Contract) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "logits"
        assert output == f"{self.nodes[-1].name}_output"
        values = [numpy_helper.from_array(np.asarray(value), name) for name, value in self.constants.items()]
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *SIZE])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "classes", "h", "w"])],
            values,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
        onnx.checker.check_model(model)
        return model


def block(net: Builder, x: str, name: str, channels: int) -> str:
    """Token mixer and channel mixer, each with its residual sum."""
    y = net.conv(x, f"{name}/token_mixer/fc", (channels, channels, 1))
    y = net.conv(y, f"{name}/token_mixer/conv1", (channels, channels, 3), groups=channels)
    y = net.conv(net.gelu(y, f"{name}/token_mixer/act"), f"{name}/token_mixer/conv2", (channels, channels, 3), channels)
    x = net.node("Add", [x, y], f"/{name}/token_mixer/Add")
    y = net.conv(x, f"{name}/channel_mixer/conv", (channels, channels, 3), groups=channels)
    y = net.conv(y, f"{name}/channel_mixer/fc1", (2 * channels, channels, 1))
    y = net.conv(net.gelu(y, f"{name}/channel_mixer/act"), f"{name}/channel_mixer/fc2", (channels, 2 * channels, 1))
    return net.node("Add", [x, y], f"/{name}/channel_mixer/Add")


def network(opset: int = 20, seed: int = 0) -> onnx.ModelProto:
    """Stem, a block, a level at half the size with a block of its own, both concatenated and classified."""
    net = Builder(opset, np.random.default_rng(seed))
    x = net.conv("image", "stem", (8, 3, 3), stride=2)
    fine = block(net, x, "stage0", 8)
    down = net.gelu(net.conv(fine, "down0", (16, 8, 3), stride=2), "down_act")
    coarse = block(net, net.conv(down, "down1", (12, 16, 1)), "stage1", 12)
    net.constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    large = net.node("Resize", [coarse, "", "scales"], "/Resize", mode="cubic")
    both = net.node("Concat", [fine, large], "/Concat", axis=1)
    y = net.gelu(net.conv(both, "squeeze", (16, 20, 1)), "squeeze_act")
    logits = net.conv(y, "classifier", (11, 16, 1))
    return net.model(logits, toy_contract(**fixed(*SIZE)))


def images(count: int = 4, seed: int = 0) -> list[np.ndarray]:
    """Smooth normalised network inputs (1, 3, height, width)."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 1, 3, 8, 16))
    return [np.kron(one, np.ones((1, 1, 4, 4))).astype(np.float32) for one in coarse]


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(numpy_helper.to_array(one) for one in model.graph.initializer if one.name == name)


def set_weight(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    tensor = next(one for one in model.graph.initializer if one.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
