import json
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.artifacts.manifest import FORMAT, manifest_path, read_manifest, write_manifest
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import sha256
from ffnet_deploy.core.version import __version__


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """An artefact with external weights and its manifest."""
    path = tmp_path / "network.onnx"
    path.write_bytes(b"graph" * 100)
    (tmp_path / "network.onnx.data").write_bytes(b"weights" * 100)
    write_manifest(path, "onnx", {"verification": {"error": 1e-6}}, files=("network.onnx.data",))
    return path


def change(path: Path, **changes: Any) -> None:
    content = json.loads(manifest_path(path).read_text())
    manifest_path(path).write_text(json.dumps({**content, **changes}))


def test_what_is_written_is_read(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    assert manifest_path(artifact).name == "network.onnx.json"
    assert (manifest["format"], manifest["kind"], manifest["file"], manifest["bytes"]) == (
        FORMAT,
        "onnx",
        "network.onnx",
        500,
    )
    assert manifest["sha256"] == sha256(artifact) and manifest["verification"] == {"error": 1e-6}
    assert manifest["tools"]["ffnet-deploy"] == __version__ and "numpy" in manifest["tools"]


@pytest.mark.parametrize("name", ["network.onnx", "network.onnx.data"])
@pytest.mark.parametrize("place", [0, 250, -1])
def test_one_changed_byte_is_noticed(artifact: Path, name: str, place: int) -> None:
    file = artifact.with_name(name)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"{name} has changed since its manifest was written[\s\S]*to do"):
        read_manifest(artifact)


def test_a_manifest_speaks_for_the_file_beside_it_alone(artifact: Path) -> None:
    other = artifact.with_name("other.onnx")
    other.write_bytes(b"something else")
    manifest_path(other).write_bytes(manifest_path(artifact).read_bytes())
    with pytest.raises(ArtifactError, match=r"other\.onnx has changed"):
        read_manifest(other)


def test_a_renamed_artefact_keeps_its_manifest(artifact: Path) -> None:
    renamed = artifact.rename(artifact.with_name("street.onnx"))
    manifest_path(artifact).rename(manifest_path(renamed))
    assert read_manifest(renamed)["sha256"] == sha256(renamed)


@pytest.mark.parametrize("name", ["network.onnx", "network.onnx.data"])
def test_a_missing_file_is_named(artifact: Path, name: str) -> None:
    artifact.with_name(name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} is missing although its manifest names it"):
        read_manifest(artifact)


def test_a_missing_manifest_is_named(artifact: Path) -> None:
    manifest_path(artifact).unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest: network\.onnx\.json is missing[\s\S]*ffnet-export"):
        read_manifest(artifact)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": 1}', "\x00\x01", '"text"'])
def test_damaged_json_is_one_clear_error(artifact: Path, text: str) -> None:
    manifest_path(artifact).write_text(text)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_manifest(artifact)


def test_bytes_that_are_no_text_are_one_clear_error(artifact: Path) -> None:
    manifest_path(artifact).write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ArtifactError, match="is damaged"):
        read_manifest(artifact)


@pytest.mark.parametrize("files", [["a"], {"../../outside": "0"}, {"": "0"}, 3])
def test_files_outside_the_folder_are_no_manifest_of_ours(artifact: Path, files: Any) -> None:
    change(artifact, files=files)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_manifest(artifact)


def test_a_manifest_without_its_digest_is_refused(artifact: Path) -> None:
    content = json.loads(manifest_path(artifact).read_text())
    del content["digest"]
    manifest_path(artifact).write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=r"has changed since it was written[\s\S]*to do"):
        read_manifest(artifact)


def test_manifests_of_format_1_are_read_under_the_names_of_today(artifact: Path) -> None:
    content = json.loads(manifest_path(artifact).read_text())
    del content["digest"]
    old = {**content, "format": 1, "proof": {"rests on": "types"}, "build": {"flavour": "trt"}}
    manifest_path(artifact).write_text(json.dumps(old))
    new = {**content, "precision_check": {"basis": "types"}, "build": {"variant": "trt"}}
    assert read_manifest(artifact) == new


def test_a_newer_format_is_refused(artifact: Path) -> None:
    change(artifact, format=FORMAT + 1)
    with pytest.raises(ArtifactError, match=f"has format {FORMAT + 1}; this version reads up to {FORMAT}"):
        read_manifest(artifact)
