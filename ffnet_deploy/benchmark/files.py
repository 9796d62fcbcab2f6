"""Reading and writing a run of the benchmark as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ffnet_deploy.benchmark.record import BenchRun
from ffnet_deploy.core.errors import ArtifactError, OptionError
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
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"there is no file {path}.\n  {remedy}") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({type(error).__name__}).\n  {remedy}") from error
    if not isinstance(raw, dict) or raw.get("kind") != KIND:
        raise ArtifactError(f"{path} was not written by ffnet-bench --json.\n  {remedy}")
    if raw.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} has format {raw.get('format')}; this version of ffnet-bench reads and writes format {FORMAT}.\n"
            f"  {remedy}"
        )
    try:
        return run_from_dict(raw)
    except (ArtifactError, OptionError) as error:
        raise ArtifactError(f"{path} is damaged: {error}.\n  {remedy}") from error


def run_from_dict(raw: Mapping[str, Any]) -> BenchRun:
    """The run that `run_to_dict` gave.

    Raises:
        ArtifactError: an entry is missing or of the wrong type; the message names it.
    """
    run: BenchRun = _build(BenchRun, raw, "")
    return run


def _plain(value: Any) -> Any:
    """`value` with its enumerations as their values: text that JSON keeps."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple) and not (value and isinstance(value[0], float)):
        return [_plain(entry) for entry in value]
    return value


def _build(kind: Any, raw: Any, where: str) -> Any:
    """`raw` from JSON as a value of the annotated type `kind`."""
    if kind is float and isinstance(raw, int | float) and not isinstance(raw, bool):
        return float(raw)
    if isinstance(kind, type) and kind in (int, str, bool, NoneType):
        return _checked(raw, type(raw) is kind, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(_checked(raw, raw in [member.value for member in kind], where))
    if is_dataclass(kind):
        return _build_dataclass(kind, _checked(raw, isinstance(raw, dict), where), where)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if raw is None else _build(next(one for one in arguments if one is not NoneType), raw, where)
    if origin is tuple:
        return _build_tuple(arguments, _checked(raw, isinstance(raw, list), where), where)
    if origin is Mapping:
        return dict(_checked(raw, isinstance(raw, dict), where))
    return _checked(raw, False, where)


def _build_dataclass(kind: Any, raw: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(kind)
    missing = [entry.name for entry in fields(kind) if entry.name not in raw]
    if missing:
        raise ArtifactError(f"{where or 'the run'} lacks {missing[0]}")
    return kind(
        **{
            entry.name: _build(hints[entry.name], raw[entry.name], f"{where}.{entry.name}".lstrip("."))
            for entry in fields(kind)
        }
    )


def _build_tuple(arguments: tuple[Any, ...], raw: list[Any], where: str) -> tuple[Any, ...]:
    if arguments[-1] is Ellipsis:
        return tuple(_build(arguments[0], entry, f"{where}[{index}]") for index, entry in enumerate(raw))
    _checked(raw, len(raw) == len(arguments), where)
    return tuple(_build(kind, entry, where) for kind, entry in zip(arguments, raw, strict=True))


def _checked(raw: Any, fits: bool, where: str) -> Any:
    if not fits:
        raise ArtifactError(f"{where} is {str(raw)[:40]!r}")
    return raw
