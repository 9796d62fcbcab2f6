"""What TensorRT would do again: kernel times of builds, and kernels that TensorRT for RTX compiles where it runs.

The file is a line of JSON (what it is, for which TensorRT and GPU, SHA-256 of the rest) and then TensorRT's own bytes.
It is only a saving of time: one that is damaged or of another GPU or version is not used and replaced.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ffnet_deploy.core.files import locked, write_bytes

_KIND = "ffnet-deploy timing cache"


def read_timing_cache(path: Path, version: str, gpu: str) -> bytes:
    """TensorRT's bytes in the cache `path`; empty where there are none for this `version` and `gpu`."""
    try:
        head, _, content = path.read_bytes().partition(b"\n")
        fields = json.loads(head)
        expected = _head(content, version, gpu)
    except (OSError, ValueError, RecursionError):  # damaged, in any form
        return b""
    return content if fields == expected else b""


def _head(content: bytes, version: str, gpu: str) -> dict[str, str]:
    return {"kind": _KIND, "tensorrt": version, "gpu": gpu, "sha256": hashlib.sha256(content).hexdigest()}


def write_timing_cache(path: Path, content: bytes, version: str, gpu: str) -> None:
    """Put TensorRT's bytes into the cache `path`, atomically.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    write_bytes(path, json.dumps(_head(content, version, gpu)).encode() + b"\n" + content)


def use_runtime_cache(config: Any, path: Path, version: str, gpu: str) -> Any:
    """Give a runtime configuration of TensorRT for RTX the kernels in `path`; the cache that grows with new ones."""
    cache = config.create_runtime_cache()
    content = read_timing_cache(path, version, gpu)
    if content and not cache.deserialize(content):
        cache.reset()  # TensorRT does not want these bytes
    config.set_runtime_cache(cache)
    return cache


def keep_runtime_cache(cache: Any, path: Path, version: str, gpu: str) -> None:
    """Write the kernels that were compiled to `path`; of processes that end together the last one's are kept.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    content = bytes(cache.serialize())
    with locked(path):
        if content and content != read_timing_cache(path, version, gpu):
            write_timing_cache(path, content, version, gpu)


def use_timing_cache(config: Any, path: Path, version: str, gpu: str) -> None:
    """Let a build begin with the times in `path`."""
    for content in (read_timing_cache(path, version, gpu), b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return  # otherwise TensorRT does not want these bytes


def keep_timing_cache(config: Any, path: Path, version: str, gpu: str) -> None:
    """Add what a build has measured to `path`; what another build has added meanwhile is kept.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    cache = config.get_timing_cache()
    if cache is None:  # none was accepted, or this build needed none
        return
    with locked(path):
        meanwhile = read_timing_cache(path, version, gpu)
        other = config.create_timing_cache(meanwhile) if meanwhile else None
        if other is not None:
            cache.combine(other, False)
        write_timing_cache(path, bytes(cache.serialize()), version, gpu)
