"""Never onto an input, never over a file that the toolkit did not write."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.artifacts import Kind, Outputs, write_manifest
from ffnet_deploy.artifacts.outputs import WRITTEN_BY, is_own, mark_png
from ffnet_deploy.core.errors import OptionError, StorageError

FOREIGN = (b"\x89PNG\r\n\x1a\n", b"{", b"[]", b'{"kind": "other"}', b"notes", b"\xff\xfe", b"\0", b"null", b'"text"')


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_the_user_is_never_replaced(kind: Kind, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=r"is there already, and it is not[\s\S]*name another file"):
        Outputs().claim(path, kind)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", Kind)
def test_new_and_empty_files_may_be_written_and_their_folders_are_made(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    outputs = Outputs()
    assert outputs.claim(tmp_path / "empty", kind) == tmp_path / "empty"
    assert outputs.claim(tmp_path / "a" / "b" / "new", kind) == tmp_path / "a" / "b" / "new"
    assert (tmp_path / "a" / "b").is_dir() and not (tmp_path / "a" / "b" / "new").exists()
    assert outputs.claim(None, kind) is None


def link(path: Path, other: Path) -> None:
    os.link(path, other)


def symbolic(path: Path, other: Path) -> None:
    other.symlink_to(path)


@pytest.mark.parametrize("alias", [link, symbolic])
def test_an_input_is_recognised_under_any_name(alias: Callable[[Path, Path], None], tmp_path: Path) -> None:
    bench, other = tmp_path / "bench.json", tmp_path / "other.json"
    bench.write_text('{"kind": "ffnet-bench"}')
    alias(bench, other)
    assert Outputs(None, tmp_path / "nowhere").claim(bench, Kind.BENCH) == bench  # its own earlier output
    for path in (bench, other, tmp_path / ".." / tmp_path.name / "bench.json"):
        with pytest.raises(OptionError, match="is an input of this command"):
            Outputs(bench).claim(path, Kind.BENCH)
    late = Outputs()
    late.reads([other])
    with pytest.raises(OptionError, match="is an input of this command"):
        late.claim(bench, Kind.BENCH)
    with pytest.raises(OptionError, match="is an input of this command"):
        Outputs(tmp_path).claim_folder(tmp_path)


def test_two_outputs_of_different_kind_need_two_names(tmp_path: Path) -> None:
    outputs = Outputs()
    outputs.claim(tmp_path / "a.json", Kind.BENCH)
    outputs.claim(tmp_path / "a.json", Kind.BENCH)
    with pytest.raises(OptionError, match="is asked for twice"):
        outputs.claim(tmp_path / "." / "a.json", Kind.REPORT)


def test_folders_and_pipes_are_no_files_to_write(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, found in ((tmp_path, "a folder"), (tmp_path / "pipe", "a device or pipe")):
        with pytest.raises(StorageError, match=found):
            Outputs().claim(path, Kind.SCORES)


def test_an_artefact_is_known_by_its_manifest_or_its_producer(tmp_path: Path) -> None:
    engine = tmp_path / "a.engine"
    engine.write_bytes(b"plan")
    assert not is_own(engine, Kind.ARTIFACT)
    write_manifest(engine, "engine", {})
    assert is_own(engine, Kind.ARTIFACT) and not is_own(engine, Kind.SCORES)
    moved = tmp_path / "b.engine"
    moved.write_bytes(b"plan")
    (tmp_path / "b.engine.json").write_bytes((tmp_path / "a.engine.json").read_bytes())  # names another file
    assert not is_own(moved, Kind.ARTIFACT)
    for producer, own in ((b"ffnet-deploy", True), (b"ffnet-depot!", False)):
        graph = tmp_path / "a.onnx"
        graph.write_bytes(b"\x08\x09\x12\x0c" + producer + b"\x3a\x00")
        assert is_own(graph, Kind.ARTIFACT) is own


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (Kind.BENCH, {"kind": "ffnet-bench", "format": 1}),
        (Kind.REPORT, {"kind": "ffnet-report"}),
        (Kind.SCORES, {"mIoU": 1, "images": 2, "seconds": 3, "notes": [], "dataset": {}, "protocol": {}}),
        (Kind.RANGES, {"format": 2, "key": {}, "images": 1, "tensors": {}, "equalisation": {}}),
        (Kind.SEARCH, {"format": 1, "key": "", "scores": {}, "sensitivity": []}),
    ],
)
def test_json_is_known_by_its_keys_and_to_its_kind_alone(kind: Kind, content: object, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    texts = {Kind.BENCH, Kind.REPORT, Kind.SCORES, Kind.RANGES, Kind.SEARCH, Kind.TIMING_CACHE, Kind.PAGE}
    assert [one for one in texts if is_own(path, one)] == [kind]


def test_pages_and_pictures_carry_a_mark(tmp_path: Path) -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    plain = cv2.imencode(".png", picture)[1].tobytes()
    path = tmp_path / "a.png"
    path.write_bytes(plain)
    assert not is_own(path, Kind.PICTURE)
    path.write_bytes(mark_png(plain))
    assert is_own(path, Kind.PICTURE)
    assert np.array_equal(cv2.imread(str(path)), picture)
    (tmp_path / "a.html").write_text(f"<p>{WRITTEN_BY}, today.</p>")
    (tmp_path / "a.md").write_text("# beside an older page")
    assert is_own(tmp_path / "a.html", Kind.PAGE) and is_own(tmp_path / "a.md", Kind.MARKDOWN)
    outputs = Outputs()
    outputs.claim_report(tmp_path / "a.html")
    with pytest.raises(OptionError, match="asked for twice"):
        outputs.claim(tmp_path / "a.md", Kind.SCORES)


def test_what_killed_runs_left_beside_an_output_is_swept(tmp_path: Path) -> None:
    left = tmp_path / ".scores.json.01234567.staging"
    left.mkdir()
    (left / "half").touch()
    (tmp_path / f".{left.name}.ffnet.lock").touch()
    Outputs().claim(tmp_path / "other.json", Kind.SCORES)
    assert list(tmp_path.iterdir()) == []
