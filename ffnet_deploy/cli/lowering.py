"""The options of ``ffnet-export`` that ask for a lower precision, and what is printed of it."""

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.status import Status
from rich.table import Table

from ffnet_deploy.cli.console import console, error_console, report_note
from ffnet_deploy.errors import OptionError
from ffnet_deploy.precision import Precision, Target

if TYPE_CHECKING:  # these need the conversion layer
    from ffnet_deploy.export.lower import Lowered, LowerOptions
    from ffnet_deploy.export.pipeline import Exported, VerifyOptions
    from ffnet_deploy.segmentor import Segmentor


class Base(str, Enum):
    """Type of what a quantised graph does not quantise."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


Fp16 = Annotated[bool, typer.Option("--fp16", help="Also write a half-precision graph.")]
Bf16 = Annotated[bool, typer.Option("--bf16", help="Also write a bfloat16 graph.")]
Int8 = Annotated[bool, typer.Option("--int8", help="Also write a graph with INT8 convolutions.")]
Fp8 = Annotated[bool, typer.Option("--fp8", help="Also write a graph with FP8 convolutions.")]
Mixed = Annotated[bool, typer.Option("--mixed", help="INT8, but for layers that cost too much mIoU.")]
Int8Base = Annotated[
    Base | None, typer.Option("--int8-base", help="Type of what is not quantised.", show_default="fp16")
]
CalibImages = Annotated[Path | None, typer.Option(help="Folder of images to calibrate on; best from training data.")]
CalibCount = Annotated[int | None, typer.Option(help="Images to calibrate on.", show_default="64, or the list's")]
CalibList = Annotated[Path | None, typer.Option(help="Text file that names the images: one pattern a line.")]
CalibMethod = Annotated[str | None, typer.Option(help="minmax, percentile, entropy or mse.")]
Ranges = Annotated[Path | None, typer.Option(help="JSON file of calibrated ranges: read if it fits, else written.")]
MaxDrop = Annotated[
    float | None,
    typer.Option(help="Largest fall of mIoU of a lowered graph, points.", show_default="0.05 FP16/BF16, 0.3 INT8/FP8"),
]
MinAgreement = Annotated[
    float | None,
    typer.Option(help="Least share of same labels, percent.", show_default="99.5 FP16/BF16, 90 INT8/FP8"),
]


def chosen_target(**flags: bool) -> Target | None:
    """The one target among the flags that is set; None when there is none.

    Raises:
        OptionError: several are set.
    """
    chosen = [Target(name) for name, is_set in flags.items() if is_set]
    if len(chosen) > 1:
        raise OptionError(f"give one of {', '.join(f'--{target.value}' for target in chosen)}, not several")
    return chosen[0] if chosen else None


def lower_options(
    target: Target | None,
    base: Base | None,
    max_drop: float | None,
    agreement: float | None,
    calibration: Mapping[str, Any],
) -> "LowerOptions | None":
    """How to lower the graph; None when nothing is to be lowered.

    Args:
        target: what was asked for.
        base: of ``--int8-base``.
        max_drop: of ``--max-drop``.
        agreement: of ``--min-agreement``.
        calibration: folder, count, method and ranges as given, None where not.

    Raises:
        OptionError: an option is given without what it belongs to.
    """
    given = {"--int8-base": base, "--max-drop": max_drop, "--min-agreement": agreement}
    quantizing = {f"--{name}": value for name, value in _calibration_flags(calibration).items()}
    if target is None:
        _refuse({**given, **quantizing}, "--fp16, --bf16, --int8, --fp8 or --mixed")
        return None
    if not target.precision.is_quantized:
        _refuse({"--int8-base": base, **quantizing}, "--int8, --fp8 or --mixed")
    from ffnet_deploy.export.lower import LowerOptions
    from ffnet_deploy.export.quantizing import CalibrationRequest

    chosen = {name: value for name, value in calibration.items() if value is not None}
    return LowerOptions(
        target=target,
        base=Precision(base.value) if base else None,
        max_drop=max_drop,
        agreement=agreement,
        calibration=CalibrationRequest(**chosen) if target.precision.is_quantized else None,
    )


def _calibration_flags(calibration: Mapping[str, Any]) -> dict[str, Any]:
    names = {"ranges": "ranges", "listed": "calib-list"}
    return {names.get(name, f"calib-{name}"): value for name, value in calibration.items()}


def _refuse(flags: Mapping[str, Any], owner: str) -> None:
    lone = [name for name, value in flags.items() if value is not None]
    if lone:
        raise OptionError(f"{' and '.join(lone)} go with {owner}")


def lower_watched(
    segmentor: "Segmentor", exported: "Exported", options: "LowerOptions", verification: "VerifyOptions"
) -> "Lowered":
    """The lowered graph of a verified one, its steps shown as they go."""
    from ffnet_deploy.engines.torch import TorchEngine
    from ffnet_deploy.export.lower import lower

    with (
        error_console.status("lowering") as status,
        TorchEngine(segmentor.model, exported.contract) as reference,
    ):
        if exported.verification.miou is not None:
            verification = replace(verification, reference_miou=exported.verification.miou[0])
        shown = _Steps(status)
        return lower(exported.path, None, options, verification, reference, shown.begin, shown.count)


class _Steps:
    """A step's name, and behind it how many images are done."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._step = ""

    def begin(self, step: str) -> None:
        """Show the name of a step."""
        self._step = step
        self._status.update(step)

    def count(self, done: int, total: int) -> None:
        """Show how far it is."""
        self._status.update(f"{self._step}: image {done} of {total}")


def precision_table(lowered: "Lowered") -> Table:
    """How many nodes compute in which type, and why some stay in FP32."""
    table = Table("nodes", "type", "why", title=f"precision of {lowered.path.name}")
    table.columns[0].justify = "right"
    for count, kind, reason in lowered.summary:
        table.add_row(str(count), kind, reason)
    return table


def show_lowered(lowered: "Lowered") -> None:
    """Print what was typed, measured, and where the files are."""
    console.print(precision_table(lowered))
    result = lowered.verification
    worst = max(result.comparisons, key=lambda row: row.relative)
    console.print(
        f"against {result.reference}: largest error {worst.largest:.2e} (relative {worst.relative:.1e}), "
        f"same label {result.agreement:.3f} %"
    )
    if result.miou is not None:
        before, after = result.miou
        console.print(
            f"mIoU on {result.scored_images} images: PyTorch {before:.2f}, {lowered.target.value} {after:.2f}, "
            f"difference {after - before:+.3f} points (limit -{result.tolerance.miou:g})"
        )
    for note in lowered.notes:
        report_note(note)
    console.print(f"verified: {lowered.path}", soft_wrap=True)
    console.print(f"manifest: {lowered.manifest}", soft_wrap=True)
