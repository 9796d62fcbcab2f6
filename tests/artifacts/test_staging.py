"""One way of an artefact to its place: published with its manifest, kept as evidence, or not there at all."""

import json
import signal
from pathlib import Path

import pytest

from ffnet_deploy import artifacts
from ffnet_deploy.artifacts import Gate, read_manifest
from ffnet_deploy.artifacts.staging import EVIDENCE
from ffnet_deploy.core import stopping
from ffnet_deploy.core.errors import StorageError, VerificationError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(target: Path, content: bytes = b"graph", gate: Gate | None = None, files: tuple[str, ...] = ()) -> Path:
    with artifacts.staged(target) as draft:
        assert draft.path.name == target.name and draft.folder.parent == target.parent
        draft.path.write_bytes(content)
        for name in files:
            (draft.folder / name).write_bytes(content * 2)
        (draft.folder / "scratch").write_bytes(b"not published")
        return artifacts.publish(draft, "onnx", {"verification": {"passed": True}}, gate, files)


def test_a_published_artefact_lies_beside_its_manifest_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.onnx"
    manifest = make(target, files=("a.onnx.data",))
    assert names(target.parent) == ["a.onnx", "a.onnx.data", "a.onnx.json"]
    assert manifest.name == "a.onnx.json" and read_manifest(target)["verification"] == {"passed": True}
    make(target, b"smaller")  # needs no external weights any more
    assert names(target.parent) == ["a.onnx", "a.onnx.json"] and read_manifest(target)["files"] == {}


def test_a_rejected_artefact_is_kept_with_what_was_measured(tmp_path: Path) -> None:
    make(tmp_path / "a.onnx")
    with pytest.raises(VerificationError, match=r"differs:\n  found    too much\n  kept     .*\n  to do    look"):
        make(tmp_path / "a.onnx", b"wrong", Gate(["too much"], "differs", "look"))
    assert names(tmp_path) == ["a.onnx", "a.onnx.json", "a.rejected"]
    assert (tmp_path / "a.onnx").read_bytes() == b"graph"
    assert names(tmp_path / "a.rejected") == ["a.onnx", EVIDENCE]
    assert json.loads((tmp_path / "a.rejected" / EVIDENCE).read_text()) == {"verification": {"passed": True}}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_making_breaks_off(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), artifacts.staged(tmp_path / "a.onnx") as draft:
        draft.path.write_bytes(b"half")
        raise error
    assert names(tmp_path) == []


def test_nothing_is_published_after_a_stop_was_asked_for(tmp_path: Path) -> None:
    with stopping.listening():
        stopping.ask(signal.SIGTERM)  # its exception was swallowed somewhere
        with pytest.raises(stopping.Terminated):
            make(tmp_path / "a.onnx")
    assert names(tmp_path) == []


def test_a_signal_between_the_renames_is_heeded_after_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        signal.raise_signal(signal.SIGINT)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with stopping.listening(), pytest.raises(KeyboardInterrupt), artifacts.staged(tmp_path / "a.onnx") as draft:
        draft.path.write_bytes(b"graph")
        monkeypatch.setattr("ffnet_deploy.artifacts.staging.write_manifest", sealed)
        artifacts.publish(draft, "onnx", {})
    monkeypatch.undo()
    assert names(tmp_path) == ["a.onnx", "a.onnx.json"] and read_manifest(tmp_path / "a.onnx")


def sealed(artifact: Path, kind: str, content: object, files: tuple[str, ...]) -> Path:
    """As `write_manifest`, without a rename."""
    path = artifacts.manifest_path(artifact)
    from ffnet_deploy.artifacts.manifest import describe, seal
    from ffnet_deploy.core.files import json_bytes

    path.write_bytes(json_bytes(seal(describe(artifact, kind, files))))
    return path


def test_a_target_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(StorageError, match="it is a folder"):
        make(tmp_path / "a.onnx")
