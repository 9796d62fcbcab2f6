"""Disks as users have them: full, and not to be written."""

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_CAPABILITIES_VERSION_3 = 0x20080522
_OVERRIDE_PERMISSIONS = 1 << 1
"""CAP_DAC_OVERRIDE, by which root writes everywhere."""


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The operating system refuses to let files grow beyond `size` bytes, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written into `folder`, by root neither."""
    folder.mkdir(exist_ok=True)
    mode = folder.stat().st_mode
    folder.chmod(0o555)
    try:
        if os.geteuid():
            yield
        elif sys.platform == "linux":
            with _without(_OVERRIDE_PERMISSIONS):
                yield
        else:
            pytest.skip("root writes everywhere")
    finally:
        folder.chmod(mode)


@contextmanager
def _without(capability: int) -> Iterator[None]:
    """This thread lacks `capability`; see capset(2)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION_3, 0)
    before, sets = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    system = ctypes.CDLL(None, use_errno=True)
    if system.capget(header, before) or system.capget(header, sets):
        pytest.skip("the system does not tell capabilities")
    sets[0] &= ~capability  # the effective ones; they can be taken up again
    if system.capset(header, sets):
        pytest.skip("the system does not let go of capabilities")
    try:
        yield
    finally:
        system.capset(header, before)
