"""The options of ``ffnet-export`` that ask for a lower precision, and what is printed of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ffnet_deploy.cli.console import console, progress_bar, report_note
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Precision, Target

if TYPE_CHECKING:  # these need the conversion layer
    from ffnet_deploy.evaluation.verify import VerifyOptions
    from ffnet_deploy.export.onnx import Exported
    from ffnet_deploy.export.quantizing import CalibrationRequest
    from ffnet_deploy.export.reduce import ReducedGraph, ReductionOptions
    from ffnet_deploy.segmentor.load import Segmentor

_MOST_COSTLY = 12
"""Blocks of a search that are printed; the manifest and the report have all."""


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
Calibrator = Annotated[
    str | None, typer.Option(help="native, or modelopt (NVIDIA Model Optimizer).", show_default="native")
]
Keep = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Convolution, or module, to leave unquantised; repeatable.")
]
Ranges = Annotated[
    Path | None, typer.Option(help="JSON file of calibrated ranges: read and checked if it is there, else written.")
]
SearchBudget = Annotated[
    float | None,
    typer.Option(metavar="MINUTES", help="--mixed: end the search after this; ranking the blocks is not counted."),
]
SearchState = Annotated[Path | None, typer.Option(metavar="FILE", help="--mixed: keep the search here, or resume it.")]
LayerTimings = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="--mixed: ffnet-bench profile of both engines; what INT8 slows is left alone."),
]
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


@dataclass(frozen=True)
class LoweringFlags:
    """What the command line says of a lowered graph; the fields are named after its options, None where not given."""

    int8_base: Base | None
    max_drop: float | None
    min_agreement: float | None
    calib_images: Path | None
    calib_count: int | None
    calib_list: Path | None
    calib_method: str | None
    calibrator: str | None
    keep: list[str] | None
    ranges: Path | None
    search_budget: float | None
    search_state: Path | None
    layer_timings: Path | None

    def options(self, target: Target | None) -> "ReductionOptions | None":
        """How to lower the graph to `target`; None when nothing is to be lowered.

        Raises:
            OptionError: an option is given without what it belongs to.
        """
        gate, search = ("max_drop", "min_agreement"), ("search_budget", "search_state", "layer_timings")
        if target is None:
            self._refuse_all_but((), "--fp16, --bf16, --int8, --fp8 or --mixed")
            return None
        if not target.precision.is_quantized:
            self._refuse_all_but(gate, "--int8, --fp8 or --mixed")
        elif target is not Target.MIXED:
            self._refuse_all_but([name for name in self._given() if name not in search], "--mixed")
        from ffnet_deploy.export.reduce import ReductionOptions

        return ReductionOptions(
            target=target,
            base=Precision(self.int8_base.value) if self.int8_base else None,
            max_drop=self.max_drop,
            agreement=self.min_agreement,
            calibration=self._calibration() if target.precision.is_quantized else None,
        )

    def _calibration(self) -> "CalibrationRequest":
        from ffnet_deploy.calib.search import SearchOptions, read_timings
        from ffnet_deploy.export.quantizing import CalibrationRequest

        return CalibrationRequest(
            images=self.calib_images,
            count=self.calib_count,
            listed=self.calib_list,
            method=self.calib_method,
            calibrator=self.calibrator,
            keep=tuple(self.keep or ()),
            ranges=self.ranges,
            search=SearchOptions(
                budget=None if self.search_budget is None else 60 * self.search_budget,
                state=self.search_state,
                timings=read_timings(self.layer_timings) if self.layer_timings else None,
            ),
        )

    def _given(self) -> list[str]:
        return [field.name for field in fields(self) if getattr(self, field.name) not in (None, [])]

    def _refuse_all_but(self, allowed: Sequence[str], owner: str) -> None:
        lone = [f"--{name.replace('_', '-')}" for name in self._given() if name not in allowed]
        if lone:
            raise OptionError(f"{' and '.join(lone)} {'goes' if len(lone) == 1 else 'go'} with {owner}")


def lower_watched(
    segmentor: "Segmentor", exported: "Exported", options: "ReductionOptions", verification: "VerifyOptions"
) -> "ReducedGraph":
    """The lowered graph of a verified one, its steps shown as they go."""
    from ffnet_deploy.engines.torch import TorchEngine
    from ffnet_deploy.export.reduce import reduce_precision

    with (
        progress_bar("lowering") as progress,
        TorchEngine(segmentor.model, exported.contract) as reference,
    ):
        if exported.verification.miou is not None:
            verification = replace(verification, reference_miou=exported.verification.miou[0])
        return reduce_precision(exported.path, None, options, verification, reference, progress)


def precision_table(lowered: "ReducedGraph") -> Table:
    """How many nodes compute in which type, and why some stay in FP32."""
    table = Table("nodes", "type", "why", title=f"precision of {lowered.path.name}")
    table.columns[0].justify = "right"
    for count, kind, reason in lowered.summary:
        table.add_row(str(count), kind, reason)
    return table


def search_table(search: Mapping[str, Any]) -> Table:
    """The blocks that cost most when they alone are quantised: noise in the logits, labels changed, change of mIoU."""
    rows = search["sensitivity"][:_MOST_COSTLY]
    title = f"the {len(rows)} most costly of {len(search['sensitivity'])} blocks, each quantised alone"
    table = Table(title=title)
    table.add_column("block", overflow="fold")
    for column in ("SQNR, dB", "labels, %", "mIoU", "MACs, %", "left out"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["block"].strip("/"),
            f"{row['sqnr_db']:.1f}",
            f"{row['disagreement_percent']:.2f}",
            "-" if row["drop"] is None else f"{-row['drop']:+.2f}",
            f"{row['macs_percent']:.1f}",
            "yes" if row["block"] in search["kept"] else "",
        )
    return table


def show_lowered(lowered: "ReducedGraph") -> None:
    """Print what was typed, measured, and where the files are."""
    search = (lowered.quantization or {}).get("search")
    if search is not None:
        console.print(search_table(search))
    console.print(precision_table(lowered))
    result = lowered.verification
    worst = max(result.comparisons, key=lambda row: row.relative)
    console.print(
        f"against {result.reference}: largest error {worst.largest:.2e} (relative {worst.relative:.1e}), "
        f"same label {result.agreement:.3f} %",
        soft_wrap=True,
    )
    if result.miou is not None:
        before, after = result.miou
        console.print(
            f"mIoU on {result.scored_images} images: PyTorch {before:.2f}, {lowered.target.value} {after:.2f}, "
            f"difference {after - before:+.3f} points (limit -{result.tolerance.miou:g})",
            soft_wrap=True,
        )
    for note in lowered.notes:
        report_note(note)
    console.print(f"verified: {lowered.path}", soft_wrap=True)
    console.print(f"manifest: {lowered.manifest}", soft_wrap=True)
