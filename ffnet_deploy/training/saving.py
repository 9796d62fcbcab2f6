"""Checkpoints of a run: written whole or not at all, found again, and read without running what they hold."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.core.files import write_bytes
from ffnet_deploy.segmentor.checkpoint import LogHistory, read_training_state

BACKEND = "atomic"
"""Name of `AtomicBackend` among mmengine's file backends."""
_CHECKPOINT_NAME = re.compile(r"(?:iter|best)_\w+\.pth")


class AtomicBackend(LocalBackend):  # type: ignore[misc]
    """Local files, each written whole or not at all; what a new file replaces goes only once that is on the disk."""

    outdated: ClassVar[set[Path]] = set()

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write `obj` to `filepath`, then remove what was marked as outdated.

        Raises:
            StorageError: the folder cannot be written, or the disk is full; older files are untouched.
        """
        write_bytes(Path(filepath), obj)
        for path in self.outdated - {Path(filepath)}:
            path.unlink(missing_ok=True)
        self.outdated.clear()

    def remove(self, filepath: str | Path) -> None:
        """Mark `filepath` as outdated."""
        self.outdated.add(Path(filepath))


register_backend(BACKEND, AtomicBackend, force=True)


def is_intact(path: Path) -> bool:
    """Whether every byte of the checkpoint `path` is as it was written, by its own check sums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def checkpoints_in(folder: Path) -> list[Path]:
    """The `iter_N.pth` of `folder`, newest first."""
    numbered = {path: re.fullmatch(r"iter_(\d+)\.pth", path.name) for path in folder.glob("iter_*.pth")}
    iterations = {path: int(match[1]) for path, match in numbered.items() if match}
    return sorted(iterations, key=iterations.__getitem__, reverse=True)


def newest_intact(folder: Path) -> tuple[Path, list[Path]]:
    """The newest intact checkpoint of `folder`, and the newer ones that are damaged.

    Raises:
        CheckpointError: there is none.
    """
    damaged: list[Path] = []
    for path in checkpoints_in(folder):
        if is_intact(path):
            return path, damaged
        damaged.append(path)
    found = f"{len(damaged)} damaged ones" if damaged else "none"
    raise CheckpointError(
        f"nothing to resume: {folder} should hold a checkpoint iter_N.pth, found {found}.\n"
        "  to do    check --work-dir, or start anew without --resume"
    )


def best_in(folder: Path) -> Path:
    """The best checkpoint of `folder` by validation, or its last one where none was validated."""
    best = max(folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, default=None)
    return best or newest_intact(folder)[0]


def load_state(filename: str, map_location: Any = None) -> dict[str, Any]:
    """The training state in `filename` as mmengine resumes it, with what it would run or delete made harmless.

    mmengine executes the config that a checkpoint carries as text, and deletes the older checkpoints that it names: the
    text is left out, and names are those of files beside `filename`.

    Raises:
        CheckpointError: the file is missing, damaged, or holds a type that could run code.
    """
    path = Path(filename)
    state = read_training_state(path)
    if isinstance(meta := state.get("meta"), Mapping):
        state["meta"] = {key: value for key, value in meta.items() if key not in ("cfg", "config")}
    if isinstance(hub := state.get("message_hub"), Mapping):
        state["message_hub"] = {
            "log_scalars": {name: _history(value) for name, value in dict(hub.get("log_scalars", {})).items()},
            "runtime_info": _own_files(dict(hub.get("runtime_info", {})), path.parent),
            "resumed_keys": dict(hub.get("resumed_keys", {})),
        }
    return state


def iterations_of(path: Path) -> int | None:
    """Iterations that the run which wrote the checkpoint `path` has in all; None where it does not say."""
    found = load_state(str(path)).get("message_hub", {}).get("runtime_info", {}).get("max_iters")
    return found if isinstance(found, int) and found > 0 else None


def _history(stored: Any) -> Any:
    """The log history `stored` as mmengine's own type; other values as they are, which mmengine skips."""
    if not isinstance(stored, LogHistory):
        return stored
    content = vars(stored)
    return HistoryBuffer(content["_log_history"], content["_count_history"], int(content["max_length"]))


def _own_files(info: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`info` with checkpoints named as files of `folder`; names that no checkpoint has are left out."""
    for key in [key for key in info if str(key).startswith(("best_ckpt", "last_ckpt"))]:
        name = Path(str(info.pop(key))).name
        if _CHECKPOINT_NAME.fullmatch(name):
            info[key] = str(folder / name)
    if "keep_ckpt_ids" in info:
        info["keep_ckpt_ids"] = [step for step in info["keep_ckpt_ids"] if type(step) is int]
    return info


def _refuse_remote(filename: str, map_location: Any = None) -> NoReturn:
    """Stand where mmengine would download weights and read them unsafely."""
    raise CheckpointError(
        f"the config asks for weights from {filename}, which could run code.\n"
        "  to do    download the file yourself, and start from it with --load FILE"
    )


for _scheme in list(CheckpointLoader._schemes):
    CheckpointLoader.register_scheme(_scheme, _refuse_remote, force=True)
CheckpointLoader.register_scheme("", load_state, force=True)
