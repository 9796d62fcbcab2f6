"""Running a command in this process, as a shell would."""

import contextlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from unittest import mock

from cyclopts import App

from ffnet_deploy.cli.console import ExitCode, run_command


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def invoke(app: App, *arguments: object, env: Mapping[str, str] | None = None) -> Result:
    """Run `app` with `arguments`; exceptions that are bugs come through."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, env or {}),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            run_command(app, [str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    return Result(int(code or 0), stdout.getvalue(), stderr.getvalue())


def assert_one_error(result: Result, *parts: str) -> None:
    """The command failed with one message, which holds `parts`, and without a traceback."""
    assert result.exit_code == ExitCode.FAILED, result.output
    assert result.stderr.count("error:") == 1 and "Traceback" not in result.output, result.output
    for part in parts:
        assert part in result.stderr.replace("\n", " "), result.stderr
