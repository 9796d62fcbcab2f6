"""What all commands share: where they print, how they parse, and how they end."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter
from rich import progress as bars
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ffnet_deploy.core import stopping
from ffnet_deploy.core.errors import FFNetDeployError
from ffnet_deploy.core.progress import Progress
from ffnet_deploy.core.text import shown, shown_line
from ffnet_deploy.core.version import __version__
from ffnet_deploy.engines.cuda import NoDeviceError


class ExitCode(IntEnum):
    """How a command ended; the same in all commands."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_GPU = 3
    STOPPED = 4
    SKIPPED = 5
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """What it says, in a clause."""
        return _MEANINGS[self]


_MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "error, or a gate that does not hold",
    ExitCode.USAGE: "command line not understood",
    ExitCode.NO_GPU: "no usable GPU",
    ExitCode.STOPPED: "training stopped by a signal and saved",
    ExitCode.SKIPPED: "done without some unreadable inputs",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C)",
    ExitCode.OUTPUT_CLOSED: "standard output closed before all was printed",
    ExitCode.TERMINATED: "terminated (SIGTERM)",
}

_BYTES_FROM = 100_000
"""A total from here on is a number of bytes: nobody waits for so many images or rounds."""


class _PlainConsole(Console):
    """Shows text as it is: no markup or emoji in it counts, and what a terminal cannot show becomes an escape.

    Attributes:
        reader_left: Whether what reads the stream has closed it. The command goes on without it.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)
        self.reader_left = False

    def on_broken_pipe(self) -> None:
        """Print what follows to nowhere: work and files do not depend on who reads along."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        self.reader_left = True

    def render_str(self, text: str, **options: Any) -> Text:
        """`text` as a line or more of text."""
        return super().render_str(shown(text), **options)


console = _PlainConsole()
"""Results: standard output."""

error_console = _PlainConsole(stderr=True)
"""Errors, notes and progress: standard error."""

FLAT = Parameter(name="*")
"""Marks a dataclass whose fields are the options of a command."""


def make_app(name: str, summary: str, arguments: str = "") -> App:
    """The command `name`: add its function with ``@app.default`` and run it with `run_command`.

    Args:
        name: as it is typed.
        summary: a sentence for its help.
        arguments: its positional arguments, for the usage line.
    """
    codes = ", ".join(f"{code.value} {code.meaning}" for code in ExitCode)
    about = Group("About", sort_key=100)
    app = App(
        name=name,
        usage=f"Usage: {name} [OPTIONS]" + (f" {arguments}" if arguments else ""),
        help=summary,
        help_format="plaintext",
        help_epilogue=f"Exit codes: {codes}.",
        version=f"{name} {__version__}",
        console=console,
        default_parameter=Parameter(negative=(), show_default=_shown_default),
        group_commands=about,
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
        verbose=False,
        suppress_keyboard_interrupt=False,
    )
    app["--help"].help = "Show this page."
    app["--version"].help = "Show the version."
    app.register_install_completion_command(help="Install the completion of options in your shell.", group=about)
    return app


def _shown_default(value: object) -> str | None:
    """A default as the help shows it: none for flags and empty lists."""
    if value is None or isinstance(value, bool) or value == ():
        return None
    return str(getattr(value, "value", value))


def run_command(app: App, arguments: Sequence[str] | None = None) -> NoReturn:
    """Parse `arguments` (by default the process's), run the command and leave with its exit code.

    Errors of ours are one red message. Other exceptions are bugs and keep their traceback.

    Raises:
        SystemExit: always; its code is one of `ExitCode`.
    """
    console.reader_left = sys.stdout is None  # as `>&-` leaves it
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # stays open as long as the process
    code: int = ExitCode.DONE
    failure: BaseException | None = None
    try:
        with stopping.listening(to_the_end=arguments is None):
            code = app(arguments) or ExitCode.DONE
            console.file.flush()
    except BaseException as error:
        failure = error
    asked = stopping.requested()
    if asked is not None and (failure is not None or code == ExitCode.DONE):  # its exception may have been lost
        code = _stopped(asked)
    elif failure is not None:
        code = _failure(app, failure)
    elif console.reader_left and code == ExitCode.DONE:
        report_error("standard output is closed; what files were asked for are written")
        code = ExitCode.OUTPUT_CLOSED
    raise SystemExit(int(code))


def _stopped(asked: signal.Signals) -> int:
    report_error("terminated" if asked is signal.SIGTERM else "interrupted")
    return stopping.exit_code(asked)


def _failure(app: App, error: BaseException) -> int:
    """Report an error of ours as one message; the exit code. Anything else is a bug and is raised again."""
    match error:
        case CycloptsError():
            report_error(f"{error}\n  to do    {app.name[0]} --help lists the options")
            return ExitCode.USAGE
        case NoDeviceError():
            report_error(str(error))
            return ExitCode.NO_GPU
        case FFNetDeployError():
            report_error(str(error))
            return ExitCode.FAILED
        case KeyboardInterrupt():
            return _stopped(signal.SIGINT)
        case OSError():
            named = f"{error.filename}: " if error.filename else ""
            report_error(f"{named}{error.strerror or error}")
            _abandon_output()
            return ExitCode.FAILED
        case MemoryError():
            report_error("not enough memory.\n  to do    choose a smaller --shape or --batch, or fewer --threads")
            return ExitCode.FAILED
    raise error


def _abandon_output() -> None:
    """Let what standard output cannot take go nowhere, so that Python does not fail again when it exits."""
    try:
        console.file.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report_error(message: str) -> None:
    """Print `message` in red on standard error, its lines as they are."""
    error_console.print(Text(shown(f"error: {message}"), style="red"), soft_wrap=True)


def report_note(message: str) -> None:
    """Print `message` in yellow on standard error, its lines as they are."""
    error_console.print(Text(shown(f"note: {message}"), style="yellow"), soft_wrap=True)


@contextmanager
def progress_bar(description: str = "") -> Iterator[Progress]:
    """A progress bar on standard error that begins anew with each stage; yields what reports progress to it.

    Args:
        description: shown until the first stage begins; empty: the bar appears with the first stage.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Amount(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=error_console, transient=True, disable=not error_console.is_terminal) as bar:
        task = bar.add_task(shown_line(description), total=None, visible=bool(description))

        def report(stage: str, done: float = 0, total: float | None = None, /) -> None:
            stopping.check()  # every stage and every image comes by here
            if shown_line(stage) != bar.tasks[0].description:
                if not error_console.is_terminal:  # where no bar is drawn, a line a stage tells how it goes
                    error_console.print(Text(f"{shown_line(stage)} ..."), soft_wrap=True)
                bar.reset(task, total=None, description=shown_line(stage), visible=True)
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
