"""What every engine that opens an exported ONNX file checks and reads, whatever runs it."""

from collections.abc import Sequence
from pathlib import Path

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest
from ffnet_deploy.core.contract import INPUT_NAME, METADATA_KEY, Contract
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.precision import PrecisionRecord


def check_name(path: Path) -> None:
    """Raise `ArtifactError` where the path of an artefact is not UTF-8: runtimes and JSON take no other."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ArtifactError(
            f"the path {path} is not UTF-8, as runtimes need it.\n  to do    rename the file or its folder"
        ) from error


def check_file(path: Path) -> None:
    """Raise `ArtifactError` unless `path` is a file that holds something, under a name that any runtime can open."""
    check_name(path)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or device"
        raise ArtifactError(f"{path} is {what}, no artefact.\n  to do    name a file that ffnet-export wrote")
    if not path.is_file():
        raise ArtifactError(f"there is no artefact {path}.\n  to do    write one with ffnet-export")
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path} is empty (0 bytes).\n  to do    export it again with ffnet-export")


def check_against_manifest(path: Path) -> tuple[str, ...]:
    """Check `path` against its manifest; a note where there is none.

    Raises:
        ArtifactError: the file is missing, empty, or not the one that was verified.
    """
    check_file(path)
    if manifest_path(path).is_file():
        read_manifest(path)
        return ()
    return (f"{path.name} has no manifest beside it: the file was not checked",)


def read_contract(text: str | None, path: Path) -> Contract:
    """The contract in the metadata of `path`; `text` is None where it has none.

    Raises:
        ArtifactError: there is none, or it is damaged.
    """
    if text is None:
        raise ArtifactError(
            f"{path} was not exported by ffnet-export: its metadata has no {METADATA_KEY!r}, so that its classes, "
            "sizes and normalisation are unknown.\n  to do    export the network with ffnet-export"
        )
    try:
        return Contract.from_json(text)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def read_precision(text: str | None, path: Path) -> PrecisionRecord:
    """The precision that the metadata of `path` tells of; `text` is None where it does not: float32.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        return PrecisionRecord() if text is None else PrecisionRecord.from_json(text)
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from error


def check_tensors(inputs: Sequence[str], outputs: Sequence[str], contract: Contract, path: Path) -> None:
    """Raise `ArtifactError` unless the graph's tensors are those of `contract`."""
    if list(inputs) != [INPUT_NAME] or contract.output.value not in outputs:
        raise ArtifactError(
            f"{path} has inputs {list(inputs)} and outputs {list(outputs)}; expected ['{INPUT_NAME}'] and "
            f"['{contract.output.value}'].\n  to do    export it again with ffnet-export"
        )
