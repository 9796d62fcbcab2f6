"""Reading JSON that comes from outside: typed, bounded, and refused with one clear error where it does not fit.

Every document that the toolkit reads back goes through here: contracts, precision records, manifests, calibrations,
states of searches and runs of the benchmark. A document is refused when it is too large, too deep, holds text that no
terminal or picture can show, lacks an entry, or has one of another type; ``NaN`` and ``Infinity`` are no JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from ffnet_deploy.core.errors import ArtifactError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAX_BYTES = 16 << 20
"""Largest document, bytes: its values take at most some forty times as much memory."""

MAX_DEPTH = 32
"""Most levels of lists and dicts within each other."""

ADDED = {"added": True}
"""`field(metadata=ADDED)` marks a field that older files lack; it then takes its default."""

Document = TypeVar("Document")


class DecodingError(ArtifactError):
    """A document that is not what it should be; the message names the entry."""


def decode(text: str | bytes, kind: type[Document], limit: int = MAX_BYTES) -> Document:
    """The JSON document `text` as a value of the annotated type `kind`.

    Args:
        text: the document; bytes are UTF-8.
        kind: a dataclass, or any type that annotations can spell: ``dict[str, Any]`` checks only what holds for every
            document. Fields of dataclasses must be there, but for those marked `ADDED`; entries that `kind` does not
            name are left out.
        limit: most bytes that such a document has.

    Raises:
        DecodingError: the text is no such document; the message names the entry.
    """
    try:
        content = text.encode() if isinstance(text, str) else text
        if len(content) > limit:
            raise DecodingError(f"{len(content)} bytes are more than the {limit} that any such document has")
        raw = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise DecodingError(f"it is no JSON: {error}") from error
    except RecursionError as error:
        raise DecodingError(f"lists and dicts lie more than {MAX_DEPTH} deep within each other") from error
    _check_values(raw, "", 0)
    return converted(raw, kind)


def converted(raw: Any, kind: type[Document]) -> Document:
    """A decoded document, or a part of one, as a value of the annotated type `kind`; see `decode`.

    Raises:
        DecodingError: an entry is missing or of another type; the message names it.
    """
    _check_complete(kind, raw, "")
    try:
        return msgspec.convert(raw, kind, strict=True)
    except (msgspec.ValidationError, OverflowError) as error:  # what a dataclass raises in __post_init__ is in it
        raise DecodingError(str(error).replace("`$.", "`")) from error


def decode_text(text: str, kind: type[Document], what: str, remedy: str) -> Document:
    """The JSON document `text` that `encode` wrote, as a value of the annotated type `kind`; see `decode`.

    Args:
        text: the document.
        kind: annotated type.
        what: names the document in messages, for instance ``"the artefact's description"``.
        remedy: what to do when it cannot be used.

    Raises:
        DecodingError: it is no such document.
    """
    try:
        return decode(text, kind)
    except DecodingError as error:
        raise DecodingError(f"{what} is damaged ({error}).\n  to do    {remedy}") from error


def encode(record: "DataclassInstance") -> str:
    """The dataclass `record` as JSON text, the same text for the same record.

    Fields marked `ADDED` are written where they differ from their default, so that what needs none of them stays
    byte for byte what older versions wrote.
    """
    content = asdict(record)
    for entry in fields(record):
        if entry.metadata.get("added") and content[entry.name] == entry.default:
            del content[entry.name]
    return json.dumps(content, sort_keys=True)


def decode_file(path: Path, kind: type[Document], what: str, remedy: str) -> Document:
    """The JSON file `path` as a value of the annotated type `kind`; see `decode`.

    Args:
        path: of the file.
        kind: annotated type.
        what: names the file in messages, for instance ``"manifest net.onnx.json"``.
        remedy: what to do when it cannot be used.

    Raises:
        DecodingError: it is no such document, or cannot be read.
        FileNotFoundError: there is none: what that means is the caller's to say.
    """
    try:
        return decode(document_bytes(path), kind)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DecodingError(f"{what} cannot be read ({error.strerror or error}).\n  to do    {remedy}") from error
    except DecodingError as error:
        raise DecodingError(f"{what} is damaged: {error}.\n  to do    {remedy}") from error


def document_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """The content of a document; one that is too large is not read, and what is no plain file is not opened.

    Raises:
        DecodingError: it is a folder, pipe or device, or larger than `limit` bytes.
        OSError: it is missing or cannot be read.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise DecodingError("it is no plain file")
    if size > limit:
        raise DecodingError(f"{size} bytes are more than the {limit} that any such document has")
    with path.open("rb") as file:
        return file.read(limit + 1)  # it may have grown since


def is_printable(text: str, limit: int = 200) -> bool:
    """Whether `text` is one line that can be shown anywhere: 1 to `limit` characters, no controls, no surrogates."""
    return isinstance(text, str) and 0 < len(text) <= limit and text.isprintable()


def _check_values(value: Any, where: str, depth: int) -> None:
    """Refuse text with control characters (line breaks and tabs may be) or lone surrogates, and too many levels."""
    if depth > MAX_DEPTH:
        raise DecodingError(f"lists and dicts lie more than {MAX_DEPTH} deep within each other")
    if isinstance(value, str):
        if not value.isprintable():
            _check_text(value, where)
    elif isinstance(value, dict):
        for key, entry in value.items():
            _check_values(key, where, depth)
            _check_values(entry, f"{where}.{key}".lstrip(".") if depth < 3 else where, depth + 1)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            if not isinstance(entry, float):  # most entries of most lists
                _check_values(entry, f"{where}[{index}]" if depth < 3 else where, depth + 1)


def _check_text(text: str, where: str) -> None:
    for character in text:
        code = ord(character)
        if (code < 0x20 and character not in "\n\r\t") or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
            raise DecodingError(f"{where or 'its text'} holds the character U+{code:04X}, which cannot be shown")


def _check_complete(kind: Any, raw: Any, where: str) -> None:
    """Refuse dicts that lack a field of the dataclass they stand for: a default would hide the damage."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(raw, dict):
        hints = get_type_hints(kind)
        for entry in fields(kind):
            if entry.name in raw:
                _check_complete(hints[entry.name], raw[entry.name], f"{where}.{entry.name}".lstrip("."))
            elif not entry.metadata.get("added"):
                raise DecodingError(f"{where or 'it'} lacks {entry.name}")
    elif origin in (Union, UnionType) and raw is not None:
        for option in arguments:
            _check_complete(option, raw, where)
    elif origin in (tuple, list) and isinstance(raw, list) and arguments[0] not in (int, float, str):
        for index, entry in enumerate(raw):
            _check_complete(arguments[0], entry, f"{where}[{index}]")
    elif isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(raw, dict):
        for key, entry in raw.items():
            _check_complete(arguments[1], entry, f"{where}.{key}".lstrip("."))
