"""The one door through which optional packages come in."""

import importlib
import json
import shlex
from importlib import metadata
from pathlib import Path
from types import ModuleType

from ffnet_deploy.core.errors import MissingPackageError
from ffnet_deploy.core.quiet import quiet


def optional(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or say which extra installs it.

    Args:
        module: import name, for instance ``"torch"``.
        extra: the extra of this project that brings it, for instance ``"convert"``.
        purpose: what it is needed for, as in "`purpose` needs the package `module`".

    Raises:
        MissingPackageError: the package is not installed, or is installed but cannot be loaded.
    """
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        root = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and (error.name or root).partition(".")[0] == root
        reason = "is not installed" if missing else f"cannot be loaded ({error})"
        raise MissingPackageError(
            f"{purpose} needs the package {root}, which {reason}.\n  to do    {install_command(extra)}"
        ) from error


def install_command(extra: str) -> str:
    """The command that adds the packages of `extra` to this installation, whichever way it came about.

    A checkout is installed again from its folder, with the versions it was tested with; a wheel, an archive or a
    repository from where it came; anything else by name.
    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install {shlex.quote(_origin(extra))}"
    pins = checkout / "constraints.txt"
    constraint = f"--constraint {shlex.quote(str(pins))} " if pins.is_file() else ""
    return f"pip install {constraint}{shlex.quote(f'{checkout}[{extra}]')}"


def _origin(extra: str) -> str:
    """What `pip install` is to be given, by the record of where this installation came from (PEP 610)."""
    try:
        record = json.loads(metadata.distribution("ffnet-deploy").read_text("direct_url.json") or "{}")
        url, version = str(record["url"]), record.get("vcs_info", {})
    except (metadata.PackageNotFoundError, KeyError, ValueError, TypeError, AttributeError):
        return f"ffnet-deploy[{extra}]"
    if version:
        url = f"{version.get('vcs', 'git')}+{url}@{version.get('commit_id', '')}"
    if url.startswith("file://") and "dir_info" in record:
        return f"{url.removeprefix('file://')}[{extra}]"
    return f"ffnet-deploy[{extra}] @ {url}"
