"""What ``ffnet-export`` prints of graphs, lower precisions and engines."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ffnet_deploy.cli.console import console, report_note
from ffnet_deploy.export.engine import BuildResult

if TYPE_CHECKING:  # these need the conversion layer
    from ffnet_deploy.export.layer_comparison import LayerComparison
    from ffnet_deploy.export.onnx import Exported
    from ffnet_deploy.export.reduce import ReducedGraph

_MOST_COSTLY = 12
"""Blocks of a search that are printed; the manifest and the report have all."""


def show_exported(exported: "Exported") -> None:
    """Print what was measured and where the files are."""
    console.print(verification_table(exported))
    worst = max(exported.blocks, key=lambda block: block.relative)
    console.print(f"re-parameterisation: {len(exported.blocks)} blocks, worst {worst.relative:.1e} ({worst.name})")
    if exported.not_folded:
        report_note(f"{len(exported.not_folded)} batch norms have no convolution to fold into, and stay in the graph")
    for one in exported.rewrites:
        console.print(
            f"{one.name.value}: {one.macs_before / 1e9:.1f} -> {one.macs_after / 1e9:.1f} G multiply-adds, "
            f"error {one.float64_error:.0e} in float64, {one.float32_error:.0e} in float32"
        )
    if exported.verification.miou is not None:
        before, after = exported.verification.miou
        console.print(
            f"mIoU on {exported.verification.scored_images} images: PyTorch {before:.2f}, ONNX {after:.2f}, "
            f"difference {after - before:+.3f} points"
        )
    for note in exported.verification.notes:
        report_note(note)
    console.print(f"verified within {exported.verification.tolerance.relative:.0e}: {exported.path}", soft_wrap=True)
    console.print(f"manifest: {exported.manifest}", soft_wrap=True)


def shortened(name: str, width: int = 40) -> str:
    """`name`, or its last `width` characters behind an ellipsis: names of images differ at their ends."""
    return name if len(name) <= width else f"…{name[1 - width :]}"


def verification_table(exported: "Exported") -> Table:
    """What the verification measured, image by image."""
    result = exported.verification
    table = Table("image", "input", title=f"{result.candidate} against {result.reference}")
    for column in ("largest error", "relative", "mean error", "same label"):
        table.add_column(column, justify="right")
    for row in result.comparisons:
        table.add_row(
            shortened(row.image),
            f"{row.size[0]}x{row.size[1]}",
            f"{row.largest:.2e}",
            f"{row.relative:.2e}",
            f"{row.mean:.2e}",
            f"{row.agreement:.4f} %",
        )
    return table


def show_layer_comparison(found: "LayerComparison", path: Path) -> None:
    """Print the first layer that differs, and the largest difference."""
    first, worst = found.first, found.worst
    finding = f"no layer of {len(found.layers)} differs from its FP32 graph by more than {found.tolerance:g}"
    if first is not None:
        finding = f"first layer that differs: {first.node} ({first.operator}), relative difference {first.relative:.1e}"
    console.print(f"{finding}; largest: {worst.node} ({worst.operator}), {worst.relative:.1e}", soft_wrap=True)
    if found.record.precision.is_quantized:
        report_note("equalisation scales channels between the layers of a quantised graph: those may differ on purpose")
    console.print(
        f"in TensorRT, on a GPU: polygraphy run {path} --trt --onnxrt --trt-outputs mark all --onnx-outputs mark all "
        "--fail-fast",
        soft_wrap=True,
    )


def show_reduced(lowered: "ReducedGraph") -> None:
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


def show_engine(made: BuildResult) -> None:
    """Print how the precision of an engine was checked, what was measured of it, and where it is."""
    manifest = made.bundle.manifest
    build, check, verification = manifest["build"], manifest["precision_check"], manifest["verification"]
    target = build["target"]["gpu"] or f"compute capability {', '.join(build['target']['capabilities'])}"
    how = "reused: built before from the same graph, options and TensorRT" if made.reused else f"{build['seconds']} s"
    console.print(f"{made.bundle.variant.label} {build['version']} for {target} ({how})", soft_wrap=True)
    seen = check["engine"] if check["engine"] and check["engine"]["convolutions"] else check["network"]
    counted = ", ".join(f"{count} in {name}" for name, count in seen["convolutions"].items())
    console.print(f"convolutions: {counted}; the precision check rests on {check['basis']}", soft_wrap=True)
    if verification["state"] == "not run":
        report_note(f"not verified: {verification['reason']}; on the machine it is for run: {verification['command']}")
    else:
        show_verification(verification)
    console.print(f"engine: {made.bundle.path}", soft_wrap=True)


def show_verification(verification: dict[str, object]) -> None:
    """Print what was measured on the engine."""
    line = f"against {verification['reference']}: same label {verification['agreement']:.3f} %"
    miou = verification["mIoU"]
    if isinstance(miou, dict):
        line += (
            f"; mIoU on {miou['images']} images {miou['reference']:.2f} -> {miou['candidate']:.2f} "
            f"({miou['candidate'] - miou['reference']:+.3f} points)"
        )
    console.print(line, soft_wrap=True)
