import pytest

from ffnet_deploy.core.text import shown, shown_line


@pytest.mark.parametrize(
    ("text", "lines", "line"),
    [
        ("road, 道路 [/bold] :car:", "road, 道路 [/bold] :car:", "road, 道路 [/bold] :car:"),
        ("two\nlines\t.", "two\nlines\t.", r"two\nlines\t."),
        ("\x1b[2J\a\r", r"\x1b[2J\x07\r", r"\x1b[2J\x07\r"),
        ("caf\udce9 \ud800", r"caf\udce9 \ud800", r"caf\udce9 \ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe", r"\u202egnp.exe"),
    ],
)
def test_what_cannot_be_shown_becomes_an_escape(text: str, lines: str, line: str) -> None:
    assert (shown(text), shown_line(text)) == (lines, line)
    shown(text).encode(), shown_line(text).encode()
