"""Graphs to build with TensorRT for RTX, which needs no GPU for it."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from ffnet_deploy.core.contract import DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.engines.tensorrt.variant import Variant
from tests.engines.tensorrt.typed import convolutions, half, quantized, stamp
from tests.tiny import write_checkpoint

CAPABILITIES = ("8.6", "8.9", "12.0")
OPTIONS = BuildOptions(variant=Variant.RTX, compute_capabilities=CAPABILITIES)


@cache
def exported(family: str, dynamic: bool, opset: int = 20) -> onnx.ModelProto:
    """The FP32 graph of a tiny segmentor; dynamic ones take bytes and give labels, as a camera's would."""
    from ffnet_deploy.export.onnx import build_graph
    from ffnet_deploy.segmentor.load import open_segmentor

    with tempfile.TemporaryDirectory() as folder:
        segmentor = open_segmentor(*write_checkpoint(Path(folder), family))
    return build_graph(segmentor, export_options(dynamic, opset))


def export_options(dynamic: bool, opset: int) -> Any:
    from ffnet_deploy.export.onnx import ExportOptions

    if dynamic:
        sides = DimensionRange(64, 128, 256)
        return ExportOptions(sides, sides, DimensionRange(1, 1, 4), opset, InputKind.RGB, OutputKind.LABELS)
    return ExportOptions(DimensionRange.fixed(64), DimensionRange.fixed(128), opset=opset)


def in_precision(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """The graph in FP32, in FP16 with its last convolution kept in FP32, or in INT8 with its last one in FP16."""
    last = convolutions(model)[-1:]
    if precision is Precision.FP32:
        return stamp(model, PrecisionRecord())
    if precision is Precision.FP16:
        return half(model, keep=last)
    return quantized(half(model), keep=last, base=Precision.FP16)
