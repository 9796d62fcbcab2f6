"""The JSON file beside every artefact: what it is, what it came from, and what was measured of it."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.decoding import ADDED, decode_file
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.files import is_plain_file, json_bytes, sha256, write_bytes
from ffnet_deploy.core.version import __version__

FORMAT = 2
"""Version of the manifests that are written; those of format 1 are read with today's names."""
_RENAMED = {"proof": "precision_check", "rests on": "basis", "flavour": "variant"}
"""Entries of format 1, and their names today."""
_TOOLS = ("torch", "onnx", "onnxruntime", "onnxslim", "numpy", "opencv-python", "onedl-mmsegmentation")


@dataclass(frozen=True)
class ManifestHeader:
    """What every manifest says of its artefact, and the sections that are read back.

    Attributes:
        format: Version of the manifest.
        kind: Kind of the artefact: ``"onnx"`` or ``"engine"``.
        sha256: SHA-256 of the artefact.
        bytes: Size of the artefact.
        files: SHA-256 of each further file in the same folder that belongs to it.
        created: UTC, ISO 8601.
        tools: Versions of the packages that shaped it.
        contract: What it takes and gives.
        precision: How its precision came about, or what an engine was asked to compute in.
        verification: What was compared, and how it came out.
        precision_check: What is known of an engine's layers.
    """

    format: int
    kind: str
    sha256: str
    bytes: int
    files: dict[str, str] = field(default_factory=dict, metadata=ADDED)
    created: str | None = field(default=None, metadata=ADDED)
    tools: dict[str, str] | None = field(default=None, metadata=ADDED)
    contract: Contract | None = field(default=None, metadata=ADDED)
    precision: dict[str, Any] | None = field(default=None, metadata=ADDED)
    verification: dict[str, Any] | None = field(default=None, metadata=ADDED)
    precision_check: dict[str, Any] | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        for name in self.files:
            if name != PurePath(name).name or name in ("", ".", ".."):
                raise OptionError(f"{name!r} is no file in the artefact's folder")


def manifest_path(artifact: Path) -> Path:
    """Where the manifest of `artifact` lies: the same name with ``.json`` appended."""
    return artifact.with_name(f"{artifact.name}.json")


def tool_versions() -> dict[str, str]:
    """Versions of this toolkit and of the installed packages that shape an artefact."""
    versions = {"ffnet-deploy": __version__}
    for name in _TOOLS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe(artifact: Path, kind: str, files: tuple[str, ...] = ()) -> dict[str, Any]:
    """What every manifest begins with: the artefact's kind, its bytes, and the tools at hand.

    Args:
        artifact: the file, complete.
        kind: ``"onnx"``, ``"engine"``, ...
        files: names of further files in the same folder that belong to the artefact (external weights).
    """
    return {
        "format": FORMAT,
        "kind": kind,
        "file": artifact.name,
        "bytes": artifact.stat().st_size,
        "sha256": sha256(artifact),
        "files": {name: sha256(artifact.with_name(name)) for name in files},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tools": tool_versions(),
    }


def write_manifest(artifact: Path, kind: str, content: Mapping[str, Any], files: tuple[str, ...] = ()) -> Path:
    """Write the manifest of `artifact`: its description (see `describe`), and `content` (contract, verification, ...).

    Its last entry is the digest of all the others, so that a changed manifest is noticed, and one without it refused.

    Returns:
        The manifest's path.
    """
    path = manifest_path(artifact)
    write_bytes(path, json_bytes(seal({**describe(artifact, kind, files), **content})))
    return path


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with the SHA-256 of itself as its last entry, ``"digest"``."""
    plain = {key: value for key, value in content.items() if key != "digest"}
    return {**plain, "digest": hashlib.sha256(json_bytes(plain)).hexdigest()}


def read_manifest(artifact: Path) -> dict[str, Any]:
    """The manifest of `artifact`, as `upgraded` gives it, after checking that it belongs to these very bytes.

    Raises:
        ArtifactError: there is none, it is damaged or of a newer format, or a file has changed since it was written.
    """
    path = manifest_path(artifact)
    remedy = "export it again with ffnet-export"
    try:
        content = decode_file(path, dict[str, Any], f"manifest {path}", remedy)
        check_format(path, content)
        header = decode_file(path, ManifestHeader, f"manifest {path}", remedy)
    except FileNotFoundError as error:
        raise ArtifactError(f"{artifact} has no manifest: {path.name} is missing.\n  to do    {remedy}") from error
    sealed = "digest" in content or content["format"] != 1  # of that format only the manifests of engines were
    if sealed and content.get("digest") != seal(content)["digest"]:
        raise ArtifactError(f"manifest {path} has changed since it was written.\n  to do    {remedy}")
    for name in header.files:
        check_further_file(artifact.with_name(name))
    for name, expected in {**header.files, artifact.name: header.sha256}.items():
        file = artifact.with_name(name)
        if not file.is_file():
            raise ArtifactError(f"{file} is missing although its manifest names it.\n  to do    {remedy}")
        if sha256(file) != expected:
            raise ArtifactError(f"{file} has changed since its manifest was written.\n  to do    {remedy}")
    return upgraded(content)


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """The `content` of a manifest under the names of `FORMAT`, whatever format it was written in."""
    if content["format"] != 1:
        return dict(content)

    def renamed(section: Any) -> Any:
        if not isinstance(section, Mapping):
            return section
        return {_RENAMED.get(name, name): renamed(value) for name, value in section.items()}

    sections = {name: renamed(content[name]) for name in ("proof", "build") if name in content}
    return {_RENAMED.get(name, name): value for name, value in {**content, **sections, "format": FORMAT}.items()}


def check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Raise `ArtifactError` where the manifest `path` with this content is of a newer format than this version's."""
    version = content.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ArtifactError(
            f"manifest {path} has format {version}; this version reads up to {FORMAT}.\n"
            "  to do    update ffnet-deploy, or make the artefact again with this version"
        )


def check_further_file(path: Path) -> None:
    """Raise `ArtifactError` where `path`, a further file of an artefact, is a link, folder, pipe or device.

    Opening a pipe waits for a writer that may never come, and a link leads out of the artefact's folder; ONNX Runtime
    refuses both. A file that is missing is left to whoever needs it.
    """
    if os.path.lexists(path) and not is_plain_file(path):
        what = "a link" if path.is_symlink() else "a folder" if path.is_dir() else "a pipe or device"
        raise ArtifactError(
            f"{path} is {what}: the further files of an artefact are plain files beside it.\n"
            "  to do    put the file itself there, or export the artefact again with ffnet-export"
        )
