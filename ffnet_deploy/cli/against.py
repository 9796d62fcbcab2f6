"""``ffnet-eval --against`` and ``--html``: more artefacts on the same images, and the report of all of them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.manifest import read_manifest
from ffnet_deploy.benchmark.files import read_run
from ffnet_deploy.benchmark.record import BenchRun
from ffnet_deploy.cli.console import console, progress_bar
from ffnet_deploy.cli.source import Backend, Source, backend_of
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, Evaluation
from ffnet_deploy.report.collect import GalleryOptions
from ffnet_deploy.report.compare import Comparison
from ffnet_deploy.report.data import DEFAULT_MAX_DROP
from ffnet_deploy.report.format import NOTHING, percent, points, share
from ffnet_deploy.report.gate import miou_drop
from ffnet_deploy.report.write import check_report_target, write_report

About = Callable[[Engine, Source], dict[str, Any]]


@dataclass(frozen=True)
class ReportOptions:
    """What to score besides, and what to write of it all.

    Attributes:
        against: further artefacts, scored on the same images.
        html: file of the report; None for none.
        bench: JSON of ``ffnet-bench``, whose times the report shows too.
        pictures: images in the report's gallery.
        max_drop: largest fall of mIoU in points; beyond it the command fails. None fails never.
        json: file of the scores, which the report must not replace.
    """

    against: tuple[Path, ...] = ()
    html: Path | None = None
    bench: Path | None = None
    pictures: int = 12
    max_drop: float | None = None
    json: Path | None = None

    def __post_init__(self) -> None:
        if self.bench is not None and self.html is None:
            raise OptionError("--bench goes with --html: the report shows its times")
        if self.max_drop is not None and not self.against:
            raise OptionError("--max-drop compares with another artefact: add --against FILE")
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            raise OptionError(f"--max-drop takes points from 0: got {self.max_drop}")
        if self.html is not None:
            check_report_target(self.html, (self.json, self.bench))

    @property
    def gallery(self) -> GalleryOptions:
        """Pictures to keep: none without a report."""
        return GalleryOptions(count=self.pictures if self.html is not None else 0)

    def read_bench(self) -> BenchRun | None:
        """The run of the benchmark, where one is named.

        Raises:
            ArtifactError: it is missing, damaged or of another version.
        """
        return None if self.bench is None else read_run(self.bench)


def take_its_sizes(engine: Engine, source: Source, artifacts: tuple[Path, ...]) -> tuple[str, ...]:
    """Show a PyTorch network the input sizes that the first artefact takes, so that both see the same pixels.

    Returns:
        A note that says so; nothing where the sizes are free or `source` is itself an artefact.
    """
    if source.fitting_backend is not Backend.TORCH or not artifacts:
        return ()
    other = _contract_of(artifacts[0])
    engine.contract = replace(engine.contract, batch=other.batch, height=other.height, width=other.width)
    if not (other.height.is_fixed or other.width.is_fixed):
        return ()
    return (f"shown images at the input size of {artifacts[0].name}, as the others were",)


def _contract_of(artifact: Path) -> Contract:
    if backend_of(artifact) is Backend.ONNXRUNTIME:
        from ffnet_deploy.engines.onnx_metadata import read_description

        return read_description(artifact)[0]
    described = read_manifest(artifact).get("contract")
    if not isinstance(described, dict):
        raise ArtifactError(f"the manifest of {artifact} does not say what it takes.\n  to do    build it again")
    return Contract.from_json(json.dumps(described))


def score_others(
    comparison: Comparison,
    source: Source,
    options: ReportOptions,
    dataset: Dataset,
    scoring: EvaluateOptions,
    about: About,
) -> Iterator[dict[str, Any]]:
    """Score each further artefact on `dataset`, print how it compares, and give what the JSON file says of it."""
    for path in options.against:
        beside = _beside(source, path)
        with beside.open() as engine:
            with progress_bar() as progress:
                found = comparison.score(engine, dataset, replace(scoring, save_images=None), path, progress)
            console.print(comparison_line(comparison, found), soft_wrap=True)
            agreement = comparison.agreement
            yield {**found.to_dict(), **about(engine, beside), "agreement": agreement}


def _beside(source: Source, path: Path) -> Source:
    """The source of a further artefact, with what of `source` applies to it."""
    device = source.device or ""
    if backend_of(path).runs_engines:
        return Source(
            artifact=path, device=device if device.startswith("cuda") else None, trust_engine=source.trust_engine
        )
    cache = source.engine_cache if device.startswith("tensorrt") else None
    return Source(artifact=path, device=source.device, threads=source.threads, engine_cache=cache)


def comparison_line(comparison: Comparison, found: Evaluation) -> str:
    """How the contender that was scored last compares with the first, in a line."""
    first, last = comparison.contenders[0], comparison.contenders[-1]
    drop = miou_drop(first, last)
    score = percent(found.scores.mean_iou) if found.scores else NOTHING
    change = "" if drop is None else f" ({points(-drop)} points)"
    same = share(comparison.agreement)
    whom = first.artifact or first.name
    return f"{last.artifact} ({last.engine}): mIoU {score}{change}, {same} of the labels as {whom}"


def finish(comparison: Comparison, source: Source, options: ReportOptions, run: BenchRun | None) -> None:
    """Write the report, and hold the contenders to ``--max-drop``.

    Raises:
        VerificationError: one of them fell by more.
    """
    if options.html is not None:
        artifacts = tuple(path for path in (source.artifact, *options.against) if path is not None)
        limit = DEFAULT_MAX_DROP if options.max_drop is None else options.max_drop
        written = write_report(options.html, comparison.report(run=run, artifacts=artifacts, max_drop=limit))
        console.print(f"report in {', '.join(map(str, written))}", soft_wrap=True)
    first, *others = comparison.contenders
    if options.max_drop is None:
        return
    fallen = [(one, drop) for one in others if (drop := miou_drop(first, one)) is not None and drop > options.max_drop]
    if fallen:
        lines = "".join(f"\n  found    {points(-drop)} points  {one.artifact}" for one, drop in fallen)
        raise VerificationError(
            f"mIoU falls by more than --max-drop {options.max_drop:g} points below {first.artifact or first.name}:"
            f"{lines}\n"
            "  to do    keep more layers in a higher precision, or allow more with --max-drop"
        )
