"""Reduce the precision of a verified FP32 graph: quantise, assign types, verify against the network, publish."""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy import artifacts
from ffnet_deploy.artifacts import Gate, read_manifest
from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import Contract, IOType
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import Hardware, Precision, PrecisionRecord, Target
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.engines.openvino import OpenVinoEngine, OpenVinoOptions
from ffnet_deploy.evaluation.verify import (
    Tolerance,
    Verification,
    VerifyOptions,
    input_batch,
    numerical_tolerance,
    usual_tolerance,
    verify,
)
from ffnet_deploy.export.calibration import CalibrationRequest, quantized
from ffnet_deploy.export.graph_file import contract_in, write_graph
from ffnet_deploy.precision import TypingOptions, TypingReport, assign_types, simulated
from ffnet_deploy.precision.assign import recorded
from ffnet_deploy.precision.graph_index import opset_of

_OBSERVED = 8
"""Calibration images on which the ranges of what is not quantised are observed."""
_SIMULATED = "simulated.onnx"


@dataclass(frozen=True)
class ReductionOptions:
    """What a graph is lowered to, and what it may cost.

    Attributes:
        target: The precision.
        base: Type of what a quantised graph does not quantise; None: FP16 where the graph's operator set has 16-bit
            Q/DQ nodes and a GPU is to compute it, else FP32.
        max_drop: Largest fall of the mIoU in points; None: 0.05 for FP16 and BF16, 0.3 for quantised graphs.
        tier: Least share of the network's mIoU that is kept, in percent, in the place of `max_drop`; None for none.
        agreement: Least share of positions with the same label, in percent; None: 99.5, and 90 for quantised graphs.
        calibration: What quantised graphs are calibrated on.
        io: Type of the floats that the graph takes and gives; FP16 where FP16 is what computes around them.
    """

    target: Target
    base: Precision | None = None
    max_drop: float | None = None
    tier: float | None = None
    agreement: float | None = None
    calibration: CalibrationRequest | None = None
    io: IOType = IOType.FP32

    def __post_init__(self) -> None:
        if self.io is IOType.FP16 and (self.hardware is Hardware.CPU or not self._may_compute_fp16):
            raise OptionError("--io fp16 goes with --fp16, and with quantised graphs over FP16 (--int8-base fp16)")
        if self.base is not None and (self.base.is_quantized or not self.target.precision.is_quantized):
            raise OptionError("a base of fp32, fp16 or bf16 goes with a quantised graph")
        if self.target.precision.is_quantized and self.calibration is None:
            raise OptionError(f"{self.target.value} needs images to calibrate on: give --calib-images")
        if self.hardware is Hardware.CPU and self.base not in (None, Precision.FP32):
            raise OptionError("CPUs compute in float32 what is not quantised: leave --int8-base out with --target cpu")
        if self.hardware is Hardware.CPU and self.target.precision is not Precision.INT8:
            raise OptionError(f"--target cpu goes with --int8 or --mixed, not with --{self.target.value}")
        if self.tier is not None and self.max_drop is not None:
            raise OptionError("--tier and --max-drop are two limits for one fall of mIoU: give one")
        _ = self.tolerance

    @property
    def _may_compute_fp16(self) -> bool:
        """Whether FP16 is what computes around the graph's boundary, as far as the options tell."""
        quantized = self.target.precision.is_quantized
        return self.base in (None, Precision.FP16) if quantized else self.target is Target.FP16

    @property
    def hardware(self) -> Hardware:
        """What is to compute the graph."""
        return self.calibration.hardware if self.calibration else Hardware.TRT

    @property
    def tolerance(self) -> Tolerance:
        """What the verification allows."""
        return usual_tolerance(self.target.precision, self.agreement, self.max_drop, self.tier)

    def gate(self, failures: Sequence[str]) -> Gate:
        """Whether a graph whose verification found `failures` may be published."""
        accept = "to accept the difference, raise --max-drop or lower --min-agreement"
        remedy = f"try --mixed; {accept}" if self.target is Target.INT8 else accept
        return Gate(failures, f"the {self.target.value} graph costs more than the gate allows", remedy)

    def path(self, fp32: Path, out: Path | None = None) -> Path:
        """Where the graph `fp32` goes: ``NAME.fp16.onnx`` beside ``NAME.onnx``, or where `out` says."""
        if out is not None and out.suffix == ".onnx":
            return out
        suffix = f"{self.target.value}{'-cpu' if self.hardware is Hardware.CPU else ''}"
        return (out or fp32.parent) / f"{fp32.stem}.{suffix}.onnx"


@dataclass(frozen=True)
class ReducedGraph:
    """A verified graph of lower precision on disk.

    Attributes:
        path: Path of the ONNX file.
        manifest: Path of the JSON file beside it.
        target: What was asked for.
        contract: What the graph takes and gives.
        record: The precision it asks for.
        summary: Rows of number of nodes, type and reason.
        verification: Comparison of the written graph with the segmentor as published.
        quantization: How Q/DQ nodes came about, as the manifest has it; None without any.
        notes: What to know of it.
    """

    path: Path
    manifest: Path
    target: Target
    contract: Contract
    record: PrecisionRecord
    summary: tuple[tuple[int, str, str], ...]
    verification: Verification
    quantization: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def reduce_precision(
    fp32: Path,
    out: Path | None,
    options: ReductionOptions,
    verification: VerifyOptions,
    reference: Engine,
    progress: Progress = no_progress,
) -> ReducedGraph:
    """Write the graph `fp32` in lower precision, with its manifest.

    Args:
        fp32: a graph that ``ffnet-export`` verified, its manifest beside it.
        out: the file to write; None: ``NAME.fp16.onnx`` beside ``NAME.onnx``.
        options: precision and gate.
        verification: images, and labelled data where there are any; its tolerance was for FP32 and is not used.
        reference: the network as it should be, with the graph's contract: PyTorch's as published, or `fp32` itself.
        progress: called with steps, and of the images done.

    Raises:
        VerificationError: the graph costs more than the gate allows; it is kept as evidence.
        ArtifactError: `fp32` is not what its manifest describes.
        OptionError: the graph's precision cannot be reduced so.
        DataError: images cannot be used.
        StorageError: there is no room, or the folder cannot be written.
    """
    target = options.target
    tolerance = options.tolerance if verification.labels else numerical_tolerance(target.precision)
    verification = replace(verification, tolerance=tolerance)
    if options.tier is not None and verification.labelled is None:
        raise OptionError("--tier is a share of mIoU, and there are no labels to score: give --data DIR")
    source = {"file": fp32.name, "sha256": read_manifest(fp32)["sha256"]}
    read_description(fp32)  # before onnx opens the files that hold weights
    model = onnx.load(fp32)
    contract = contract_in(model)
    precision = recorded(model).precision
    if precision is not Precision.FP32:
        raise ArtifactError(
            f"{fp32} is in {precision.value} already: its precision is reduced from FP32.\n"
            "  to do    give the graph that it was made from"
        )
    with artifacts.staged(out or options.path(fp32)) as draft:
        reduced = _reduce_model(model, contract, options, verification, progress)
        contract = contract_in(reduced.model)
        files = write_graph(reduced.model, draft.path)
        onnx.checker.check_model(reduced.model, full_check=True)
        stopping.check()
        progress(f"verifying {target.value}")
        result = _verify_simulated(reduced, draft.folder / _SIMULATED, target, verification, reference, progress)
        failures, runtimes = list(result.failures), list[Verification]()
        if options.hardware is Hardware.CPU:  # scored by the very runtimes too
            known = verification if result.miou is None else replace(verification, reference_miou=result.miou[0])
            for engine in cpu_engines(draft.path):
                progress(f"verifying in {engine.name}")
                runtimes.append(verify(reference, engine, known, progress))
                failures += [f"{engine.name}: {failure}" for failure in runtimes[-1].failures]

        progress("writing")
        content = {
            "contract": asdict(contract),
            "opset": opset_of(reduced.model),
            "precision": {**reduced.to_dict(), "source": source},
            "verification": {"images": verification.source, **result.to_dict()},
        }
        if runtimes:
            content["verification_in_runtimes"] = [one.to_dict() for one in runtimes]
        manifest = artifacts.publish(draft, "onnx", content, options.gate(failures), files)
    return ReducedGraph(
        path=draft.target,
        manifest=manifest,
        target=target,
        contract=contract,
        record=reduced.record,
        summary=_summary(reduced.record, reduced.typing),
        verification=result,
        quantization=reduced.quantization,
        notes=(*reduced.notes, *result.notes),
    )


@dataclass(frozen=True)
class _ReducedModel:
    """A graph of lower precision, and how it came about."""

    model: onnx.ModelProto
    record: PrecisionRecord
    typing: TypingReport | None = None
    quantization: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            **asdict(self.record),
            "typing": self.typing.to_dict() if self.typing else None,
            "quantization": self.quantization,
            "notes": self.notes,
        }


def _reduce_model(
    model: onnx.ModelProto,
    contract: Contract,
    options: ReductionOptions,
    verification: VerifyOptions,
    progress: Progress,
) -> _ReducedModel:
    """`model` with Q/DQ where it is to be quantised, and with 16-bit types where ranges on real images allow them."""
    target, request = options.target, options.calibration
    images: Sequence[NDArray[np.generic]] = observed_inputs(verification, contract)
    if request is None:
        base, reduced = Precision(target.value), _ReducedModel(model, recorded(model))
    else:
        progress("choosing images")
        base = options.base or default_base(model, options.hardware)
        made = quantized(model, contract, target, request, verification.labelled, options.tolerance, progress)
        images = made.images[:_OBSERVED]
        quantization = {**made.report, "source": str(request.images)}
        notes = (*made.images.notes, *_left_notes(made.report["left_unquantized"]))
        reduced = _ReducedModel(made.model, made.record, quantization=quantization, notes=notes)
    if base is Precision.FP32:
        if options.io is IOType.FP16:
            raise OptionError("--io fp16 needs FP16 around what is quantised: export with --opset 20")
        return reduced
    progress("observing ranges")
    typed = assign_types(reduced.model, TypingOptions(base), images, progress, options.io)
    return replace(reduced, model=typed.model, record=typed.record, typing=typed.report)


def _verify_simulated(
    reduced: _ReducedModel,
    path: Path,
    target: Target,
    verification: VerifyOptions,
    reference: Engine,
    progress: Progress,
) -> Verification:
    """The comparison of a graph with its network, every 16-bit value rounded as on a device that computes in 16 bits.

    The graph that does the rounding is written to `path`.
    """
    write_graph(simulated(reduced.model), path)
    settings = OnnxRuntimeOptions(check_manifest=False, optimize=not reduced.record.precision.is_quantized)
    with OnnxRuntimeEngine(path, settings) as candidate:
        result = verify(reference, candidate, verification, progress)
    return replace(result, candidate=f"{target.value} simulated in {result.candidate}")


def _left_notes(left: Mapping[str, str]) -> Iterator[str]:
    """What stays unquantised although it multiplies, for people."""
    if left:
        name, reason = next(iter(left.items()))
        others = f" and {len(left) - 1} more (the manifest names them)" if len(left) > 1 else ""
        yield f"{name}{others} stays unquantised. {reason}"


def default_base(model: onnx.ModelProto, hardware: Hardware = Hardware.TRT) -> Precision:
    """FP16; FP32 for CPUs, and where the operator set has no 16-bit Q/DQ nodes (17, which TensorRT 8.5 needs)."""
    return Precision.FP16 if opset_of(model) >= 19 and hardware is Hardware.TRT else Precision.FP32


def cpu_engines(path: Path) -> Iterator[Engine]:
    """The CPU runtimes that are installed here, each with `path` opened as `ffnet-eval` and `ffnet-bench` open it."""
    with OnnxRuntimeEngine(path, OnnxRuntimeOptions(check_manifest=False)) as engine:
        yield engine
    if importlib.util.find_spec("openvino") is not None:
        with OpenVinoEngine(path, OpenVinoOptions(check_manifest=False)) as openvino:
            yield openvino


def observed_inputs(verification: VerifyOptions, contract: Contract) -> list[NDArray[np.generic]]:
    """The images to observe ranges on, each as a network input of the typical size."""
    size = (contract.height.opt, contract.width.opt)
    return [input_batch([image] * contract.batch.min, size, contract) for image in verification.images]


def _summary(record: PrecisionRecord, report: TypingReport | None) -> tuple[tuple[int, str, str], ...]:
    rows: list[tuple[int, str, str]] = []
    if record.quantized:
        rows.append((len(record.quantized), record.precision.value, "convolutions with Q/DQ"))
    if report is not None:
        narrow = report.options.precision.value
        rows.append((report.nodes - len(report.kept), narrow, "as far as the images seen allow"))
        rows += [(count, "fp32", reason.value) for reason, count in report.reasons.items()]
        rows.append((sum(report.casts), "cast", f"{report.casts[0]} to {narrow}, {report.casts[1]} to fp32"))
    return tuple(rows)
