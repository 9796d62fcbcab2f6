import errno
import json
import os
from pathlib import Path

import pytest

from ffnet_deploy.core.errors import StorageError
from ffnet_deploy.core.files import (
    atomic_path,
    full_disk_errors,
    sha256,
    storage_errors,
    write_bytes,
    write_json,
)
from tests.disks import largest_file, read_only


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_folders_are_made_and_files_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.json"
    write_json(path, {"z": 1})
    write_json(path, {"z": 2, "name": "é"})
    assert path.read_text(encoding="utf-8") == '{\n  "z": 2,\n  "name": "é"\n}\n'
    assert names(path.parent) == ["c.json"]


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_nothing_is_left_when_writing_breaks_off(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


def test_the_file_before_survives_when_writing_breaks_off(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"new")
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with (
        largest_file(1 << 16),
        pytest.raises(StorageError, match=r"no room left to write .*\n.*free some disk space"),
    ):
        write_bytes(tmp_path / "a", bytes(1 << 17))
    assert names(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no room left"), atomic_path(tmp_path / "a"):
        Path("/dev/full").write_bytes(b"x")
    assert names(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for path in (tmp_path / "out" / "a", tmp_path / "out" / "deeper" / "a"):
        with pytest.raises(StorageError, match=r"cannot write[\s\S]*to do"):
            write_bytes(path, b"x")


def test_a_folder_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    with read_only(tmp_path), pytest.raises(StorageError, match=r"cannot write .*[Pp]ermission denied[\s\S]*to do"):
        write_bytes(tmp_path / "a", b"x")


def test_only_a_full_disk_is_told_as_one() -> None:
    with pytest.raises(StorageError, match=r"no room left to write a\b"), full_disk_errors(Path("a")):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(FileNotFoundError), full_disk_errors(Path("a")):
        raise FileNotFoundError(errno.ENOENT, "not there")


@pytest.mark.parametrize(("code", "told"), [(errno.ENOSPC, "no room left"), (errno.EROFS, "Read-only file system")])
def test_errors_of_the_system_say_what_to_do(code: int, told: str) -> None:
    with pytest.raises(StorageError, match=rf"{told}[\s\S]*to do "), storage_errors(Path("a")):
        raise OSError(code, os.strerror(code))


def test_json_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert names(tmp_path) == []
    write_json(tmp_path / "a.json", [1])
    assert json.loads((tmp_path / "a.json").read_text()) == [1]


def test_a_link_keeps_its_place_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    (tmp_path / "latest.json").symlink_to("real.json")
    write_json(tmp_path / "latest.json", [1])
    assert (tmp_path / "latest.json").is_symlink()
    assert (tmp_path / "real.json").read_text() == "[\n  1\n]\n"


def test_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="a device or pipe"):
        write_json(tmp_path / "pipe", [1])
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(StorageError, match="it is a folder"):
        write_json(tmp_path, [1])


def test_json_holds_only_what_every_parser_reads(tmp_path: Path) -> None:
    content = {"share": float("nan"), "times": [1.5, float("inf")], "file": os.fsdecode(b"caf\xe9.png"), "n": 1}
    write_json(tmp_path / "a.json", content)
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert read == {"share": None, "times": [1.5, None], "file": "caf\ufffd.png", "n": 1}
