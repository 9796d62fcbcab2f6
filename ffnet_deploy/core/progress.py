"""How a piece of work reports what it does: one protocol for progress, one for notes."""

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on: with the stage's name alone when a stage begins, then with how much of it is done."""

    def __call__(self, stage: str, done: float = 0, total: float | None = None, /) -> None:
        """Report that `done` of `total` units of `stage` are done.

        Args:
            stage: what is being done, for instance ``"verifying"``; the same name again continues the same stage.
            done: units done so far: images, blocks, bytes, or a share of 1.
            total: units in all; None where nobody knows.
        """


class NoteSink(Protocol):
    """Called with each thing that the user should know, in words."""

    def __call__(self, text: str, /) -> None:
        """Report `text`."""


def no_progress(stage: str, done: float = 0, total: float | None = None, /) -> None:
    """Report progress to nobody."""


def no_notes(text: str, /) -> None:
    """Report notes to nobody."""
