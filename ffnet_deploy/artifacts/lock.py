"""One process at a time: a lock on a file that the system takes back when its process ends, however it ends."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ffnet_deploy.core.files import make_folder, storage_errors

_PAUSE = 0.1


def lock_path(path: Path) -> Path:
    """The lock file of `path`: hidden, beside it, and there only while someone holds the lock."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock of `path` while the block runs; `waiting` is called once when another process has it.

    Raises:
        StorageError: the folder cannot be written.
    """
    make_folder(path.parent)
    handle = _acquire(lock_path(path), waiting)
    try:
        yield
    finally:
        lock_path(path).unlink(missing_ok=True)  # while it is still held: nobody can be in between
        os.close(handle)


def _acquire(path: Path, waiting: Callable[[], None]) -> int:
    told = False
    while True:
        with storage_errors(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if not told:
                waiting()
            told = True
            time.sleep(_PAUSE)
            continue
        if _is_same(handle, path):
            return handle
        os.close(handle)


def _is_same(handle: int, path: Path) -> bool:
    """Whether `path` still names the open file: the one who held the lock before removes it."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
