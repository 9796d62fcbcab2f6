"""What all commands share: where they print, and how they end when something is wrong."""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import typer
from rich import progress as bars
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ffnet_deploy.core.errors import FFNetDeployError
from ffnet_deploy.core.progress import Progress

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

TERMINATED = 143
"""Exit code after SIGTERM: 128 + SIGTERM."""

_BYTES_FROM = 100_000
"""A total from here on is a number of bytes: nobody waits for so many images or rounds."""

console = Console(highlight=False)
"""Results: standard output."""

error_console = Console(stderr=True, highlight=False)
"""Errors, notes and progress: standard error."""

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def run_command(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate `command` so that it ends with a message and an exit code instead of a traceback.

    Our errors end it with one red message and code 1, Ctrl-C with code 130, SIGTERM with 143. Other exceptions are bugs
    and keep their traceback. Goes below ``@app.command()``; the signature stays.
    """

    @functools.wraps(command)
    def reporting(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            with stop_on_sigterm():
                return command(*args, **kwargs)
        except FFNetDeployError as error:
            report_error(str(error))
            raise typer.Exit(1) from error
        except Terminated as stop:
            report_error("terminated")
            raise typer.Exit(TERMINATED) from stop
        except KeyboardInterrupt as interrupt:
            report_error("interrupted")
            raise typer.Exit(INTERRUPTED) from interrupt

    return reporting


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the command is, so that it cleans up as after Ctrl-C."""


@contextmanager
def stop_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` in the main thread when SIGTERM comes while the block runs."""

    def stop(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def report_error(message: str) -> None:
    """Print `message` in red on standard error, its lines as they are."""
    error_console.print(Text(f"error: {message}", style="red"), soft_wrap=True)


def report_note(message: str) -> None:
    """Print `message` in yellow on standard error, its lines as they are."""
    error_console.print(Text(f"note: {message}", style="yellow"), soft_wrap=True)


@contextmanager
def progress_bar(description: str = "") -> Iterator[Progress]:
    """A progress bar on standard error that begins anew with each stage; yields what reports progress to it.

    Args:
        description: shown until the first stage begins; empty: the bar appears with the first stage.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), _Amount(), TimeElapsedColumn(), TimeRemainingColumn())
    with bars.Progress(*columns, console=error_console, transient=True) as bar:
        task = bar.add_task(escape(description), total=None, visible=bool(description))

        def report(stage: str, done: float = 0, total: float | None = None, /) -> None:
            if escape(stage) != bar.tasks[0].description:
                bar.reset(task, total=None, description=escape(stage), visible=True)
            bar.update(task, completed=done, total=total)

        yield report


class _Amount(bars.ProgressColumn):
    """How much is done: a share of 1 in percent, large totals as bytes, anything else as ``done/total``."""

    def render(self, task: bars.Task) -> Text:
        """The amount of `task`; empty while nobody knows the total."""
        if task.total is None:
            return Text("")
        if task.total == 1:
            return Text(f"{task.completed:.0%}")
        if task.total >= _BYTES_FROM:
            return Text(f"{task.completed / 1e6:.1f}/{task.total / 1e6:.1f} MB")
        return Text(f"{task.completed:.0f}/{task.total:.0f}")
