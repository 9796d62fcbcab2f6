"""Naming what a pickle would fetch from Python's modules, without running it."""

import pickletools
import zipfile
from pathlib import Path


def fetched_names(path: Path) -> list[str]:
    """Dotted names that the pickles in a checkpoint fetch, in order, as far as the file can be read.

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
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    try:
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
