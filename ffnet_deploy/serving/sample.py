"""A script beside a graph that labels an image with ONNX Runtime and OpenCV alone, by the graph's own metadata."""

import json
from pathlib import Path

from ffnet_deploy.artifacts.outputs import WRITTEN_BY
from ffnet_deploy.core.contract import INPUT_NAME, METADATA_KEY, STRIDE, InputKind, IOType, OutputKind
from ffnet_deploy.core.files import write_bytes
from ffnet_deploy.core.label_maps import label_type
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.onnxruntime import quantized_settings

_HEAD = '''"""Label an image: python {script} IMAGE LABELS.png

{written_by}. Needs onnxruntime and opencv-python. What the graph takes and gives, the classes and the
published way to show images stand in the graph's metadata.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

options = onnxruntime.SessionOptions()
{entries}graph = str(Path(__file__).with_name({graph}))
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
about = json.loads(session.get_modelmeta().custom_metadata_map["{key}"])
protocol = about["protocol"]


def resize(values, size):
    return values if values.shape[:2] == size else cv2.resize(values, size[::-1])


def accepted(size):
    """The nearest size that the graph takes: its own where that is fixed, else the next multiples of {stride}."""
    sides = zip(size, (about["height"], about["width"]))
    return tuple(one["opt"] if one["min"] == one["max"] else -(-side // {stride}) * {stride} for side, one in sides)


def network(image):
    """The graph's output for uint8 (height, width, 3), BGR."""
{input}
    return session.run(None, {{"{name}": batch}})[0][0]{scores}


image = cv2.imread(sys.argv[1])
own = image.shape[:2]
{fitted}
shown = tuple(-(-side // protocol["divisor"]) * protocol["divisor"] for side in fitted)
'''

_INPUTS = {
    InputKind.FLOAT: """    normalization = about["normalization"]
    mean, std = (np.float32(normalization[key])[:, None, None] for key in ["mean", "std"])
    batch = ((np.float32(image[..., ::-1]).transpose(2, 0, 1) - mean) / std)[None]""",
    InputKind.RGB: "    batch = np.ascontiguousarray(image[None, ..., ::-1])",
    InputKind.BGR: "    batch = np.ascontiguousarray(image[None])",
}

_KEEP_RATIO = """factor = min(max(protocol["scale"]) / max(own), min(protocol["scale"]) / min(own))
fitted = tuple(int(side * factor + 0.5) for side in own)"""
_FREE_RATIO = 'fitted = tuple(protocol["scale"][::-1])'

_WHOLE = """if accepted(shown) == shown:
    image = resize(resize(image, fitted), shown)
else:  # the graph's input is of another size: the image is stretched to it
    image = resize(image, accepted(shown))
"""

_SLIDE = """image = resize(resize(image, fitted), shown)
tops, lefts = (
    [max(min(step * stride, side - crop), 0) for step in range(max(side - crop + stride - 1, 0) // stride + 1)]
    for side, crop, stride in zip(shown, protocol["crop"], protocol["stride"])
)
total = np.zeros((len(about["classes"]), *shown), np.float32)
count = np.zeros(shown, np.float32)
for top in tops:
    for left in lefts:
        here = slice(top, top + protocol["crop"][0]), slice(left, left + protocol["crop"][1])
        window = image[here]
        scores = network(resize(window, accepted(window.shape[:2])))
        total[(slice(None), *here)] += [resize(plane, window.shape[:2]) for plane in scores]
        count[here] += 1  # overlapping windows are averaged
labels = np.argmax([resize(plane, own) for plane in total / count], axis=0)
"""

_WHOLE_SCORES = """labels = np.argmax([resize(resize(plane, image.shape[:2]), own) for plane in network(image)], axis=0)
"""

_WHOLE_LABELS = """labels = network(image)
down, across = ((2 * np.arange(target) + 1) * side // (2 * target) for target, side in zip(own, labels.shape))
labels = labels[down[:, None], across]  # the label at the centre of each pixel
"""

_TAIL = """cv2.imwrite(sys.argv[2], labels.astype(np.{kind}))
for label, name in enumerate(about["classes"]):
    if (labels == label).any():
        print(f"{{(labels == label).mean():7.2%}}  {{name}}")
"""


def sample_path(graph: Path) -> Path:
    """Where the script of `graph` lies: ``net.sample.py`` beside ``net.onnx``."""
    return graph.with_suffix(".sample.py")


def write_sample(graph: Path) -> Path:
    """Write the script of `graph` beside it; it gives the label maps of `ffnet_deploy.open_engine`.

    Returns:
        The script's path.

    Raises:
        ArtifactError: `graph` was not written by ffnet-export.
        StorageError: the script cannot be written.
    """
    contract, record = read_description(graph)
    path = sample_path(graph)
    entries = quantized_settings(record).items()
    fill = f"\n    batch = np.repeat(batch, {contract.batch.min}, axis=0)" if contract.batch.min > 1 else ""
    narrow = contract.io is IOType.FP16 and contract.input is InputKind.FLOAT
    half = "\n    batch = batch.astype(np.float16)" if narrow else ""
    if contract.protocol.mode == "slide" and contract.output is not OutputKind.LABELS:
        body = _SLIDE
    else:
        body = _WHOLE + (_WHOLE_LABELS if contract.output is OutputKind.LABELS else _WHOLE_SCORES)
    head = _HEAD.format(
        script=path.name,
        written_by=WRITTEN_BY,
        graph=json.dumps(graph.name),
        key=METADATA_KEY,
        name=INPUT_NAME,
        stride=STRIDE,
        entries="".join(f'options.add_session_config_entry("{name}", "{value}")\n' for name, value in entries),
        input=_INPUTS[contract.input] + half + fill,
        scores=".astype(np.float32)" if contract.io is IOType.FP16 and contract.output is not OutputKind.LABELS else "",
        fitted=_KEEP_RATIO if contract.protocol.keep_ratio else _FREE_RATIO,
    )
    write_bytes(path, (head + body + _TAIL.format(kind=label_type(len(contract.classes)))).encode())
    return path
