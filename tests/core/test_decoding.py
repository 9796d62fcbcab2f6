import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.core.decoding import ADDED, MAX_BYTES, MAX_DEPTH, DecodingError, decode, decode_file, is_printable


@dataclass(frozen=True)
class Inner:
    count: int
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("counts are not negative")


@dataclass(frozen=True)
class Outer:
    name: str
    rows: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = field(default_factory=dict)
    later: int = field(default=7, metadata=ADDED)


GOOD: dict[str, Any] = {"name": "a", "rows": [{"count": 1, "share": 2}], "by_name": {"b": {"count": 0, "share": 0.25}}}


def test_a_document_becomes_its_type() -> None:
    expected = Outer("a", (Inner(1, 2.0),), {"b": Inner(0, 0.25)})
    assert decode(json.dumps(GOOD), Outer) == expected
    assert isinstance(decode(json.dumps(GOOD), Outer).rows[0].share, float), "whole numbers become floats"
    assert decode(json.dumps({**GOOD, "later": 3}), Outer).later == 3


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": 3}, "Expected `str`, got `int` - at `name`"),
        ({"rows": [{"count": "1", "share": 0.5}]}, r"Expected `int`, got `str` - at `rows\[0\].count`"),
        ({"rows": [{"count": 1.0, "share": 0.5}]}, r"Expected `int`, got `float` - at `rows\[0\].count`"),
        ({"rows": [{"count": True, "share": 0.5}]}, r"Expected `int`, got `bool` - at `rows\[0\].count`"),
        ({"rows": [{"count": -1, "share": 0.5}]}, r"counts are not negative - at `rows\[0\]`"),
        ({"rows": [{"count": 1}]}, r"rows\[0\] lacks share"),
        ({"by_name": {"b": {"share": 1}}}, r"by_name\.b lacks count"),
        ({"name": "bell\a"}, r"name holds the character U\+0007"),
        ({"escape\x1b[31m": 1}, r"holds the character U\+001B"),
        ({"later": None}, "Expected `int`, got `null`"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DecodingError, match=reason):
        decode(json.dumps({**GOOD, **changes}), Outer)


@pytest.mark.parametrize("entry", list(GOOD))
def test_a_missing_entry_is_named_although_it_has_a_default(entry: str) -> None:
    with pytest.raises(DecodingError, match=f"it lacks {entry}"):
        decode(json.dumps({name: value for name, value in GOOD.items() if name != entry}), Outer)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "NaN", "[Infinity]", "-Infinity", "1e999", '"\\ud800 alone"', '"alone \\udcff abcdef"', "\ufeff{}",
        "'a'", b"\xff", b'"\xed\xa0\x80"', "[1,]", "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(DecodingError, match="no JSON"):
        decode(text, dict[str, Any])


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 10_000, 500_000])
@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_deep_documents_are_refused(depth: int, brackets: str) -> None:
    opening = '{"a":' if brackets == "{}" else "["
    with pytest.raises(DecodingError, match=f"more than {MAX_DEPTH} deep"):
        decode(opening * depth + "1" + brackets[1] * depth, Any)  # type: ignore[arg-type]


def test_large_documents_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with pytest.raises(DecodingError, match="are more than"):
        decode(" " * (MAX_BYTES + 1), dict[str, Any])
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: no room is taken
    with pytest.raises(DecodingError, match=r"record is damaged: 1099511627776 bytes [\s\S]*to do +measure again"):
        decode_file(path, dict[str, Any], "the record", "measure again")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DecodingError, match="no plain file"):
        decode_file(tmp_path / "pipe", dict[str, Any], "the record", "measure again")
    with pytest.raises(FileNotFoundError):
        decode_file(tmp_path / "none", dict[str, Any], "the record", "measure again")


def test_what_one_line_of_text_is() -> None:
    assert is_printable("traffic light") and is_printable("道路") and is_printable("[/bold]")
    for text in ("", "a\nb", "a\u2028b", "\x1b[0m", "\ud800", "a" * 201, 3):
        assert not is_printable(text), repr(text)  # type: ignore[arg-type]
