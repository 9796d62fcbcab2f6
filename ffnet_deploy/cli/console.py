"""What all commands share: where they print, and how they end when something is wrong."""

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from ffnet_deploy.core.errors import FFNetDeployError

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells have it."""

TERMINATED = 143
"""Exit code after SIGTERM: 128 + SIGTERM."""

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
def progress_bar(description: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error; yields what is to be called with (done, total)."""
    with steps_bar(description) as bar:
        yield bar.count


@dataclass(frozen=True)
class StepsBar:
    """A progress bar that begins anew with each step."""

    progress: Progress
    task: TaskID

    def begin(self, step: str) -> None:
        """Show the name of a step; the same name again changes nothing."""
        if step != self.progress.tasks[self.task].description:
            self.progress.reset(self.task, total=None, description=step)

    def count(self, done: int, total: int) -> None:
        """Show how far the step is."""
        self.progress.update(self.task, completed=done, total=total)


@contextmanager
def steps_bar(description: str) -> Iterator[StepsBar]:
    """A progress bar on standard error for one step after the other."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=error_console, transient=True) as progress:
        yield StepsBar(progress, progress.add_task(description, total=None))


@contextmanager
def download_bar(description: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error that appears with the first call of what it yields: (bytes done, bytes in all)."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=error_console, transient=True) as progress:
        task = progress.add_task(description, total=None, visible=False)
        yield lambda done, total: progress.update(task, completed=done, total=total, visible=True)
