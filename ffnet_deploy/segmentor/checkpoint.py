"""Reading checkpoints without running what they hold: `.pth`, `.pth.tar` and `.safetensors`."""

import argparse
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.core.files import sha256
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.segmentor.pickles import fetched_names

if TYPE_CHECKING:
    from torch import Tensor

_STATE_KEYS = ("state_dict", "model")
_WRAPPER = "module."
_HARMLESS = ("torch.", "collections.OrderedDict", "numpy.")
_TEXT = frozenset(b"\t\n\r" + bytes(range(32, 127)))


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a checkpoint file.

    Attributes:
        path: of the file.
        tensors: by name, without the prefix that data-parallel training adds.
        meta: what else the file says of itself: ``CLASSES``, ``epoch``, ...
        sha256: hash of the file.
    """

    path: Path
    tensors: dict[str, "Tensor"]
    meta: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors in the file `path`, on the CPU.

    Only tensors and the plain values that training tools write beside them are accepted; code never runs.

    Raises:
        CheckpointError: the file is missing, damaged, holds no tensors, or holds a type that could run code.
    """
    _check_present(path)
    content, meta = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return Checkpoint(path, _tensors(content, path), meta, sha256(path))


def read_training_state(path: Path) -> dict[str, Any]:
    """Everything that a training run saved in the file `path`: weights, optimiser, schedules, log histories.

    Tensors lie on the CPU, log histories are `LogHistory`; as with `read_checkpoint`, code never runs.

    Raises:
        CheckpointError: the file is missing, damaged, or holds a type that could run code.
    """
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
    try:
        with quiet(), torch.serialization.safe_globals(_allowed_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise nearly anything; what they raise is told in the message
        raise _unsafe_or_damaged(path, error) from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"checkpoint {path} holds a {type(content).__name__}, not a dict with tensors")
    meta = content.get("meta")
    return dict(content), dict(meta) if isinstance(meta, Mapping) else {}


def _allowed_types() -> list[Any]:
    """What checkpoints of mmcv, mmengine and timm hold besides tensors: numpy numbers, log histories, options."""
    multiarray = importlib.import_module("numpy._core" if hasattr(np, "_core") else "numpy.core").multiarray
    functions = [
        (getattr(multiarray, name), f"{module}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for module in ("numpy.core", "numpy._core")
    ]
    dtypes = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    return [np.ndarray, np.dtype, *dtypes, *functions, argparse.Namespace, *_log_history_types()]


class LogHistory:
    """What becomes of mmengine's `HistoryBuffer`, whose own unpickling would change the class for everybody."""


def _statistic(owner: Any, name: str) -> str:
    """The name that a `HistoryBuffer` fetches from its class through getattr; nothing else may be fetched."""
    if owner is LogHistory and name in ("min", "max", "mean", "current"):
        return name
    raise CheckpointError(f"it asks for the attribute {name!r} of {owner!r}")


def _log_history_types() -> list[Any]:
    return [(LogHistory, "mmengine.logging.history_buffer.HistoryBuffer"), (_statistic, "builtins.getattr")]


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
    told = (str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__).splitlines()[0]
    return told.partition(". ")[0][:160]


def _check_kinds(tensors: Mapping[str, "Tensor"], path: Path) -> None:
    """Raise `CheckpointError` for tensors that are no plain arrays of real numbers."""
    torch = optional("torch", extra="convert", purpose="reading a checkpoint")
    floats = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    for name, value in tensors.items():
        plain = value.layout is torch.strided and not value.is_quantized and not value.is_meta
        whole = not (value.is_floating_point() or value.is_complex())
        if not plain or not (whole or value.dtype in floats):
            kind = str(value.dtype if plain else "no plain tensor").removeprefix("torch.")
            raise CheckpointError(
                f"checkpoint {path}: {name} is {kind}; a segmentor's weights are 16, 32 or 64 bit floats.\n"
                "  to do    save the plain float weights"
            )


def _tensors(content: Mapping[str, Any], path: Path) -> dict[str, "Tensor"]:
    torch = optional("torch", extra="convert", purpose="reading a checkpoint")
    holder: Mapping[str, Any] = next(
        (content[key] for key in _STATE_KEYS if isinstance(content.get(key), Mapping)), content
    )
    tensors = {
        str(name).removeprefix(_WRAPPER): value for name, value in holder.items() if isinstance(value, torch.Tensor)
    }
    if not tensors:
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise CheckpointError(f"checkpoint {path} holds no tensors, only: {keys}")
    _check_kinds(tensors, path)
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(f"checkpoint {path} has NaN or infinite values in {len(bad)} tensors, first in {bad[0]}")
    return tensors
