"""Quantised graphs as an export asks for them: which images, whose ranges."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

from ffnet_deploy.calib import (
    Calibration,
    CalibrationImages,
    CalibrationOptions,
    Calibrator,
    Method,
    calibrate,
    check_quantizable,
    choose_images,
    key_of,
    quantize_graph,
    read_calibration,
    write_calibration,
)
from ffnet_deploy.calib.images import DEFAULT_COUNT, labelled_samples, read_image_list
from ffnet_deploy.calib.plan import slow_in_fp8
from ffnet_deploy.calib.search import SearchOptions, search_mixed
from ffnet_deploy.core.contract import Contract, OutputKind
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.core.files import check_target
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.precision import Hardware, PrecisionRecord, Target
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset, open_images
from ffnet_deploy.evaluation.layouts import is_data_set
from ffnet_deploy.evaluation.scores import MiouLimit
from ffnet_deploy.evaluation.verify import Tolerance


@dataclass(frozen=True)
class CalibrationRequest:
    """What a quantised graph is calibrated on, and how.

    Attributes:
        images: Folder of images, or of a labelled data set, whose training split is taken then.
        count: Number of images to take; None: the calibration's own default, or what the list asks for.
        listed: Text file that names them; None: they are chosen.
        method: Name of the calibration method; None: the calibration's own default.
        calibrator: Name of what chooses thresholds; None: our own.
        keep: Convolutions that stay unquantised: names of their nodes, or of modules that they are in.
        ranges: JSON file of ranges, used again if it is there, else written; None: they are not kept.
        search: Limits of the search of `Target.MIXED`, but for the fall of mIoU.
        hardware: What is to compute the graph.
    """

    images: Path | None = None
    count: int | None = None
    listed: Path | None = None
    method: str | None = None
    calibrator: str | None = None
    keep: tuple[str, ...] = ()
    ranges: Path | None = None
    search: SearchOptions = field(default_factory=SearchOptions)
    hardware: Hardware = Hardware.TRT

    def __post_init__(self) -> None:
        if self.images is None:
            raise OptionError(
                "a quantised graph needs images to calibrate on.\n"
                "  to do    give images like those that the network will see: --calib-images DIR"
            )
        if self.count is not None and self.count < 1:
            raise OptionError(f"--calib-count takes a number of images from 1: got {self.count}")
        _ = CalibrationOptions(self.chosen_method, calibrator=self.chosen_calibrator)
        if self.chosen_calibrator is Calibrator.MODELOPT:
            optional("modelopt", extra="modelopt", purpose="the calibrator modelopt")
        if not self.images.exists():
            raise DataError(
                f"there are no images at {self.images}.\n  to do    check the path given with --calib-images"
            )
        if self.listed is not None:
            read_image_list(self.listed)
        for kept in (self.ranges, self.search.state):
            if kept is not None:
                check_target(kept)

    @property
    def chosen_method(self) -> Method:
        """The calibration method.

        Raises:
            OptionError: there is none of that name.
        """
        try:
            return CalibrationOptions().method if self.method is None else Method(self.method)
        except ValueError as error:
            known = ", ".join(method.value for method in Method)
            raise OptionError(f"--calib-method is one of {known}, not {self.method!r}") from error

    @property
    def chosen_calibrator(self) -> Calibrator:
        """What chooses thresholds.

        Raises:
            OptionError: there is none of that name.
        """
        try:
            return CalibrationOptions().calibrator if self.calibrator is None else Calibrator(self.calibrator)
        except ValueError as error:
            raise OptionError(f"--calibrator is native or modelopt, not {self.calibrator!r}") from error


@dataclass(frozen=True)
class QuantizedGraph:
    """A quantised graph as the export goes on with it.

    Attributes:
        model: The graph, everything that is not quantised in FP32.
        record: What is quantised.
        report: What the manifest says of the quantisation.
        images: What it was calibrated on.
    """

    model: onnx.ModelProto
    record: PrecisionRecord
    report: dict[str, Any]
    images: CalibrationImages


def quantized(
    model: onnx.ModelProto,
    contract: Contract,
    target: Target,
    request: CalibrationRequest,
    labelled: Dataset | None = None,
    gate: Tolerance = Tolerance(miou=0.3),  # noqa: B008  frozen
    progress: Progress = no_progress,
) -> QuantizedGraph:
    """`model` with Q/DQ nodes on all that can be quantised, or on what a search leaves.

    Args:
        model: FP32, as it was exported.
        contract: of it.
        target: INT8, FP8 or MIXED.
        request: images and method.
        labelled: for MIXED, where the calibration's images have no labels: data whose mIoU must hold; None: the noise
            of the logits decides.
        gate: for MIXED: by how much the mIoU may fall.
        progress: called with steps and images.

    Raises:
        DataError: the images cannot be used.
        ArtifactError: the graph is quantised already, or the file of ranges was measured on something else.
        OptionError: the options do not fit the graph, or the graph to search on gives no logits.
        VerificationError: no set of layers that was tried holds the mIoU.
    """
    options = CalibrationOptions(
        method=request.chosen_method,
        precision=target.precision,
        keep=(*request.keep, *(slow_in_fp8(model) if target is Target.FP8 else ())),
        calibrator=request.chosen_calibrator,
        hardware=request.hardware,
    )
    check_quantizable(model, options)
    trained = images_to_search_with(request, contract, labelled) if target is Target.MIXED else None
    images = calibration_images(request, contract)
    ranges = _ranges(model, images, options, request, progress)
    if trained is None:
        result = quantize_graph(model, images, options, progress, ranges)
        return QuantizedGraph(result.model, result.record, result.report, images)
    ranges = ranges or calibrate(model, images, options, progress)
    search = replace(request.search, limit=MiouLimit(gate.miou, gate.tier))
    found = search_mixed(model, ranges, options, trained, search, progress)
    report = {**found.quantized.report, "search": found.to_dict()}
    return QuantizedGraph(found.quantized.model, found.quantized.record, report, images)


def images_to_search_with(request: CalibrationRequest, contract: Contract, labelled: Dataset | None) -> Dataset:
    """Images for the search, labelled ones where there are any.

    They are of the calibration's training split if that is labelled, so that what verifies is not searched on; else
    `labelled`; else of the calibration's folder.

    Raises:
        OptionError: the graph does not give logits.
    """
    if contract.output is not OutputKind.LOGITS:
        raise OptionError(f"--mixed searches on logits, and this graph gives {contract.output.value}: --output logits")
    calibrated_on = _dataset(request.images or Path(), contract)
    if any(sample.labels for sample in calibrated_on.samples):
        return labelled_samples(calibrated_on, request.search.images, len(contract.classes))
    if labelled is not None:
        return labelled
    usable = choose_images(calibrated_on, contract, request.search.images).paths
    chosen = [sample for sample in calibrated_on.samples if sample.image in set(usable)]
    return replace(calibrated_on, samples=tuple(chosen))


def calibration_images(request: CalibrationRequest, contract: Contract) -> CalibrationImages:
    """The images that `request` asks for, as inputs of the network.

    Raises:
        DataError: there are none, or too many cannot be used.
    """
    listed = None if request.listed is None else read_image_list(request.listed)
    count = request.count or (listed.count if listed else DEFAULT_COUNT)
    return choose_images(_dataset(request.images or Path(), contract), contract, count, listed)


def _dataset(folder: Path, contract: Contract) -> Dataset:
    if is_data_set(folder):
        return open_dataset(folder, contract.dataset, split="train")
    return open_images(folder)


def _ranges(
    model: onnx.ModelProto,
    images: CalibrationImages,
    options: CalibrationOptions,
    request: CalibrationRequest,
    progress: Progress,
) -> Calibration | None:
    """What an earlier calibration measured, or this one, written to its file; None where no file is asked for."""
    if request.ranges is None:
        return None
    if request.ranges.exists():
        return read_calibration(request.ranges, key_of(model, images, options))
    measured = calibrate(model, images, options, progress)
    write_calibration(request.ranges, measured)
    return measured
