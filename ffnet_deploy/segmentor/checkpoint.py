"""Reading checkpoints without running what they hold: `.pth`, `.pth.tar` and `.safetensors`.

`read_checkpoint` gives the weights, `read_training_state` all that a training run saved; nothing else in the project
may unpickle a file. Sizes are compared before anything is expanded, so that reading takes about as
much memory as the file.
"""

import argparse
import importlib
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.core.files import sha256
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.core.text import shown_line

if TYPE_CHECKING:
    from torch import Tensor

_STATE_KEYS = ("state_dict", "model", "state_dict_ema")
"""Where a checkpoint keeps its weights, the first that is there."""
_EMA = "state_dict_ema"
_LARGEST_PICKLE = 64 << 20
"""Most bytes of the pickle beside a checkpoint's tensors: log histories of long runs have some 30 MB."""
_WRAPPER = "module."
_HARMLESS = ("torch.", "collections.OrderedDict", "numpy.")
_TEXT = frozenset(b"\t\n\r" + bytes(range(32, 127)))


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint file.

    Attributes:
        path: Path of the file.
        tensors: Tensors by name, without the prefix that data-parallel training adds.
        meta: What else the file says of itself: ``CLASSES``, ``epoch``, ...
        sha256: SHA-256 of the file.
        notes: What was assumed to read it, in words.
    """

    path: Path
    tensors: dict[str, "Tensor"]
    meta: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | PathLike[str]) -> Checkpoint:
    """The tensors in the file `path`, on the CPU.

    Only tensors and the plain values that training tools write beside them are accepted; code never runs.

    Raises:
        CheckpointError: the file is missing, damaged, holds no tensors, or holds a type that could run code.
    """
    path = Path(path)
    _check_present(path)
    content, meta = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    notes: tuple[str, ...] = ()
    if _state_key(content) == _EMA:
        notes = (f"the checkpoint holds no {_STATE_KEYS[0]}: the averaged weights in {_EMA} are used",)
    return Checkpoint(path, _tensors(content, path), meta, sha256(path), notes)


def read_training_state(path: str | PathLike[str]) -> dict[str, Any]:
    """Everything that a training run saved in the file `path`: weights, optimiser, schedules, log histories.

    Tensors lie on the CPU, log histories are `LogHistory`; as with `read_checkpoint`, code never runs.

    Raises:
        CheckpointError: the file is missing, damaged, or holds a type that could run code.
    """
    path = Path(path)
    _check_present(path)
    content, _ = _read_pickle(path)
    return content


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"no checkpoint file {path}.\n  to do    check the path, or use --checkpoint published")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint {path} is empty (0 bytes).\n  to do    copy or download it again")


def _read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    safetensors = optional("safetensors", extra="convert", purpose="reading a .safetensors checkpoint")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read_pickle(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    torch = optional("torch", extra="convert", purpose="reading a checkpoint")
    _check_sizes(path)
    try:
        with quiet(), torch.serialization.safe_globals(_allowed_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything; it is part of the message
        raise _unsafe_or_damaged(path, error) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}, not a dict with tensors")
    for name, tensor in _tensors_within(content, ""):
        if not tensor.is_nested and tensor.layout is torch.strided and not tensor.is_meta:
            stored = tensor.untyped_storage().nbytes()
            if tensor.numel() * tensor.element_size() > stored:
                raise _no_plain_tensor(path, name, f"a view that repeats its {stored} bytes")
    meta = content.get("meta")
    return dict(content), dict(meta) if isinstance(meta, Mapping) else {}


def _tensors_within(value: Any, name: str) -> Iterator[tuple[str, "Tensor"]]:
    """Every tensor in nested dicts and lists, with the keys that lead to it."""
    torch = optional("torch", extra="convert", purpose="reading a checkpoint")
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            yield from _tensors_within(entry, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _tensors_within(entry, f"{name}[{index}]")


def _check_sizes(path: Path) -> None:
    """Raise `CheckpointError` where the file's parts are much larger than the file: nothing is expanded before.

    PyTorch writes its zip files uncompressed, so that their parts are together no larger than the file.
    """
    try:
        if not zipfile.is_zipfile(path):
            return  # bare pickles: every tensor lies in the file as it is
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise _damaged(path, error) from error
    size, whole = path.stat().st_size, sum(part.file_size for part in parts)
    if whole > size:
        raise CheckpointError(
            f"checkpoint {path} is refused: it has {size} bytes and would unpack to {whole}.\n"
            "  to do    save it with torch.save, which does not compress, or as .safetensors"
        )
    beside = sum(part.file_size for part in parts if part.filename.endswith(".pkl"))
    if beside > _LARGEST_PICKLE:
        raise CheckpointError(
            f"checkpoint {path} is refused: beside its tensors it has {beside} bytes; {_LARGEST_PICKLE} are read.\n"
            "  to do    save its state_dict alone, best as .safetensors"
        )


def _allowed_types() -> list[Any]:
    """What checkpoints of mmcv, mmengine and timm hold besides tensors: numpy numbers, log histories, options."""
    multiarray = importlib.import_module("numpy._core" if hasattr(np, "_core") else "numpy.core").multiarray
    functions = [
        (getattr(multiarray, name), f"{module}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for module in ("numpy.core", "numpy._core")
    ]
    dtypes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    history = [(LogHistory, "mmengine.logging.history_buffer.HistoryBuffer"), (_statistic, "builtins.getattr")]
    return [np.ndarray, np.dtype, *dtypes, *functions, argparse.Namespace, *history]


class LogHistory:
    """What becomes of mmengine's `HistoryBuffer`, whose own unpickling would change the class for everybody."""


def _statistic(owner: Any, name: str) -> str:
    """The name that a `HistoryBuffer` fetches from its class through getattr; nothing else may be fetched."""
    if owner is LogHistory and name in ("min", "max", "mean", "current"):
        return name
    raise CheckpointError(f"it asks for the attribute {name!r} of {owner!r}")


def _unsafe_or_damaged(path: Path, error: Exception) -> CheckpointError:
    what = str(error) if isinstance(error, CheckpointError) else _unsafe_type(path, str(error))
    if not what:
        return _damaged(path, error)
    return CheckpointError(
        f"checkpoint {path} is refused: besides tensors it holds something that could run code ({what}).\n"
        "  to do    get it from a source you trust, or save its state_dict alone, best as .safetensors"
    )


def _unsafe_type(path: Path, message: str) -> str:
    """The type that torch refused, in words; empty when the file is damaged rather than unsafe."""
    if "TorchScript" in message:
        return "a TorchScript program"
    named = re.search(r"(?:\bGLOBAL |<class ')([\w.]+)", message)
    if named:
        return f"the type {named.group(1)}"
    if "Unsupported operand" not in message:
        return ""
    # torch reads the pickle protocols 2 and 3 alone and stops at others before it sees their types
    names = fetched_names(path)
    foreign = [name for name in names if not name.startswith(_HARMLESS)] or names
    return f"the type {foreign[0]}, in a pickle protocol that cannot be read safely" if foreign else ""


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path} is damaged or not a checkpoint ({_reason(path, error)}).\n"
        "  to do    copy or download it again"
    )


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip()[:1] == b"<":
        return "it is a web page, perhaps from a download that failed"
    if all(byte in _TEXT for byte in head):
        return "it is a text file"
    message = (str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__).splitlines()[0]
    return message.partition(". ")[0][:160]


def _check_kinds(tensors: Mapping[str, "Tensor"], path: Path) -> None:
    """Raise `CheckpointError` for tensors that are no plain arrays of real numbers."""
    torch = optional("torch", extra="convert", purpose="reading a checkpoint")
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, value in tensors.items():
        if value.is_nested or value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise _no_plain_tensor(path, name, "no plain tensor")
        whole = not (value.is_floating_point() or value.is_complex())
        if not (whole or value.dtype in floats):
            raise _no_plain_tensor(path, name, str(value.dtype).removeprefix("torch."))


def _no_plain_tensor(path: Path, name: str, kind: str) -> CheckpointError:
    return CheckpointError(
        f"checkpoint {path}: {shown_line(name)} is {kind}; a segmentor's weights are 16, 32 or 64 bit floats.\n"
        "  to do    save the plain float weights"
    )


def _state_key(content: Mapping[str, Any]) -> str | None:
    """Where the weights are kept; None: at the top level."""
    return next((key for key in _STATE_KEYS if isinstance(content.get(key), Mapping)), None)


def _tensors(content: Mapping[str, Any], path: Path) -> dict[str, "Tensor"]:
    torch = optional("torch", extra="convert", purpose="reading a checkpoint")
    key = _state_key(content)
    holder: Mapping[str, Any] = content if key is None else content[key]
    tensors = {
        shown_line(str(name)).removeprefix(_WRAPPER): value
        for name, value in holder.items()
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        keys = shown_line(", ".join(map(str, list(content)[:8]))) or "nothing"
        raise CheckpointError(f"checkpoint {path} holds no tensors, only: {keys}")
    _check_kinds(tensors, path)
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(f"checkpoint {path} has NaN or infinite values in {len(bad)} tensors, first in {bad[0]}")
    return tensors


def fetched_names(path: Path) -> list[str]:
    """Dotted names that the pickles in a checkpoint fetch, in order, as far as the file can be read; nothing runs.

    Args:
        path: a zip file of `torch.save`, or bare pickles one after the other as older versions wrote them.
    """
    names: list[str] = []
    for content in _contents(path):
        start = 0
        while start < len(content):
            length = _scan(content[start:], names)
            if not length:
                break
            start += length
    return list(dict.fromkeys(names))


def _contents(path: Path) -> list[bytes]:
    try:
        if not zipfile.is_zipfile(path):
            return [path.read_bytes()]
        with zipfile.ZipFile(path) as archive:
            return [archive.read(name) for name in archive.namelist() if name.endswith(".pkl")]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError):
        return []


def _scan(pickle: bytes, names: list[str]) -> int:
    """Append the names that the first pickle fetches to `names`; its length in bytes, 0 when it is damaged."""
    strings: list[str] = []
    memo: list[str] = []
    latest = ""
    try:
        for opcode, argument, position in pickletools.genops(pickle):
            if opcode.name in ("GLOBAL", "INST"):
                names.append(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.append(".".join(strings[-2:]))
            elif opcode.name == "MEMOIZE":
                memo.append(latest)
            elif opcode.name in ("BINGET", "LONG_BINGET") and isinstance(argument, int) and argument < len(memo):
                strings.append(memo[argument])
            elif opcode.name == "STOP":
                return int(position or 0) + 1
            latest = argument if isinstance(argument, str) else ""
            strings += [latest] if latest else []
    except (ValueError, IndexError, KeyError):  # damaged: what was found so far still counts
        return 0
    return 0
