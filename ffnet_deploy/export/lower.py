"""From a verified FP32 graph to one of lower precision, verified against PyTorch as published and then published."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest, write_manifest
from ffnet_deploy.artifacts.staging import move, reject, workshop
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import make_folder
from ffnet_deploy.core.precision import Precision, PrecisionRecord, Target
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.export.onnx import contract_in, write_graph
from ffnet_deploy.export.pipeline import VerifyOptions
from ffnet_deploy.export.quantizing import CalibrationRequest, quantized
from ffnet_deploy.export.verify import Tolerance, Verification, input_batch, usual_tolerance, verify
from ffnet_deploy.precision import TypingOptions, TypingReport, assign_types, simulated
from ffnet_deploy.precision.assign import recorded
from ffnet_deploy.precision.graph_index import opset_of

Inputs = Sequence[NDArray[np.generic]]

_OBSERVED = 8
"""Calibration images on which the ranges of what is not quantised are observed."""
_SIMULATED = "simulated.onnx"


@dataclass(frozen=True)
class LowerOptions:
    """What a graph is lowered to, and what it may cost.

    Attributes:
        target: the precision.
        base: type of what a quantised graph does not quantise; None: FP16 where the graph's operator set has 16-bit
            Q/DQ nodes, else FP32.
        max_drop: largest fall of mIoU, points; None: 0.05 for FP16 and BF16, 0.3 for quantised graphs.
        agreement: least share of positions with the same label, percent; None: 99.5, and 90 for quantised graphs.
        calibration: what quantised graphs are calibrated on.
    """

    target: Target
    base: Precision | None = None
    max_drop: float | None = None
    agreement: float | None = None
    calibration: CalibrationRequest | None = None

    def __post_init__(self) -> None:
        if self.base is not None and (self.base.is_quantized or not self.target.precision.is_quantized):
            raise OptionError("a base of fp32, fp16 or bf16 goes with a quantised graph")
        if self.target.precision.is_quantized and self.calibration is None:
            raise OptionError(f"{self.target.value} needs images to calibrate on: give --calib-images")
        _ = self.tolerance

    @property
    def tolerance(self) -> Tolerance:
        """The gate."""
        return usual_tolerance(self.target.precision, self.agreement, self.max_drop)


@dataclass(frozen=True)
class Lowered:
    """A verified graph of lower precision on disk.

    Attributes:
        path: of the ONNX file.
        manifest: of the JSON file beside it.
        target: what was asked for.
        contract: what the graph takes and gives.
        record: the precision it asks for.
        summary: rows of number of nodes, type and reason.
        verification: of the written graph against the segmentor as published.
        quantization: how Q/DQ nodes came about, as the manifest has it; None without any.
        notes: what to know of it.
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


@dataclass(frozen=True)
class _Made:
    model: onnx.ModelProto
    record: PrecisionRecord
    typing: TypingReport | None = None
    quantization: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()


def lowered_path(fp32: Path, target: Target) -> Path:
    """Where the lowered form of the graph `fp32` goes by default: ``NAME.fp16.onnx`` beside ``NAME.onnx``."""
    return fp32.with_name(f"{fp32.stem}.{target.value}.onnx")


def lower(
    fp32: Path,
    out: Path | None,
    options: LowerOptions,
    verification: VerifyOptions,
    reference: Engine,
    progress: Progress = no_progress,
) -> Lowered:
    """Write the graph `fp32` in lower precision, with its manifest.

    Args:
        fp32: a graph that ``ffnet-export`` verified, its manifest beside it.
        out: the file to write; None: `lowered_path`.
        options: precision and gate.
        verification: images, and labelled data where there are any; its tolerance was for FP32 and is not used.
        reference: the segmentor as published, with the graph's contract.
        progress: told of steps, and of the images done.

    Raises:
        VerificationError: the graph costs more than the gate allows; it is kept as evidence.
        ArtifactError: `fp32` is not what its manifest describes.
        OptionError: the graph cannot be lowered so.
        DataError: images cannot be used.
        StorageError: there is no room, or the folder cannot be written.
    """
    source = {"file": fp32.name, "sha256": read_manifest(fp32)["sha256"]}
    model = onnx.load(fp32)
    contract = contract_in(model)
    path = out or lowered_path(fp32, options.target)
    make_folder(path.parent)
    made = _made(model, contract, options, verification, progress)
    with workshop(path) as draft:
        files = write_graph(made.model, draft)
        progress(f"verifying {options.target.value}")
        result = _verified(draft, made, options, verification, reference, progress)
        content = _manifest_content(contract, source, made, result, verification)
        if result.failures:
            reject(draft, files, path, content, result.failures, _remedy(options), _claim(options))
        progress("writing")
        manifest = write_manifest(draft, "onnx", content, files)
        move((*files, draft.name, manifest.name), draft.parent, path.parent)
    notes = (*made.notes, *result.notes)
    return Lowered(
        path=path,
        manifest=manifest_path(path),
        target=options.target,
        contract=contract,
        record=made.record,
        summary=_summary(made),
        verification=result,
        quantization=made.quantization,
        notes=notes,
    )


def _made(
    model: onnx.ModelProto,
    contract: Contract,
    options: LowerOptions,
    verification: VerifyOptions,
    progress: Progress,
) -> _Made:
    """The graph in its new precision: Q/DQ first, then the types of the rest."""
    target = options.target
    images = observed_inputs(verification, contract)
    if options.calibration is None:
        progress("observing ranges")
        return _typed(_Made(model, recorded(model)), Precision(target.value), images, progress)
    made, inputs = _quantized(model, contract, options, verification, progress)
    base = options.base or default_base(model)
    if base is Precision.FP32:
        return made
    progress("observing ranges")
    return _typed(made, base, inputs[:_OBSERVED], progress)


def _quantized(
    model: onnx.ModelProto,
    contract: Contract,
    options: LowerOptions,
    verification: VerifyOptions,
    progress: Progress,
) -> tuple[_Made, Inputs]:
    """The graph with Q/DQ nodes over FP32, and what it was calibrated on."""
    assert options.calibration is not None
    progress("choosing images")
    drop = options.tolerance.miou
    made = quantized(model, contract, options.target, options.calibration, verification.labelled, drop, progress)
    report = {**made.report, "source": str(options.calibration.images)}
    notes = (*made.images.notes, *_left_notes(made.report["left_unquantized"]))
    return _Made(made.model, made.record, quantization=report, notes=notes), made.images


def _left_notes(left: Mapping[str, str]) -> Iterator[str]:
    """What stays unquantised although it multiplies, for people."""
    if left:
        name, reason = next(iter(left.items()))
        others = f" and {len(left) - 1} more (the manifest names them)" if len(left) > 1 else ""
        yield f"{name}{others} stays unquantised. {reason}"


def _typed(made: _Made, base: Precision, images: Inputs, progress: Progress) -> _Made:
    typed = assign_types(made.model, TypingOptions(base), images, progress)
    return replace(made, model=typed.model, record=typed.record, typing=typed.report)


def default_base(model: onnx.ModelProto) -> Precision:
    """FP16, or FP32 where the operator set has no 16-bit Q/DQ nodes (17, which TensorRT 8.5 needs)."""
    opset = opset_of(model)
    return Precision.FP16 if opset >= 19 else Precision.FP32


def observed_inputs(verification: VerifyOptions, contract: Contract) -> list[NDArray[np.generic]]:
    """The images to observe ranges on, each as a network input of the typical size."""
    size = (contract.height.opt, contract.width.opt)
    return [input_batch([image] * contract.batch.min, size, contract) for image in verification.images]


def _verified(
    draft: Path,
    made: _Made,
    options: LowerOptions,
    verification: VerifyOptions,
    reference: Engine,
    progress: Progress,
) -> Verification:
    """The comparison with `reference`, every 16-bit value rounded as on a device that computes in 16 bits."""
    onnx.checker.check_model(made.model, full_check=True)
    simulation = draft.with_name(_SIMULATED)
    write_graph(simulated(made.model), simulation)
    settings = OnnxRuntimeOptions(check_manifest=False, optimize=not made.record.precision.is_quantized)
    with OnnxRuntimeEngine(simulation, settings) as candidate:
        result = verify(
            reference,
            candidate,
            verification.images,
            options.tolerance,
            verification.labelled,
            progress,
            verification.reference_miou,
        )
    return replace(result, candidate=f"{options.target.value} simulated in {result.candidate}")


def _manifest_content(
    contract: Contract, source: dict[str, Any], made: _Made, result: Verification, verification: VerifyOptions
) -> dict[str, Any]:
    opset = opset_of(made.model)
    return {
        "contract": asdict(contract),
        "opset": opset,
        "precision": {
            **asdict(made.record),
            "source": source,
            "typing": made.typing.to_dict() if made.typing else None,
            "quantization": made.quantization,
            "notes": list(made.notes),
        },
        "verification": {"images": verification.source, **result.to_dict()},
    }


def _summary(made: _Made) -> tuple[tuple[int, str, str], ...]:
    rows: list[tuple[int, str, str]] = []
    if made.record.quantized:
        rows.append((len(made.record.quantized), made.record.precision.value, "convolutions with Q/DQ"))
    report = made.typing
    if report is not None:
        narrow = report.options.precision.value
        rows.append((report.nodes - len(report.kept), narrow, "as far as the images seen allow"))
        rows += [(count, "fp32", reason.value) for reason, count in report.reasons.items()]
        rows.append((sum(report.casts), "cast", f"{report.casts[0]} to {narrow}, {report.casts[1]} to fp32"))
    return tuple(rows)


def _claim(options: LowerOptions) -> str:
    return f"the {options.target.value} graph costs more than the gate allows"


def _remedy(options: LowerOptions) -> str:
    accept = "to accept the difference, raise --max-drop or lower --min-agreement"
    return f"try --mixed; {accept}" if options.target is Target.INT8 else accept
