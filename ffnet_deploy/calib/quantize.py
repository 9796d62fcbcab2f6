"""From an FP32 graph and images to a quantised graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from ffnet_deploy.calib.bias import correct_biases, mean_errors
from ffnet_deploy.calib.collect import Images, collect
from ffnet_deploy.calib.equalize import Factors, choose_factors, equalize, tensors_to_observe
from ffnet_deploy.calib.observers import ChannelHistograms, Histogram
from ffnet_deploy.calib.options import CalibrationOptions, Calibrator
from ffnet_deploy.calib.plan import Plan, convs_behind_concat, make_plan
from ffnet_deploy.calib.qdq import check_operator_set, insert
from ffnet_deploy.calib.ranges import Calibration, key_of, method_name, rounded
from ffnet_deploy.calib.thresholds import threshold
from ffnet_deploy.core.errors import ArtifactError, DataError
from ffnet_deploy.core.precision import PRECISION_KEY, Hardware, Precision, PrecisionRecord
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.precision.graph_index import Conv, GraphIndex


@dataclass(frozen=True)
class Quantized:
    """A quantised graph and how it came about.

    Attributes:
        model: The graph with Q/DQ, everything else in FP32, its record in the metadata.
        record: What is quantised.
        ranges: What was measured.
        report: What the manifest says: method, share of multiply-adds, remedies, layers left out and why.
    """

    model: onnx.ModelProto
    record: PrecisionRecord
    ranges: Calibration
    report: dict[str, Any]


def quantize_graph(
    model: onnx.ModelProto,
    images: Images,
    options: CalibrationOptions | None = None,
    progress: Progress = no_progress,
    ranges: Calibration | None = None,
) -> Quantized:
    """A quantised copy of the FP32 graph `model`.

    Args:
        model: as ffnet-export writes it; left alone.
        images: network inputs to calibrate on.
        options: how; None for the defaults.
        progress: called with the images done in each step.
        ranges: what an earlier calibration of this graph measured; None to measure now.

    Raises:
        ArtifactError: the graph is quantised already, holds nothing to quantise, or a layer gives NaN.
        DataError: there are no images, or one is a constant colour.
        OptionError: the options do not fit the graph.
    """
    options = options or CalibrationOptions()
    check_quantizable(model, options)  # before images are read
    measured = ranges or calibrate(model, images, options, progress)
    return apply(model, measured, options)


def check_quantizable(model: onnx.ModelProto, options: CalibrationOptions) -> None:
    """Raise `ArtifactError` or `OptionError` where `apply` would, whatever is measured."""
    graph = GraphIndex(_copy(model))
    check_operator_set(graph, options.precision)
    make_plan(graph, options.keep, options.hardware)


def calibrate(
    model: onnx.ModelProto, images: Images, options: CalibrationOptions | None = None, progress: Progress = no_progress
) -> Calibration:
    """Measure on `images` all that quantising `model` needs, for every convolution, whatever is kept unquantised.

    Raises:
        ArtifactError: the graph is quantised already, holds nothing to quantise, or a layer gives NaN.
        DataError: there are no images, or one is a constant colour.
    """
    options = options or CalibrationOptions()
    return measure(observe(model, images, options, progress), images, options, progress)


@dataclass(frozen=True)
class Observed:
    """A graph whose tensors have been observed; every method of calibration can start from here.

    Attributes:
        model: The graph as it was given.
        work: The graph after equalisation, where that was asked for.
        factors: Factors of the equalisation.
        observers: What each quantised tensor's observer saw.
        shapes: Shapes of these tensors for the first image.
    """

    model: onnx.ModelProto
    work: onnx.ModelProto
    factors: Factors
    observers: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def observe(
    model: onnx.ModelProto, images: Images, options: CalibrationOptions, progress: Progress = no_progress
) -> Observed:
    """Equalise a copy of `model`, if `options` say so, and show it all `images`. Raises what `calibrate` does."""
    if not len(images):
        raise DataError("there are no images to calibrate on.\n  to do    give a folder of typical images")
    work = _copy(model)
    factors = _equalize(work, images, progress) if options.equalize else Factors({}, {}, ())
    observers = {name: _observer(options) for name in make_plan(GraphIndex(work)).uses}
    shapes = collect(work, observers, images, "measuring ranges", progress)
    return Observed(model, work, factors, observers, shapes)


def measure(
    observed: Observed, images: Images, options: CalibrationOptions, progress: Progress = no_progress
) -> Calibration:
    """Thresholds by the method of `options`, and what they do to the mean of each convolution's output on `images`."""
    thresholds = {name: threshold_of(observer, options) for name, observer in observed.observers.items()}
    shifts = {}
    if options.correct_bias:
        plan = make_plan(GraphIndex(observed.work))
        shifts = mean_errors(observed.work, plan, thresholds, options, images, progress)
    return rounded(
        Calibration(
            key=key_of(observed.model, images, options),
            images=len(images),
            thresholds=thresholds,
            maxima={name: observer.maximum for name, observer in observed.observers.items()},
            shapes=observed.shapes,
            factors=observed.factors,
            shifts=shifts,
        )
    )


def apply(model: onnx.ModelProto, ranges: Calibration, options: CalibrationOptions) -> Quantized:
    """A copy of `model` quantised by what was measured of it.

    Raises:
        ArtifactError: `ranges` do not know a tensor of this graph, or the graph is quantised already.
        OptionError: the options do not fit the graph.
    """
    work = _copy(model)
    make_plan(GraphIndex(work), options.keep)
    equalize(work, ranges.factors)
    graph = GraphIndex(work)
    plan = make_plan(graph, options.keep, options.hardware)
    unknown = [name for name in plan.uses if name not in ranges.thresholds]
    if unknown:
        raise ArtifactError(f"the ranges are of another graph: they lack {len(unknown)} tensors ({unknown[0]}, ...)")
    report = _report(plan, ranges, options, _hosts(graph, plan, options))
    if ranges.shifts:
        correct_biases(work, plan.convs, ranges.shifts)
    insert(work, plan, ranges.thresholds, options.precision, options.hardware)
    quantized = tuple(conv.name for conv in plan.convs)
    record = PrecisionRecord(options.precision, quantized=quantized, hardware=options.hardware)
    work.metadata_props.add(key=PRECISION_KEY, value=record.to_json())
    return Quantized(work, record, ranges, report)


def mac_share(quantized: Sequence[Conv], others: Sequence[Conv], shapes: Mapping[str, Sequence[int]]) -> float:
    """Percent of the convolutions' multiply-adds that are quantised, inputs being of the given `shapes`."""
    low = sum(conv.macs(shapes[conv.input]) for conv in quantized)
    return 100.0 * low / (low + sum(conv.macs(shapes[conv.input]) for conv in others))


def _observer(options: CalibrationOptions) -> Any:
    if options.calibrator is Calibrator.MODELOPT:
        from ffnet_deploy.calib.observers import ModelOptHistogram

        return ModelOptHistogram()
    return Histogram()


def threshold_of(observer: Any, options: CalibrationOptions) -> float:
    """The clipping threshold that `options` choose for what `observer` saw."""
    if isinstance(observer, Histogram):
        return threshold(observer, options.method, options.percentile, options.precision)
    return float(observer.threshold(options.method, options.percentile))


def _equalize(work: onnx.ModelProto, images: Images, progress: Progress) -> Factors:
    graph = GraphIndex(work)
    plan = make_plan(graph)
    seen = {name: ChannelHistograms() for name in tensors_to_observe(graph, plan)}
    collect(work, seen, images, "comparing channels", progress)
    factors = choose_factors(graph, plan, seen)
    equalize(work, factors)
    return factors


def _hosts(graph: GraphIndex, plan: Plan, options: CalibrationOptions) -> list[str]:
    """Runtimes and processors that compute the quantised graph as the simulation does."""
    if options.precision is not Precision.INT8:
        return ["TensorRT 10 and newer, on GPUs with FP8"]
    cpus = ["ONNX Runtime on x86-64"]
    if options.hardware is Hardware.CPU:
        return ["OpenVINO on x86-64 from AVX2 on", *cpus, "TensorRT", "TensorRT for RTX"]
    quantized = {conv.name for conv in plan.convs}
    if any(conv.name in quantized for conv in convs_behind_concat(graph)):
        return ["TensorRT", "TensorRT for RTX", *cpus]
    return ["TensorRT", "TensorRT for RTX", *cpus, "OpenVINO on x86-64 with VNNI"]


def _report(plan: Plan, ranges: Calibration, options: CalibrationOptions, hosts: list[str]) -> dict[str, Any]:
    return {
        "method": method_name(options),
        "hosts": hosts,
        "images": ranges.images,
        "convolutions": {"quantized": len(plan.convs), "kept": [conv.name for conv in plan.kept]},
        "mac_share_percent": round(mac_share(plan.convs, plan.kept, ranges.shapes), 3),
        "tensors": len(plan.uses),
        "residual_sums": sum(use.node.op_type == "Add" for uses in plan.uses.values() for use in uses),
        "equalisation": {
            "groups": len(ranges.factors.groups),
            "with_a_mul": len(ranges.factors.with_mul) + len(ranges.factors.restored),
        },
        "biases_corrected": len(ranges.shifts),
        "left_unquantized": dict(plan.left),
    }


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied
