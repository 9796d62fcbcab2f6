"""Checkpoints that are whole or not there: atomic writing, and finding the newest intact one."""

import re
import zipfile
from pathlib import Path
from typing import ClassVar

from mmengine.fileio import LocalBackend, register_backend

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.core.files import write_bytes

BACKEND = "atomic"
"""Name of `AtomicBackend` among mmengine's file backends."""


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
