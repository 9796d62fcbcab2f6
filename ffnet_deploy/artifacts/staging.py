"""Publishing only what holds: artefacts are made in a hidden folder, then moved into place, or kept as evidence."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from ffnet_deploy.core.errors import VerificationError
from ffnet_deploy.core.files import make_folder, storage_errors, write_json

EVIDENCE = "verification.json"
"""Name of the file in ``<name>.rejected`` that says what was measured."""


@contextmanager
def workshop(path: Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside `path`; the folder is removed at the end, whatever happens."""
    with storage_errors(path):
        folder = tempfile.mkdtemp(prefix=f".{path.stem}.", dir=path.parent)
    try:
        yield Path(folder) / path.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move(names: Sequence[str], source: Path, target: Path) -> None:
    """Rename complete files from one folder to another on the same disk, which needs no room."""
    with storage_errors(target):
        for name in names:
            (source / name).replace(target / name)


def rejected_folder(path: Path) -> Path:
    """Where the evidence of a rejected artefact goes that would have become `path`."""
    return path.with_name(f"{path.stem}.rejected")


def reject(
    draft: Path,
    files: Sequence[str],
    path: Path,
    content: Mapping[str, Any],
    failures: Sequence[str],
    remedy: str,
    claim: str = "the exported graph is not the network it came from",
) -> NoReturn:
    """Keep what was written and measured in ``<name>.rejected``, and raise.

    Args:
        draft: the artefact in its workshop.
        files: names of further files beside it.
        path: what it would have become.
        content: what was measured.
        failures: what is out of tolerance, in words.
        remedy: what the user can do, after the evidence is reported.
        claim: the first line of the error.

    Raises:
        VerificationError: always.
    """
    record = draft.with_name(EVIDENCE)
    write_json(record, content)
    folder = make_folder(rejected_folder(path))
    move((*files, draft.name, record.name), draft.parent, folder)
    shown = "\n".join(f"  found    {failure}" for failure in failures[:6])
    raise VerificationError(f"{claim}:\n{shown}\n  kept     {folder}\n  to do    {remedy}")
