import io
import signal
import subprocess
import sys
from contextlib import redirect_stdout, suppress

import pytest
from cyclopts import App
from rich.table import Table

from ffnet_deploy.cli.console import ExitCode, console, make_app, progress_bar, report_note, run_command
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.version import __version__
from ffnet_deploy.engines.cuda import NoDeviceError
from tests.commands import invoke


def command_that(raises: BaseException | None, returns: int | None = None) -> App:
    app = make_app("ffnet-fail", "Fail.")

    @app.default
    def command(*, name: str = "x") -> int | None:
        if raises is not None:
            raise raises
        return returns

    return app


def test_our_errors_are_one_message_with_its_lines_and_brackets_as_they_are() -> None:
    message = "folder [bold]x[/bold] is empty.\n  to do    " + "fill it " * 30
    result = invoke(command_that(DataError(message)))
    assert result.exit_code == 1
    assert result.stderr == f"error: {message}\n"
    assert result.stdout == ""


def test_ctrl_c_is_one_word_and_code_130() -> None:
    result = invoke(command_that(KeyboardInterrupt()))
    assert (result.exit_code, result.stderr) == (130, "error: interrupted\n")


@pytest.mark.parametrize(("number", "code", "told"), [(2, 130, "interrupted"), (15, 143, "terminated")])
def test_a_stop_that_somebody_swallows_or_turns_into_another_error_stops_nevertheless(
    number: int, code: int, told: str
) -> None:
    def swallowed() -> None:
        with suppress(BaseException):
            signal.raise_signal(number)

    def stage_after_stage() -> None:
        with progress_bar() as progress:
            swallowed()
            progress("the next stage")
            pytest.fail("it went on")

    def turned_into_another() -> None:
        try:
            signal.raise_signal(number)
        except BaseException as error:
            raise RuntimeError("callback failed") from error

    for act in (swallowed, stage_after_stage, turned_into_another):
        app = make_app("ffnet-act", "Act.")
        app.default(act)
        result = invoke(app)
        assert (result.exit_code, result.stderr.strip().split("\n")[-1]) == (code, f"error: {told}"), act


class _SignalAtTheEnd(io.StringIO):
    """A standard output whose flush is interrupted."""

    def flush(self) -> None:
        with suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)


def test_a_stop_at_the_very_end_is_told_by_the_exit_code() -> None:
    app = make_app("ffnet-act", "Act.")
    app.default(lambda: None)
    with pytest.raises(SystemExit) as ended, redirect_stdout(_SignalAtTheEnd()):
        run_command(app, [])
    assert ended.value.code == 143


TIDYING = """
import atexit, sys, time
from ffnet_deploy.cli.console import make_app, run_command

def tidy():
    sys.stdout.write("tidying\\n")
    sys.stdout.flush()
    time.sleep(600)

atexit.register(tidy)
app = make_app("ffnet-act", "Act.")
app.default(lambda: None)
run_command(app)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_interpreter_tidies_up_ends_it_without_a_traceback(number: signal.Signals) -> None:
    command = [sys.executable, "-c", TIDYING]
    ending = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert ending.stdout is not None and ending.stdout.readline() == "tidying\n"
    ending.send_signal(number)
    _, errors = ending.communicate(timeout=120)
    assert (ending.returncode, errors) == (-number, "")


def test_a_missing_gpu_has_a_code_of_its_own() -> None:
    result = invoke(command_that(NoDeviceError("there is no CUDA device here")))
    assert (result.exit_code, result.stderr) == (ExitCode.NO_GPU, "error: there is no CUDA device here\n")


def test_bugs_keep_their_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        invoke(command_that(ZeroDivisionError("bug")))


def test_options_keep_their_names() -> None:
    assert "--name" in invoke(command_that(DataError("x")), "--help").output


@pytest.mark.parametrize("code", [None, 0, 3])
def test_exit_codes_pass_through(code: int | None) -> None:
    assert invoke(command_that(None, code)).exit_code == (code or 0)


@pytest.mark.parametrize("code", list(ExitCode))
def test_the_help_page_tells_every_exit_code(code: ExitCode) -> None:
    page = " ".join(invoke(command_that(None), "--help", env={"COLUMNS": "300"}).stdout.split())
    assert f"{code.value} {code.meaning}" in page


def test_near_misses_are_suggested() -> None:
    result = invoke(command_that(None), "--nam", "y")
    assert result.exit_code == ExitCode.USAGE
    assert "--nam" in result.stderr and "Did you mean --name?" in result.stderr


def test_the_version_is_told() -> None:
    assert invoke(command_that(None), "--version").stdout == f"ffnet-fail {__version__}\n"


def test_text_from_outside_is_shown_and_never_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "road[/] [red]x[/red] :car: \x1b[2J \ud800"
    table = Table(hostile, title=hostile)
    table.add_row(hostile)
    console.print(hostile, soft_wrap=True)
    console.print(table, soft_wrap=True)
    report_note(hostile)
    found = capsys.readouterr()
    assert found.out.count(r"road[/] [red]x[/red] :car: \x1b[2J \ud800") == 4
    assert found.err == "note: " + r"road[/] [red]x[/red] :car: \x1b[2J \ud800" + "\n"
