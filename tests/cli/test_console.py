import pytest
import typer
from typer.testing import CliRunner

from ffnet_deploy.cli.console import run_command
from ffnet_deploy.core.errors import DataError


def command_that(raises: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    @run_command
    def command(name: str = "x") -> None:
        """Fail."""
        raise raises

    return app


def test_our_errors_are_one_message_with_its_lines_and_brackets_as_they_are() -> None:
    message = "folder [bold]x[/bold] is empty.\n  to do    " + "fill it " * 30
    result = CliRunner().invoke(command_that(DataError(message)), [])
    assert result.exit_code == 1
    assert result.stderr == f"error: {message}\n"
    assert result.stdout == ""


def test_ctrl_c_is_one_word_and_code_130() -> None:
    result = CliRunner().invoke(command_that(KeyboardInterrupt()), [])
    assert (result.exit_code, result.stderr) == (130, "error: interrupted\n")


def test_bugs_keep_their_traceback() -> None:
    result = CliRunner().invoke(command_that(ZeroDivisionError("bug")), [])
    assert isinstance(result.exception, ZeroDivisionError)


def test_options_keep_their_names() -> None:
    assert "--name" in CliRunner().invoke(command_that(DataError("x")), ["--help"]).output


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_pass_through(code: int) -> None:
    assert CliRunner().invoke(command_that(typer.Exit(code)), []).exit_code == code
