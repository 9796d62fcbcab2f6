"""A configuration of DeepStream's Gst-nvinfer element for an exported graph or a built engine.

Source of the keys: NVIDIA DeepStream Development Guide, "Gst-nvinfer", and its gstnvinfer_property_parser.h. The
element feeds ``net-scale-factor * (x - offset)`` as float32 (batch, 3, height, width) and takes the class with the
largest score above ``segmentation-threshold``, which is not negative, from float32 (batch, classes, height, width).
"""

import shutil
from pathlib import Path

from ffnet_deploy.artifacts.outputs import WRITTEN_BY, Kind, is_own
from ffnet_deploy.core.contract import Contract, InputKind, IOType, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import make_folder, storage_errors, write_bytes
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.serving.artifact import ServedArtifact, read_served

CONFIG_FILE = "config_infer.txt"
"""Name of the element's configuration; its property ``config-file-path`` takes the path."""
LABELS_FILE = "labels.txt"
"""Name of the file with the class names, one a line, in label order."""


def write_deepstream(artifact: Path, folder: Path) -> Path:
    """Write into `folder` the element's configuration for `artifact`, the class names, and a copy of the artefact.

    Args:
        artifact: an engine of TensorRT, or an ONNX file that the element builds an engine from by itself.
        folder: earlier files of the same names in it are replaced where they were written here.

    Returns:
        The configuration's path.

    Raises:
        ArtifactError: the artefact is missing, damaged, or not ours.
        OptionError: the element cannot run it.
        StorageError: there is no room, or the folder cannot be written.
    """
    source = read_served(artifact, "DeepStream")
    _check_contract(source.contract)
    config = make_folder(folder) / CONFIG_FILE
    if config.exists() and not is_own(config, Kind.DEEPSTREAM):
        raise OptionError(f"{config} is there already and was not written here.\n  to do    choose another folder")
    if not config.exists():
        for name in (LABELS_FILE, *(file.name for file, _ in source.files)):
            if (folder / name).exists():
                raise OptionError(
                    f"{folder / name} is there already and was not written here.\n  to do    choose another folder"
                )
    for file, _ in source.files:
        with storage_errors(folder):
            shutil.copyfile(file, folder / file.name)
    write_bytes(folder / LABELS_FILE, "".join(f"{name}\n" for name in source.contract.classes).encode())
    lines = [f"{key}={value}" for key, value in nvinfer_properties(source, artifact.name).items()]
    write_bytes(config, "\n".join([f"# {WRITTEN_BY}", "[property]", *lines, ""]).encode())
    return config


def nvinfer_properties(source: ServedArtifact, file: str) -> dict[str, str]:
    """The keys of the group ``[property]`` for an artefact that lies as `file` beside the configuration."""
    contract = source.contract
    # the element's number of a precision, which it uses where it builds the engine by itself
    precision = "1" if source.record.precision.is_quantized else "2" if source.record.base is Precision.FP16 else "0"
    model = {"model-engine-file": file} if source.backend == "tensorrt" else {"onnx-file": file}
    return {
        "gpu-id": "0",
        **model,
        "labelfile-path": LABELS_FILE,
        "batch-size": str(contract.batch.max),
        "infer-dims": f"3;{contract.height.opt};{contract.width.opt}",
        "network-mode": precision,
        "network-type": "2",  # segmentation
        "num-detected-classes": str(len(contract.classes)),
        "output-blob-names": contract.output.value,
        "segmentation-threshold": "0.0",
        "segmentation-output-order": "0",  # (classes, height, width)
        "model-color-format": "0",  # RGB
        "net-scale-factor": f"{scale_factor(contract):.10g}",
        "offsets": ";".join(f"{value:g}" for value in contract.normalization.mean),
        "maintain-aspect-ratio": "0",
        "interval": "0",
        "gie-unique-id": "1",
        "process-mode": "1",  # whole frames
    }


def scale_factor(contract: Contract) -> float:
    """The element's one scale for all channels: the mean of the largest and the smallest that they need."""
    scales = [1 / deviation for deviation in contract.normalization.std]
    return (min(scales) + max(scales)) / 2


def scale_error(contract: Contract) -> float:
    """Largest relative error of a channel's scale that comes with `scale_factor`."""
    return max(abs(scale_factor(contract) * deviation - 1) for deviation in contract.normalization.std)


def _check_contract(contract: Contract) -> None:
    """Raise `OptionError`, with what to export, where the element cannot feed the network or read its output."""
    wanted = "--output probabilities, float input, and no --io fp16"
    found = None
    if contract.input is not InputKind.FLOAT:
        found = f"it feeds float32 planes, and the network takes {contract.input.value} bytes"
    elif contract.output is not OutputKind.PROBABILITIES:
        found = f"it compares probabilities at the input's size, and the network gives {contract.output.value}"
    elif contract.io is not IOType.FP32:
        found = "it reads float32, and the network gives float16"
    if found is not None:
        raise OptionError(f"Gst-nvinfer cannot run this network: {found}.\n  to do    export it with {wanted}")
