"""FFNet semantic segmentors, from MMSegmentation checkpoints to verified engines."""

import importlib
from typing import TYPE_CHECKING, Any

from ffnet_deploy.core.version import __version__

if TYPE_CHECKING:
    from ffnet_deploy.export.reparameterize import reparameterize
    from ffnet_deploy.segmentor.load import load_segmentor

__all__ = ["__version__", "load_segmentor", "reparameterize"]

_HOME = {
    "load_segmentor": "ffnet_deploy.segmentor.load",
    "reparameterize": "ffnet_deploy.export.reparameterize",
}
"""Module of each public function: imported when the function is asked for, since some of them need PyTorch."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
