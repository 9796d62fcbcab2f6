"""What a server needs to know of an exported graph or a built engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ffnet_deploy.core.contract import INPUT_NAME, Contract
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.engines.bundle import open_bundle
from ffnet_deploy.engines.engine import input_type, output_type
from ffnet_deploy.engines.onnx_file import check_against_manifest
from ffnet_deploy.engines.onnx_metadata import external_files, read_description, tensor_shape
from ffnet_deploy.engines.tensorrt.tensors import engine_output_type
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.serving.triton_config import Tensor


@dataclass(frozen=True)
class ServedArtifact:
    """An artefact as a server sees it.

    Attributes:
        files: Files to copy, each with its name there.
        backend: ``"tensorrt"`` or ``"onnxruntime"``.
        contract: What the network takes and gives.
        record: Precision of the network.
        tensors: Its input and its output.
    """

    files: tuple[tuple[Path, str], ...]
    backend: str
    contract: Contract
    record: PrecisionRecord
    tensors: tuple[Tensor, Tensor]


def read_served(artifact: Path, server: str) -> ServedArtifact:
    """The ONNX file or engine `artifact`, after a check that `server`, named for people, can serve it.

    Raises:
        ArtifactError: it is missing, damaged, or not written by ffnet-export.
        OptionError: it is an engine of TensorRT for RTX, or one without weights.
    """
    if artifact.name.endswith(Variant.RTX.suffix):
        raise OptionError(
            f"{server} does not run engines of TensorRT for RTX.\n"
            "  to do    give the ONNX file, or an engine of --backend trt"
        )
    if artifact.suffix == Variant.TENSORRT.suffix:
        bundle = open_bundle(artifact)
        if bundle.manifest["build"]["options"].get("strip_weights"):
            raise OptionError(
                f"{artifact} holds no weights: an empty network would be served.\n"
                "  to do    build it without --strip-weights"
            )
        shapes = tuple(bundle.manifest["tensors"][key] for key in ("input", "output"))
        tensors = _tensors(bundle.contract, shapes, engine=True)
        return ServedArtifact(((artifact, "model.plan"),), "tensorrt", bundle.contract, bundle.record, tensors)
    check_against_manifest(artifact)
    contract, record = read_description(artifact)
    shapes = tuple(tensor_shape(artifact, tensor) for tensor in (INPUT_NAME, contract.output.value))
    # the graph names the files of its weights, so that they keep their names
    files = [(artifact, "model.onnx"), *((artifact.with_name(name), name) for name in external_files(artifact))]
    return ServedArtifact(tuple(files), "onnxruntime", contract, record, _tensors(contract, shapes, engine=False))


def stem_of(artifact: Path) -> str:
    """Name of `artifact` without the ending of its kind."""
    name = artifact.name
    for suffix in (Variant.RTX.suffix, Variant.TENSORRT.suffix, ".onnx"):
        name = name.removesuffix(suffix)
    return name


def _tensors(contract: Contract, shapes: Sequence[Sequence[int]], engine: bool) -> tuple[Tensor, Tensor]:
    taken, given = input_type(contract), (engine_output_type if engine else output_type)(contract)
    return (
        Tensor(INPUT_NAME, taken.name, tuple(shapes[0])),
        Tensor(contract.output.value, given.name, tuple(shapes[1])),
    )
