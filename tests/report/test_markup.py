import pytest

from ffnet_deploy.report.format import (
    factor,
    file_size,
    listed,
    milliseconds,
    percent,
    points,
    quantity,
    seconds,
    share,
    significant,
)
from ffnet_deploy.report.markup import Markup, element, escape, join
from tests.report.reading import parse

HOSTILE = "<script>alert('1')</script> & \"quotes\" \x00\x1b \udc80"


def test_text_from_outside_stays_text_in_content_and_attributes() -> None:
    node = parse(element("p", HOSTILE, title=HOSTILE)).one("p")
    cleaned = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\udc80", "\ufffd")
    assert node.text == cleaned
    assert node.attributes["title"] == cleaned
    assert node.all("script") == []


def test_markup_is_kept_and_nested_content_is_flattened() -> None:
    assert join("<", [element("b", "x"), None, ["&"]]) == "&lt;<b>x</b>&amp;"
    assert escape(Markup("<i>")) == "<i>"


def test_attributes_are_named_and_left_out_as_asked() -> None:
    made = element("input", type="range", aria_label="a", for_="b", hidden=True, checked=False, value=None, x=1.50)
    assert made == '<input type="range" aria-label="a" for="b" hidden x="1.5">'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (significant(0.0012345), "0.00123"),
        (significant(941.8), "942"),
        (significant(12345.6), "12346"),
        (significant(6.2e-7), "6.20e\u221207"),
        (significant(0), "0"),
        (percent(None), "\u2013"),
        (percent(62.645), "62.65"),
        (points(-0.004), "0.00"),
        (points(-0.27), "\u22120.27"),
        (points(0.3), "+0.30"),
        (share(100.0), "100.0 %"),
        (share(99.96), "99.96 %"),
        (share(99.9999999), "> 99.9999 %"),
        (share(0.0000001), "< 0.0001 %"),
        (share(None), "\u2013"),
        (milliseconds(6.2), "6.20 ms"),
        (factor(0.151), "0.151\u00d7"),
        (file_size(4_284_340), "4.28 MB"),
        (quantity(74.57e9), "74.6 G"),
        (quantity(12), "12 "),
        (seconds(9.04), "9.0 s"),
        (seconds(600), "10.0 min"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed([]), ""),
    ],
)
def test_numbers_read_as_people_write_them(text: str, expected: str) -> None:
    assert text == expected
