"""The timing cache's file; what TensorRT does with its bytes needs a GPU."""

import threading
from pathlib import Path

import pytest

from ffnet_deploy.core.errors import StorageError
from ffnet_deploy.engines.tensorrt.timing_cache import (
    keep_timing_cache,
    read_timing_cache,
    use_timing_cache,
    write_timing_cache,
)
from tests.core.test_files import largest_file

HERE = ("8.5.3.1", "NVIDIA H200")


class Times:
    """A timing cache that holds names: a stand-in for TensorRT's, which merges as it does."""

    def __init__(self, content: bytes) -> None:
        self.names = set(content.decode().split())

    def combine(self, other: "Times", ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.names |= other.names
        return True

    def serialize(self) -> bytes:
        return " ".join(sorted(self.names)).encode()


class Config:
    def __init__(self, *measured: str) -> None:
        self.measured = measured
        self.cache: Times | None = None

    def create_timing_cache(self, content: bytes) -> Times | None:
        return None if content == b"refused" else Times(content)

    def set_timing_cache(self, cache: Times, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.cache = cache
        return True

    def get_timing_cache(self) -> Times | None:
        assert self.cache is not None
        self.cache.names |= set(self.measured)
        return self.cache


def test_times_pass_from_build_to_build(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "timing.cache"
    first, second = Config("conv1"), Config("conv2")
    for config in (first, second):
        use_timing_cache(config, path, *HERE)
        keep_timing_cache(config, path, *HERE)
    assert read_timing_cache(path, *HERE) == b"conv1 conv2"
    assert [file.name for file in path.parent.iterdir()] == ["timing.cache"]


def test_builds_side_by_side_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    configs = [Config(f"conv{index}") for index in range(8)]
    for config in configs:
        use_timing_cache(config, path, *HERE)
    threads = [threading.Thread(target=keep_timing_cache, args=(config, path, *HERE)) for config in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert read_timing_cache(path, *HERE) == b" ".join(b"conv%d" % index for index in range(8))


def test_times_of_another_gpu_or_version_or_damaged_ones_are_not_used(tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    write_timing_cache(path, b"conv1", *HERE)
    assert read_timing_cache(path, "8.6.1", HERE[1]) == read_timing_cache(path, HERE[0], "NVIDIA L4") == b""
    whole = path.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        assert read_timing_cache(path, *HERE) == b"", at
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert read_timing_cache(path, *HERE) == b"", cut
    path.unlink()
    assert read_timing_cache(path, *HERE) == b""


def test_bytes_that_tensorrt_refuses_begin_anew(tmp_path: Path) -> None:
    path, config = tmp_path / "timing.cache", Config("conv1")
    write_timing_cache(path, b"refused", *HERE)
    use_timing_cache(config, path, *HERE)
    keep_timing_cache(config, path, *HERE)
    assert read_timing_cache(path, *HERE) == b"conv1"


def test_a_full_disk_keeps_the_times_before(tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    write_timing_cache(path, b"conv1", *HERE)
    with largest_file(256), pytest.raises(StorageError, match="no room left"):
        write_timing_cache(path, b"x" * 1000, *HERE)
    assert read_timing_cache(path, *HERE) == b"conv1"


class Refusing(Config):
    """Takes no cache but an empty one, as TensorRT does with times of other tactics, or none at all."""

    def __init__(self, takes_empty: bool) -> None:
        super().__init__("conv")
        self.takes_empty = takes_empty

    def set_timing_cache(self, cache: Times, ignore_mismatch: bool) -> bool:
        return self.takes_empty and not cache.names and super().set_timing_cache(cache, ignore_mismatch)

    def get_timing_cache(self) -> Times | None:
        return None if self.cache is None else super().get_timing_cache()


def test_a_cache_that_is_not_taken_is_replaced_and_a_build_without_one_keeps_the_old(tmp_path: Path) -> None:
    path = tmp_path / "timing.cache"
    for takes_empty, kept in ((False, b"old"), (True, b"conv old")):
        write_timing_cache(path, b"old", *HERE)
        config = Refusing(takes_empty)
        use_timing_cache(config, path, *HERE)
        keep_timing_cache(config, path, *HERE)  # the build is done: it must not fail here
        assert read_timing_cache(path, *HERE) == kept
