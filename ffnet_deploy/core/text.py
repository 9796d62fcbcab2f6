"""Text that comes from outside, made fit to be shown."""


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
