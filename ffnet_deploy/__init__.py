"""FFNet semantic segmentors, from MMSegmentation checkpoints to verified engines."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_segmentor", "reparameterize"]

if TYPE_CHECKING:
    from ffnet_deploy.export.reparameterize import reparameterize
    from ffnet_deploy.segmentor.load import load_segmentor


def __getattr__(name: str) -> Any:
    # the conversion layer needs torch: it is imported when one of its names is asked for, not before
    if name == "load_segmentor":
        from ffnet_deploy.segmentor.load import load_segmentor

        return load_segmentor
    if name == "reparameterize":
        from ffnet_deploy.export.reparameterize import reparameterize

        return reparameterize
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
