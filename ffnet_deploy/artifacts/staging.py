"""The one way of an artefact to its place: locked, staged beside it, sealed with its manifest, published or rejected.

Every maker is written as one function around it::

    with artifacts.staged(out) as draft:
        write_graph(trace(...), draft.path)
        report = verify(reference, open_engine(draft.path), images)
        artifacts.publish(draft, "onnx", content, Gate(report.failures, claim, remedy))
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.manifest import manifest_path, write_manifest
from ffnet_deploy.core import stopping
from ffnet_deploy.core.errors import VerificationError
from ffnet_deploy.core.files import check_target, locked, make_folder, staging_folder, storage_errors, sweep, write_json

EVIDENCE = "verification.json"
"""Name of the file in ``<name>.rejected`` that says what was measured."""

_SHOWN = 6
"""Failures that the error names; the evidence has all."""


@dataclass(frozen=True)
class Draft:
    """An artefact in the making.

    Attributes:
        path: Where it is written: in a staging folder beside its target, under the target's name.
        target: Where it will be published.
    """

    path: Path
    target: Path

    @property
    def folder(self) -> Path:
        """The staging folder, for further files; what is not published is removed with it."""
        return self.path.parent


@dataclass(frozen=True)
class Gate:
    """Whether a draft may be published.

    Attributes:
        failures: What is out of tolerance, in words; nothing where everything holds.
        claim: First line of the error where something does not.
        remedy: What the user can do then.
    """

    failures: Sequence[str] = ()
    claim: str = ""
    remedy: str = ""


@contextmanager
def staged(target: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[Draft]:
    """Hold the lock of `target` and stage it: what the block does not publish is removed when it ends, however it ends.

    Args:
        target: the artefact's file; its folder is made, and swept of what killed runs left.
        waiting: called once when another process is making the same file.

    Raises:
        StorageError: the folder cannot be written.
    """
    check_target(target)
    sweep(target.parent)
    with locked(target, waiting), staging_folder(target) as folder:
        yield Draft(folder / target.name, target)


def publish(
    draft: Draft, kind: str, content: Mapping[str, Any], gate: Gate | None = None, files: Sequence[str] = ()
) -> Path:
    """Seal a draft with its manifest and rename both into place, or keep everything as evidence and raise.

    The manifest goes first and the artefact last: broken off in between, the two do not fit and every reader refuses
    them. A signal is heeded before or after, not in between.

    Args:
        draft: complete on disk.
        kind: ``"onnx"`` or ``"engine"``.
        content: of the manifest (see `write_manifest`): contract, verification, ...
        gate: whether it holds what it promises; None: nothing was asked of it.
        files: names of further files in the staging folder that belong to it (external weights).

    Returns:
        The manifest's path.

    Raises:
        VerificationError: the gate does not hold; all is kept in `rejected_folder`.
        StorageError: there is no room, or the folder cannot be written.
    """
    stopping.check()
    if gate is not None and gate.failures:
        _reject(draft, content, gate, files)
    manifest = write_manifest(draft.path, kind, content, tuple(files))
    with stopping.deferred():
        _move((manifest.name, *files, draft.path.name), draft.folder, draft.target.parent)
        if not files:
            draft.target.with_name(f"{draft.target.name}.data").unlink(missing_ok=True)  # of one that needed it
    return manifest_path(draft.target)


def rejected_folder(path: Path) -> Path:
    """Where the evidence of a rejected artefact goes that would have become `path`."""
    return path.with_name(f"{path.stem}.rejected")


def _reject(draft: Draft, content: Mapping[str, Any], gate: Gate, files: Sequence[str]) -> None:
    write_json(draft.folder / EVIDENCE, content)
    folder = make_folder(rejected_folder(draft.target))
    names = (
        *files,
        draft.path.name,
        EVIDENCE,
        manifest_path(draft.path).name,
    )  # a manifest where one was sealed before
    with stopping.deferred():
        _move([name for name in names if (draft.folder / name).exists()], draft.folder, folder)
    shown = "\n".join(f"  found    {failure}" for failure in gate.failures[:_SHOWN])
    raise VerificationError(f"{gate.claim}:\n{shown}\n  kept     {folder}\n  to do    {gate.remedy}")


def _move(names: Sequence[str], source: Path, target: Path) -> None:
    """Rename complete files from one folder to another on the same disk, which needs no room."""
    with storage_errors(target):
        for name in names:
            (source / name).replace(target / name)
