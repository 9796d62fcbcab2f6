"""Small networks with known weights, as ONNX files and engines, and small data sets, for tests of the runtime layer."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffnet_deploy.artifacts.manifest import write_manifest
from ffnet_deploy.core.contract import (
    METADATA_KEY,
    Contract,
    DimensionRange,
    InputKind,
    IOType,
    Normalization,
    OutputKind,
    TestProtocol,
)
from ffnet_deploy.core.label_sets import label_set

CAMVID = label_set("camvid")
STRIDE = 4


def contract(**changes: Any) -> Contract:
    """A dynamic CamVid network that is scored whole at 96x64."""
    base = Contract(
        network="toy",
        dataset="camvid",
        classes=CAMVID.classes,
        palette=CAMVID.palette,
        batch=DimensionRange(1, 2, 4),
        height=DimensionRange(32, 64, 256),
        width=DimensionRange(32, 96, 256),
        protocol=TestProtocol(scale=(96, 64)),
        sources={"checkpoint": "0" * 64},
    )
    return replace(base, **changes)


def many_classes(count: int, **changes: Any) -> Contract:
    """A fixed 64x96 network of `count` classes of its own."""
    names = tuple(f"class {index}" for index in range(count))
    palette = tuple((index % 256, index // 256, 7) for index in range(count))
    return contract(dataset="custom", classes=names, palette=palette, **{**fixed(64, 96), **changes})


def fixed(height: int, width: int, batch: int = 1) -> dict[str, DimensionRange]:
    return {
        "batch": DimensionRange.fixed(batch),
        "height": DimensionRange.fixed(height),
        "width": DimensionRange.fixed(width),
    }


def weights(classes: int, seed: int = 0) -> np.ndarray:
    """Kernel (classes, 3, 4, 4) of the only convolution, stride 4."""
    return np.random.default_rng(seed).normal(size=(classes, 3, STRIDE, STRIDE)).astype(np.float32)


def logits(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution on normalised (batch, 3, height, width) images."""
    batch, channels, height, width = images.shape
    patches = images.reshape(batch, channels, height // STRIDE, STRIDE, width // STRIDE, STRIDE)
    return np.tensordot(patches, kernel, axes=([1, 3, 5], [1, 2, 3])).transpose(0, 3, 1, 2).astype(np.float32)


class ToyEngine:
    """An engine in numpy; keeps the shapes it was run with."""

    name = "toy"

    def __init__(self, described: Contract, function: Callable[[np.ndarray], np.ndarray] | None = None) -> None:
        kernel = weights(len(described.classes))
        self.contract = described
        self.function = function or (lambda batch: logits(batch, kernel))
        self.shapes: list[tuple[int, ...]] = []
        self.closed = 0

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.shapes.append(batch.shape)
        return self.function(batch)

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> "ToyEngine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_onnx(path: Path, described: Contract, metadata: bool = True) -> Path:
    """The toy network as an ONNX file with the input and output kinds of `described`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    float_input = described.input is InputKind.FLOAT
    whole = TensorProto.UINT8 if len(described.classes) <= 255 else TensorProto.UINT16
    floats = TensorProto.FLOAT16 if described.io is IOType.FP16 else TensorProto.FLOAT
    result = whole if described.output is OutputKind.LABELS else floats
    constants = {"kernel": weights(len(described.classes)), "scales": np.array([1, 1, STRIDE, STRIDE], np.float32)}
    nodes = [] if float_input else _normalising_nodes(described, constants)
    nodes.append(
        helper.make_node("Conv", ["image" if float_input else "x", "kernel"], ["logits"], strides=[STRIDE] * 2)
    )
    if described.output is not OutputKind.LOGITS:
        nodes.append(helper.make_node("Resize", ["logits", "", "scales"], ["full"], mode="linear"))
    if described.output is OutputKind.LABELS:
        nodes.append(helper.make_node("ArgMax", ["full"], ["best"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Cast", ["best"], ["labels"], to=result))
    if described.output is OutputKind.PROBABILITIES:
        nodes.append(helper.make_node("Softmax", ["full"], ["probabilities"], axis=1))
    batch, height, width = (_dimension(name, getattr(described, name)) for name in ("batch", "height", "width"))
    shape = [batch, 3, height, width] if float_input else [batch, height, width, 3]
    kind = floats if float_input else TensorProto.UINT8
    if described.io is IOType.FP16:
        nodes = _cast_around(nodes, float_input, described.output)
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(described.output.value, result, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, {METADATA_KEY: described.to_json()})
    onnx.save(model, path)
    write_manifest(path, "onnx", {})
    return path


def _cast_around(nodes: list[Any], float_input: bool, output: OutputKind) -> list[Any]:
    """`nodes`, which compute in float32, between float16 inputs and outputs."""
    from onnx import TensorProto, helper

    around = list(nodes)
    if float_input:
        around[0].input[0] = "wide"
        around.insert(0, helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.FLOAT))
    if output is not OutputKind.LABELS:
        around[-1].output[0] = "result"
        around.append(helper.make_node("Cast", ["result"], [output.value], to=TensorProto.FLOAT16))
    return around


def _dimension(name: str, dimension: DimensionRange) -> int | str:
    return dimension.opt if dimension.is_fixed else name


def _normalising_nodes(described: Contract, constants: dict[str, np.ndarray]) -> list[Any]:
    from onnx import TensorProto, helper

    order = [0, 1, 2] if described.input is InputKind.RGB else [2, 1, 0]
    constants["order"] = np.array(order, np.int64)
    constants["mean"] = np.array(described.normalization.mean, np.float32)[:, None, None]
    constants["std"] = np.array(described.normalization.std, np.float32)[:, None, None]
    return [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "order"], ["rgb"], axis=1),
        helper.make_node("Sub", ["rgb", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["x"]),
    ]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth colourful image, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def label_map(height: int, width: int, classes: int = 11, seed: int = 0) -> np.ndarray:
    """Blocks of labels, uint8 (height, width), some of them 255."""
    coarse = np.random.default_rng(seed).integers(0, classes + 1, (4, 6))
    coarse = np.where(coarse == classes, 255, coarse).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def write_pairs(root: Path, count: int = 3, size: tuple[int, int] = (60, 90), split: str = "val") -> Path:
    """A folder of your own with `count` labelled images."""
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(root / "images" / split / f"scene_{index}.png"), picture(*size, seed=index))
        cv2.imwrite(str(root / "annotations" / split / f"scene_{index}.png"), label_map(*size, seed=index))
    return root


IDENTITY = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
