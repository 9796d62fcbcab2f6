"""Writing that leaves nothing half-written or lying about, and the hashes that identify files.

Everything is made in a hidden staging folder beside its target, held by a lock that ends with its process. A killed
process leaves its folder behind, unlocked: that is how `sweep` tells it from one that is still in use.
"""

import errno
import hashlib
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ffnet_deploy.core import stopping
from ffnet_deploy.core.errors import StorageError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_LOCK = ".ffnet.lock"
_STAGING = ".staging"
_PAUSE = 0.1


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def full_disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about a full disk into a `StorageError` that names `path`; others pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        remedy = "free some disk space, or write elsewhere"
        raise StorageError(f"no room left to write {path}.\n  to do    {remedy}") from error


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's errors about `path` into a `StorageError` that says what to do."""
    try:
        with full_disk_errors(path):
            yield
    except StorageError:
        raise
    except OSError as error:
        remedy = "check the folder and its permissions, or write elsewhere"
        raise StorageError(f"cannot write {path}: {error.strerror or error}.\n  to do    {remedy}") from error


def make_folder(path: Path) -> Path:
    """Create the folder `path` with its parents, and check that it can be written."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(errno.EACCES, "permission denied", str(path))
    return path


def check_target(path: Path) -> None:
    """Raise `StorageError` unless a file could be written at `path`; its folder is made where it is missing."""
    make_folder(path.parent)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or pipe"
        raise StorageError(f"cannot write {path}: it is {what}.\n  to do    name a file")


def is_plain_file(path: Path) -> bool:
    """Whether `path` itself is a regular file: no link, folder, pipe or device. A file that is missing is none."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def lock_path(path: Path) -> Path:
    """The lock file of `path`: hidden, beside it, and there only while someone holds the lock."""
    return path.with_name(f".{path.name}{_LOCK}")


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of `path` while the block runs; `waiting` is called once when another process has it.

    The system takes the lock back when its process ends, however it ends.

    Raises:
        StorageError: the folder cannot be written.
    """
    make_folder(path.parent)
    lock = FileLock(lock_path(path))
    try:
        with storage_errors(lock_path(path)):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                waiting()
                while not lock.is_locked:
                    stopping.check()
                    with suppress(Timeout):
                        lock.acquire(timeout=_PAUSE, poll_interval=_PAUSE / 4)
        yield
    finally:
        if lock.is_locked:
            _remove(lock, path)


def _remove(lock: FileLock, path: Path) -> None:
    """Give `lock` back and remove its file, unless a staging folder that could not be removed still needs it."""
    with stopping.deferred():
        if not (path.name.endswith(_STAGING) and path.exists()):
            with suppress(OSError):  # while it is held, so that nobody is in between
                lock_path(path).unlink()
        lock.release()


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """An empty hidden folder beside `path`, on the same disk; removed at the end, whatever happens.

    Raises:
        StorageError: the folder of `path` cannot be written.
    """
    folder = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}{_STAGING}")
    with locked(folder):
        try:
            with storage_errors(path):
                folder.mkdir()
            yield folder
        finally:
            with stopping.deferred():
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A staging folder in the system's folder of temporary files, where what killed processes left is swept first.

    Raises:
        StorageError: that folder cannot be written, or the disk is full.
    """
    place = Path(tempfile.gettempdir()) / "ffnet-deploy"
    sweep(place.parent)
    with staging_folder(place) as folder, full_disk_errors(place):
        yield folder


def sweep(folder: Path) -> None:
    """Remove the locks and staging folders that killed processes left in `folder`; those in use stay."""
    for mark in folder.glob(f".*{_LOCK}"):
        target = folder / mark.name[1 : -len(_LOCK)]
        lock = FileLock(mark)
        with suppress(OSError, Timeout):  # in use, or another user's
            lock.acquire(blocking=False)
            if target.name.endswith(_STAGING):
                shutil.rmtree(target, ignore_errors=True)
            _remove(lock, target)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path of the same name to write to, renamed to `path` at the end; removed when anything fails.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    path = path.resolve()  # a link keeps pointing where it did
    check_target(path)
    with staging_folder(path) as folder, storage_errors(path):
        temporary = folder / path.name
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` to `path` as indented JSON, atomically, keys in the order given."""
    write_bytes(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """`content` as indented JSON in UTF-8 that any parser reads, keys in the order given.

    Numbers that are not finite become null, which JSON has no words for; undecodable bytes of file names become U+FFFD.
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "surrogateescape").decode("utf-8", "replace").encode()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
