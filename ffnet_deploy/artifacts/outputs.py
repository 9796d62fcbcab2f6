"""The one rule for what a command writes: never onto an input, never over a file that the toolkit did not write.

A command names its inputs once and claims each output before any work begins::

    outputs = Outputs(artifact, data, images, bench)
    json_file = outputs.claim(json_file, Kind.SCORES)  # None stays None
    html = outputs.claim_report(html)

An existing file may be replaced when it is empty or is recognised as an earlier output of the same kind.
"""

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.manifest import manifest_path
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import check_target, make_folder, sweep

WRITTEN_BY = "Written by ffnet-deploy"
"""What pages, Markdown files and configurations of the toolkit say of themselves."""

_PNG_END_OF_HEADER = 33  # signature (8 bytes) and the chunk IHDR (25 bytes)
_PNG_MARK = b"Software\0ffnet-deploy"
_ONNX_PRODUCER = b"\x12\x0cffnet-deploy"
"""Field producer_name of ModelProto; it follows the two bytes of ir_version."""
_HEAD = 1 << 16


class Kind(Enum):
    """What a command writes; each kind recognises earlier files of its own."""

    ARTIFACT = "a graph or engine of ffnet-export"
    MANIFEST = "the manifest of a graph or engine"
    SCORES = "scores of ffnet-eval"
    BENCH = "a run of ffnet-bench"
    EVALUATION_STATE = "the state of an evaluation"
    REPORT = "values of a report"
    PAGE = "a page of a report"
    MARKDOWN = "a report as Markdown"
    RANGES = "ranges of a calibration"
    SEARCH = "the state of a search"
    TIMING_CACHE = "a timing cache"
    PICTURE = "a picture of ffnet-eval or ffnet-predict"
    VIDEO = "a video of ffnet-predict"
    RASTER = "a raster of ffnet-predict"
    SHARES = "class shares of ffnet-predict"
    LABELS = "a label map of ffnet-eval or ffnet-predict"
    PROBABILITIES = "class probabilities of ffnet-eval or ffnet-predict"
    TRITON = "a model of a Triton repository that ffnet-export wrote"
    DEEPSTREAM = "a DeepStream configuration that ffnet-export wrote"
    LAYERS = "a list of an engine's layers"
    SAMPLE = "a script that ffnet-export wrote"
    WEIGHTS = "weights that were published from a run of ffnet-train"


class Outputs:
    """The files that one command writes, checked against what it reads and against each other.

    Args:
        inputs: files and folders that the command reads; None and paths that do not exist are left out.
    """

    def __init__(self, *inputs: "str | os.PathLike[str] | None"):
        self._inputs = {key: Path(path) for path in inputs if path is not None and (key := _identity(Path(path)))}
        self._claimed: dict[Path, Kind] = {}
        self._swept: set[Path] = set()

    def reads(self, inputs: "Iterable[str | os.PathLike[str] | None]") -> None:
        """Add inputs that are known later, such as the images of a data set."""
        self._inputs.update(Outputs(*inputs)._inputs)

    def claim(self, path: Path | None, kind: Kind) -> Path | None:
        """Check that the command may write the file `path`; its folder is made, and swept of what killed runs left.

        An artefact is claimed with its manifest.

        Args:
            path: of the file; None, for an output that is not asked for, stays None.
            kind: what will be written.

        Returns:
            `path`.

        Raises:
            OptionError: it is an input or another output of the command, or a file that the toolkit did not write.
            StorageError: it cannot be written.
        """
        if path is None:
            return None
        self.refuse_input(path)
        other = self._claimed.setdefault(path.resolve(), kind)
        if other is not kind:
            raise OptionError(
                f"{path} is asked for twice: for {other.value} and for {kind.value}.\n"
                "  to do    give one of the two another name"
            )
        if path.is_file() and not is_own(path, kind):
            raise OptionError(
                f"{path} is there already, and it is not {kind.value}.\n"
                "  to do    name another file, or remove that one first"
            )
        check_target(path)
        self._sweep(path.parent)
        if kind is Kind.ARTIFACT:
            self.claim(manifest_path(path), Kind.MANIFEST)
        return path

    def claim_folder(self, path: Path | None) -> Path | None:
        """Check that the command may write into the folder `path`; its files are claimed one by one.

        Raises:
            OptionError: it is an input of the command.
            StorageError: it cannot be written.
        """
        if path is None:
            return None
        self.refuse_input(path)
        self._sweep(make_folder(path))
        return path

    def claim_replaced(self, path: Path) -> None:
        """Check that the command may replace the folder `path` with all that is in it.

        Raises:
            OptionError: an input of the command lies in it.
        """
        inside = [one for one in self._inputs.values() if one.resolve().is_relative_to(path.resolve())]
        if inside:
            raise OptionError(
                f"{path} is replaced as a whole, and {inside[0]} in it is an input of this command.\n"
                "  to do    name another folder for the output"
            )

    def claim_report(self, page: Path | None) -> Path | None:
        """Claim the page of a report and the Markdown beside it, but not the JSON, which is not always written.

        Raises:
            OptionError, StorageError: see `claim`.
        """
        if page is not None:
            self.claim(page, Kind.PAGE)
            self.claim(page.with_suffix(".md"), Kind.MARKDOWN)
        return page

    def refuse_input(self, path: Path) -> None:
        """Raise `OptionError` where `path` is an input of the command, under whatever name."""
        key = _identity(path)
        if key is not None and key in self._inputs:
            same = self._inputs[key]
            also = "" if same == path else f" (the same file as {same})"
            raise OptionError(
                f"{path}{also} is an input of this command: writing there would destroy it.\n"
                "  to do    name another file or folder for the output"
            )

    def _sweep(self, folder: Path) -> None:
        if folder not in self._swept:
            self._swept.add(folder)
            sweep(folder)


def is_own(path: Path, kind: Kind) -> bool:
    """Whether the file `path` is empty, or an earlier output of the toolkit of this `kind`."""
    try:
        return path.stat().st_size == 0 or _RECOGNISE[kind](path)
    except (OSError, ValueError, TypeError, RecursionError):  # of JSON of any form
        return False


def mark_png(content: bytes) -> bytes:
    """A PNG file with the toolkit's name in a text chunk after its header, so that it is recognised later."""
    chunk = struct.pack(">I", len(_PNG_MARK)) + b"tEXt" + _PNG_MARK
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    return content[:_PNG_END_OF_HEADER] + chunk + content[_PNG_END_OF_HEADER:]


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and number of the file that `path` leads to; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _json(path: Path) -> Mapping[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _HEAD, 0))
        return file.read()


def _is_artifact(path: Path) -> bool:
    if _head(path)[2 : 2 + len(_ONNX_PRODUCER)] == _ONNX_PRODUCER:
        return True
    return _is_manifest(manifest_path(path)) and _json(manifest_path(path)).get("file") == path.name


def _is_manifest(path: Path) -> bool:
    described = _json(path)
    return {"format", "kind", "sha256"} <= described.keys() and "ffnet-deploy" in (described.get("tools") or {})


def _has_keys(*names: str) -> Callable[[Path], bool]:
    return lambda path: set(names) <= _json(path).keys()


def _is_kind(name: str) -> Callable[[Path], bool]:
    return lambda path: _json(path).get("kind") == name


def _says_so(path: Path) -> bool:
    return WRITTEN_BY.encode() in path.read_bytes()


_RECOGNISE: Mapping[Kind, Callable[[Path], bool]] = {
    Kind.ARTIFACT: _is_artifact,
    Kind.MANIFEST: _is_manifest,
    Kind.SCORES: _has_keys("images", "seconds", "notes", "dataset", "protocol"),
    Kind.BENCH: _is_kind("ffnet-bench"),
    Kind.EVALUATION_STATE: lambda path: b'"kind": "ffnet-deploy evaluation state"' in _head(path).split(b"\n")[0],
    Kind.REPORT: _is_kind("ffnet-report"),
    Kind.PAGE: _says_so,
    Kind.MARKDOWN: lambda path: _says_so(path) or _says_so(path.with_suffix(".html")),
    Kind.RANGES: _has_keys("format", "key", "tensors", "equalisation"),
    Kind.SEARCH: _has_keys("format", "key", "scores", "sensitivity"),
    Kind.TIMING_CACHE: lambda path: b'"kind": "ffnet-deploy timing cache"' in _head(path).split(b"\n")[0],
    Kind.PICTURE: lambda path: _PNG_MARK in _head(path)[:256],
    Kind.DEEPSTREAM: _says_so,
    Kind.LAYERS: _has_keys("Layers"),
    Kind.VIDEO: lambda path: WRITTEN_BY.encode() in _tail(path),
    Kind.RASTER: lambda path: WRITTEN_BY.encode() in _head(path) + _tail(path),
    Kind.SHARES: lambda path: _head(path).startswith(b"image,no class,"),
    Kind.LABELS: lambda path: _PNG_MARK in _head(path)[:256],
    Kind.PROBABILITIES: lambda path: _tail(path).endswith(WRITTEN_BY.encode()),
    Kind.TRITON: lambda path: _says_so(path) or b'parameters { key: "contract"' in path.read_bytes(),
    Kind.SAMPLE: _says_so,
    Kind.WEIGHTS: lambda path: b'"source_sha256"' in _head(path),
}
