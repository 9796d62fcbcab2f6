"""Stopping a command: SIGTERM and Ctrl-C set a mark and raise; every stage checks the mark, so that no stop is lost.

An exception raised by a signal handler can vanish in a callback of C code, a finaliser or an ``except`` of another
package. The mark stays: the next call of `check` raises again, and nothing is published after a stop was asked for.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a command to stop."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the command is, so that it cleans up as after Ctrl-C."""


_asked: signal.Signals | None = None
_heeded = False
_over = False
_deferrals = 0


def requested() -> signal.Signals | None:
    """The signal that asked this command to stop, or the one before where none has begun; None: nobody did."""
    return _asked


def exit_code(number: signal.Signals) -> int:
    """Exit code of a command that `number` stopped, as shells have it: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + number


def ask(number: int) -> None:
    """Set the mark, as a signal does; for handlers that do not raise (training saves a checkpoint first)."""
    global _asked
    _asked = _asked or signal.Signals(number)


def check() -> None:
    """Raise if a stop was asked for: called by every stage, and once for each image, sample or phase of long ones.

    Only the main thread raises; it calls off the others.

    Raises:
        Terminated: SIGTERM came.
        KeyboardInterrupt: Ctrl-C was pressed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if _asked is not None and not (_heeded or _over or _deferrals) and in_main:
        raise (Terminated if _asked is signal.SIGTERM else KeyboardInterrupt)


def heed() -> None:
    """Let the command write what it has after a stop was asked for: `check` raises no more until the next signal.

    `requested` still tells of the stop, and so does the command's exit code.
    """
    global _heeded
    _heeded = True


@contextmanager
def listening(to_the_end: bool = False) -> Iterator[None]:
    """Handle `SIGNALS` while the block runs: set the mark, and raise where the main thread is.

    The mark outlives the block, so that `requested` tells of a signal up to its very end. In other threads than the
    main one, which alone receives signals, the block runs as it is.

    Args:
        to_the_end: whether the process ends after the block: a signal then ends it at once. By default the handlers
            of before are back.
    """
    global _asked, _heeded, _over
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked, _heeded, _over = None, False, False
    before = {number: signal.signal(number, _receive) for number in SIGNALS}
    try:
        yield
    finally:
        _over = True  # a signal from here on sets the mark and does not keep the handlers from going back
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if to_the_end else handler)


def _receive(number: int, frame: FrameType | None) -> None:
    global _heeded
    _heeded = False
    ask(number)
    check()


@contextmanager
def deferred() -> Iterator[None]:
    """Let the block run to its end before a signal raises: for steps that belong together, such as two renames.

    Raises:
        Terminated, KeyboardInterrupt: after the block, where a stop was asked for.
    """
    global _deferrals
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _deferrals += 1
    try:
        yield
    finally:
        _deferrals -= 1
    check()
