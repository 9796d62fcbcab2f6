"""A model repository of the Triton Inference Server from an exported graph or a built engine."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from ffnet_deploy.artifacts.outputs import WRITTEN_BY, Kind, is_own
from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import INPUT_NAME, Contract, InputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import make_folder, staging_folder, storage_errors, sweep, write_bytes
from ffnet_deploy.serving.artifact import ServedArtifact, read_served, stem_of
from ffnet_deploy.serving.preprocessing import NORMALIZED, write_preprocessing
from ffnet_deploy.serving.triton_config import (
    LABELS_FILE,
    Tensor,
    TritonOptions,
    ensemble_config,
    network_config,
    preprocessing_config,
)

_VERSION = "1"
_CONFIG = "config.pbtxt"


@dataclass(frozen=True)
class Repository:
    """A model repository on disk.

    Attributes:
        folder: Folder of the repository.
        models: Names of the models written, the one for clients first.
    """

    folder: Path
    models: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line that serves it; TRITON_IMAGE stands for NVIDIA's image of the server."""
        ports = "-p 8000:8000 -p 8001:8001 -p 8002:8002"
        return (
            f'docker run --rm --gpus all {ports} -v "{self.folder.resolve()}:/models" '
            "TRITON_IMAGE tritonserver --model-repository=/models"
        )


def write_repository(artifact: Path, folder: Path, options: TritonOptions | None = None) -> Repository:
    """Write the model repository entries of `artifact` into `folder`; each model's folder is replaced as a whole.

    Args:
        artifact: an ONNX file or a TensorRT engine of ffnet-export.
        folder: of the repository; other models in it stay as they are.
        options: how the server runs it.

    Raises:
        ArtifactError: the artefact is missing, damaged, or not ours.
        OptionError: a server cannot run it this way.
        StorageError: there is no room, or the folder cannot be written.
    """
    options = options or TritonOptions()
    source = read_served(artifact, "Triton's TensorRT backend")
    names = model_names(artifact, options)
    name = names[1] if options.ensemble else names[0]
    if options.ensemble and source.contract.input is not InputKind.FLOAT:
        raise OptionError("the network takes bytes already: preprocessing is in its graph, and no ensemble is needed")
    make_folder(folder)
    for model in names:
        _check_replaceable(folder / model)
    sweep(folder)
    with staging_folder(folder / name) as staging:
        _write_network(staging / name, name, source, options)
        if options.ensemble:
            _write_ensemble(staging, names, source)
        with stopping.deferred():
            for model in reversed(names):
                _swap(staging / model, folder / model, staging)
    return Repository(folder, names)


def model_names(artifact: Path, options: TritonOptions) -> tuple[str, ...]:
    """Names of the models, and of their folders, that `write_repository` writes; the one for clients first."""
    name = options.name or stem_of(artifact)
    return (f"{name}_ensemble", name, f"{name}_preprocessing") if options.ensemble else (name,)


def _write_network(folder: Path, name: str, source: ServedArtifact, options: TritonOptions) -> None:
    config = network_config(name, source.backend, source.contract, source.tensors, options)
    _write_model(folder, config, source.contract)
    for file, target in source.files:
        with storage_errors(folder):
            shutil.copyfile(file, folder / _VERSION / target)


def _write_ensemble(staging: Path, names: tuple[str, ...], source: ServedArtifact) -> None:
    ensemble, network, preprocessing = names
    image, result = source.tensors
    batch, _, height, width = image.shape
    pixels = Tensor(INPUT_NAME, "uint8", (batch, height, width, 3))
    between = Tensor(NORMALIZED, image.dtype, image.shape)
    _write_model(staging / preprocessing, preprocessing_config(preprocessing, source.contract, (pixels, between)))
    write_preprocessing(staging / preprocessing / _VERSION / "model.onnx", source.contract, pixels.shape)
    tensors = (pixels, between, image, result)
    config = ensemble_config(ensemble, source.contract, (preprocessing, network), tensors)
    _write_model(staging / ensemble, config, source.contract)


def _write_model(folder: Path, config: str, contract: Contract | None = None) -> None:
    make_folder(folder / _VERSION)
    write_bytes(folder / _CONFIG, f"# {WRITTEN_BY}\n{config}".encode())
    if contract is not None:
        write_bytes(folder / LABELS_FILE, "".join(f"{name}\n" for name in contract.classes).encode())


def _check_replaceable(folder: Path) -> None:
    """Raise `OptionError` where `folder` is something else than a model that was written here."""
    if folder.exists() and not is_own(folder / _CONFIG, Kind.TRITON):
        raise OptionError(
            f"{folder} is there already and is no model that ffnet-export wrote.\n  to do    choose another folder"
        )


def _swap(draft: Path, target: Path, staging: Path) -> None:
    """Put `draft` in the place of `target`, whose old content goes to the staging folder to be removed."""
    with storage_errors(target):
        if target.exists():
            target.rename(staging / f"{target.name}.old")
        draft.rename(target)
