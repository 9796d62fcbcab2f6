"""The command reference as Markdown, made from the options that the commands declare.

``python -m ffnet_deploy.cli.reference > docs/reference/commands.md`` (``make docs`` runs it).
"""

import sys
from collections.abc import Iterator
from typing import Any

from cyclopts import App

from ffnet_deploy.cli import bench, evaluate, export, predict, train
from ffnet_deploy.cli.console import ExitCode

COMMANDS = (export.app, evaluate.app, predict.app, bench.app, train.app)


def reference() -> str:
    """The whole page."""
    parts = [
        "# Commands",
        "Made from the code by `python -m ffnet_deploy.cli.reference`; `--help` of each command shows the same. "
        "Values of choices may be typed in any case, `--version` tells the version, and `--install-completion` "
        "installs the completion of options in your shell.",
        *(part for app in COMMANDS for part in _command(app)),
        "## Exit codes",
        "\n".join(("| code | meaning |", "|---|---|", *(f"| {one.value} | {one.meaning} |" for one in ExitCode))),
    ]
    return "\n\n".join(parts) + "\n"


def _command(app: App) -> Iterator[str]:
    yield f"## {app.name[0]}"
    yield str(app.help)
    yield f"```\n{str(app.usage).removeprefix('Usage: ')}\n```"
    arguments = [one for one in app.assemble_argument_collection(parse_docstring=True) if one.show]
    panels: dict[str, Any] = {one.name: one.parameter.group for one in arguments}
    groups = {group.name: group for panel in panels.values() for group in panel}
    for group in sorted(groups.values(), key=lambda one: one.sort_key):
        rows = [_row(one) for one in arguments if group in panels[one.name]]
        yield f"### {app.name[0]}: {group.name.lower() if group.name[1:].islower() else group.name}"
        yield "\n".join(("| option | meaning | default |", "|---|---|---|", *rows))


def _row(argument: Any) -> str:
    parameter = argument.parameter
    names = ", ".join(f"`{name}`" for name in argument.names) or f"`{argument.name}`"
    choices = argument.get_choices()
    help_text = " ".join((parameter.help or "").split())
    if choices:
        help_text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    shown = parameter.show_default
    default = argument.field_info.default
    text = shown(default) if callable(shown) and default is not argument.field_info.empty else None
    return f"| {names} | {help_text} | {'' if text is None else f'`{text}`'} |".replace("|  |", "| |")


if __name__ == "__main__":
    sys.stdout.write(reference())
