"""HTML and SVG as text in which nothing from outside can become markup."""

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\ufffd"


class Markup(str):
    """Text that is markup already: the only kind that `element` does not escape."""

    __slots__ = ()


Content = str | Iterable["Content"] | None
"""What an element may hold: text (escaped), markup, or any nesting of both; None holds nothing."""


def plain(text: str) -> str:
    """`text` without what HTML and UTF-8 cannot hold: control characters and lone surrogates of odd file names."""
    return _NOT_TEXT.sub(_REPLACEMENT, text)


def escape(text: str) -> Markup:
    """`text` as markup that shows it, also inside quoted attributes."""
    return text if isinstance(text, Markup) else Markup(html.escape(plain(text), quote=True))


def join(*content: Content) -> Markup:
    """All `content` as one piece of markup."""
    return Markup("".join(_pieces(content)))


def _pieces(content: Content) -> Iterable[str]:
    if content is None:
        return
    if isinstance(content, str):
        yield escape(content)
        return
    for part in content:
        yield from _pieces(part)


def element(tag: str, *content: Content, **attributes: str | float | bool | None) -> Markup:
    """``<tag attributes>content</tag>``.

    Attribute names lose trailing underscores and take ``-`` for inner ones (``class_``, ``aria_label``). None and False
    leave an attribute out, True gives it without a value; numbers are written with two decimals at most.
    """
    opening = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{join(*content)}</{tag}>")


def _attribute(name: str, value: str | float | bool | None) -> str:
    name = name.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{escape(value) if isinstance(value, str) else number(value)}"'


def number(value: float) -> str:
    """`value` with at most two decimals, as coordinates need."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
