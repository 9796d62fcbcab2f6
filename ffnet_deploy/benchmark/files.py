"""Reading and writing a run of the benchmark as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ffnet_deploy.benchmark.record import BenchRun
from ffnet_deploy.core.decoding import DecodingError, converted, decode, document_bytes
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import write_json

FORMAT = 2
"""Version of the files that are written. Version 1, with other names for the same, is still read."""

KIND = "ffnet-bench"

MAX_BYTES = 128 << 20
"""Largest file that is read, bytes: a sweep on a fast GPU keeps millions of samples."""

_REMEDY = "to do    measure it again with ffnet-bench --json"
_SCOPES_OF_1 = {"transfers": "device", "end-to-end": "file"}
"""What version 1 called the scopes; "end-to-end" began with decoding there."""


def write_run(path: Path, run: BenchRun) -> None:
    """Write `run` to `path`, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    write_json(path, run_to_dict(run))


def run_to_dict(run: BenchRun) -> dict[str, Any]:
    """`run` as JSON has it, with its format."""
    return {"kind": KIND, "format": FORMAT, **msgspec.to_builtins(run)}


def read_run(path: Path) -> BenchRun:
    """The run that `write_run` wrote, in this version or an older one.

    Raises:
        ArtifactError: the file is missing, damaged, no run of the benchmark, or of a newer version.
    """
    try:
        raw: Any = decode(document_bytes(path, MAX_BYTES), Any, MAX_BYTES)
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no file {path}.\n  {_REMEDY}") from error
    except (OSError, DecodingError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}).\n  {_REMEDY}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise ArtifactError(f"{path} was not written by ffnet-bench --json.\n  {_REMEDY}")
    if raw.get("format") not in (1, FORMAT):
        raise ArtifactError(
            f"{path} has format {raw.get('format')!r}; this version of ffnet-bench reads formats 1 and {FORMAT}.\n"
            f"  {_REMEDY}"
        )
    try:
        return run_from_dict(raw)
    except DecodingError as error:
        raise ArtifactError(f"{path} is damaged: {error}.\n  {_REMEDY}") from error


def run_from_dict(raw: Mapping[str, Any]) -> BenchRun:
    """The run that `run_to_dict` gave, in format 1 or 2.

    Raises:
        DecodingError: an entry is missing, of the wrong type or out of range; the message names it.
    """
    return converted(_renamed(raw) if raw.get("format") == 1 else raw, BenchRun)


def _renamed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A run of format 1 under the names of format 2."""
    renamed = {("candidates" if name == "contenders" else name): value for name, value in raw.items()}
    for section in ("measurements", "missing"):
        rows = renamed.get(section)
        if isinstance(rows, list):
            renamed[section] = [
                {("candidate" if name == "contender" else name): value for name, value in row.items()}
                if isinstance(row, dict)
                else row
                for row in rows
            ]
    method = renamed.get("method")
    if isinstance(method, dict) and isinstance(method.get("content"), str):
        scope = method["content"]
        renamed["method"] = {**method, "scope": _SCOPES_OF_1.get(scope, scope)}
    return renamed
