"""Text that comes from outside: read, and made fit to be shown."""

from pathlib import Path

from ffnet_deploy.core.decoding import DecodingError, document_bytes
from ffnet_deploy.core.errors import DataError

_MAX_BYTES = 64 << 20
"""Largest text file: a list of a million images has less."""


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of the text file `path`; `what` names it in errors.

    Raises:
        DataError: it is missing, no plain file, larger than 64 MiB, or not in UTF-8.
    """
    try:
        return document_bytes(path, _MAX_BYTES).decode("utf-8").splitlines()
    except (OSError, DecodingError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"cannot read the {what} {path}: {reason}.\n  to do    save it as UTF-8 text") from error


def shown(text: str) -> str:
    r"""`text` as any terminal, page or picture can show it: characters that cannot be printed become escapes.

    Line breaks and tabs stay. Control sequences, which would move a terminal's cursor or change its colours, and
    undecodable bytes of file names become ``\x1b``, ``\udcff`` and their like.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )


def shown_line(text: str) -> str:
    """`text` as `shown` gives it, on one line: line breaks and tabs become escapes too."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
