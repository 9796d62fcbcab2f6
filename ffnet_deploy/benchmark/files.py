"""Reading and writing a run of the benchmark as JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Any

from ffnet_deploy.benchmark.record import BenchRun
from ffnet_deploy.core.decoding import DecodingError, converted, decode, document_bytes
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import write_json

FORMAT = 1
"""Version of the files; another version's are refused."""

KIND = "ffnet-bench"


def write_run(path: Path, run: BenchRun) -> None:
    """Write `run` to `path`, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    write_json(path, run_to_dict(run))


def run_to_dict(run: BenchRun) -> dict[str, Any]:
    """`run` as JSON has it, with its format."""
    return {"kind": KIND, "format": FORMAT, **_plain(asdict(run))}


def read_run(path: Path) -> BenchRun:
    """The run that `write_run` wrote.

    Raises:
        ArtifactError: the file is missing, damaged, no run of the benchmark, or of another version.
    """
    remedy = "to do    measure it again with ffnet-bench --json"
    try:
        raw = decode(document_bytes(path), Any)
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no file {path}.\n  {remedy}") from error
    except (OSError, DecodingError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}).\n  {remedy}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise ArtifactError(f"{path} was not written by ffnet-bench --json.\n  {remedy}")
    if raw.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} has format {raw.get('format')}; this version of ffnet-bench reads and writes format {FORMAT}.\n"
            f"  {remedy}"
        )
    try:
        return run_from_dict(raw)
    except DecodingError as error:
        raise ArtifactError(f"{path} is damaged: {error}.\n  {remedy}") from error


def run_from_dict(raw: Mapping[str, Any]) -> BenchRun:
    """The run that `run_to_dict` gave.

    Raises:
        ArtifactError: an entry is missing or of the wrong type; the message names it.
    """
    return converted(raw, BenchRun)


def _plain(value: Any) -> Any:
    """`value` with its enumerations as their values: text that JSON keeps."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple) and not (value and isinstance(value[0], float)):
        return [_plain(entry) for entry in value]
    return value
