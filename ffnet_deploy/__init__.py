"""FFNet semantic segmentors, from MMSegmentation checkpoints to verified engines."""

import importlib
from typing import TYPE_CHECKING, Any

from ffnet_deploy.core.version import __version__

if TYPE_CHECKING:
    from ffnet_deploy.benchmark.bench import bench
    from ffnet_deploy.evaluation.evaluate import evaluate
    from ffnet_deploy.evaluation.predictor import open_engine
    from ffnet_deploy.evaluation.protocol import predict
    from ffnet_deploy.export.engine import build_engine
    from ffnet_deploy.export.onnx import export_onnx
    from ffnet_deploy.export.reduce import reduce_precision
    from ffnet_deploy.export.reparameterize import reparameterize
    from ffnet_deploy.segmentor.load import load_segmentor, open_segmentor

__all__ = [
    "__version__",
    "bench",
    "build_engine",
    "evaluate",
    "export_onnx",
    "load_segmentor",
    "open_engine",
    "open_segmentor",
    "predict",
    "reduce_precision",
    "reparameterize",
]

_HOME = {
    "bench": "ffnet_deploy.benchmark.bench",
    "build_engine": "ffnet_deploy.export.engine",
    "evaluate": "ffnet_deploy.evaluation.evaluate",
    "export_onnx": "ffnet_deploy.export.onnx",
    "load_segmentor": "ffnet_deploy.segmentor.load",
    "open_engine": "ffnet_deploy.evaluation.predictor",
    "open_segmentor": "ffnet_deploy.segmentor.load",
    "predict": "ffnet_deploy.evaluation.protocol",
    "reduce_precision": "ffnet_deploy.export.reduce",
    "reparameterize": "ffnet_deploy.export.reparameterize",
}
"""Module of each public function: imported when the function is asked for, since some of them need PyTorch."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
