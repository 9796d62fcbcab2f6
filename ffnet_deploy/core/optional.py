"""The one door through which optional packages come in."""

import importlib
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
            f"{purpose} needs the package {root}, which {reason}.\n  to do    pip install 'ffnet-deploy[{extra}]'"
        ) from error
