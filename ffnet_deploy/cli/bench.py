"""``ffnet-bench``: how fast artefacts and the PyTorch network are, side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import cv2
import typer

from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.compare import Comparison, compare
from ffnet_deploy.benchmark.contenders import (
    ArtifactOptions,
    Candidate,
    Runtime,
    artifact_candidates,
    baseline_first,
    distinct,
)
from ffnet_deploy.benchmark.files import read_run, write_run
from ffnet_deploy.benchmark.record import BenchRun, Content, Method
from ffnet_deploy.benchmark.settings import Grid
from ffnet_deploy.benchmark.steps import Picture
from ffnet_deploy.benchmark.torch_forms import TorchForm, TorchSource, torch_candidates
from ffnet_deploy.cli.bench_tables import show_changes, show_profiles, show_run, show_sweep
from ffnet_deploy.cli.console import INTERRUPTED, console, progress_bar, report_error, run_command
from ffnet_deploy.cli.shapes import parse_sides
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import check_target
from ffnet_deploy.evaluation.images import read_image, read_whole
from ffnet_deploy.evaluation.packaged import packaged_scenes
from ffnet_deploy.report import ReportData, write_report
from ffnet_deploy.report.merge import environment, timed_contenders
from ffnet_deploy.report.write import check_report_target
from ffnet_deploy.segmentor.zoo import chosen_checkpoint

app = typer.Typer(add_completion=False, pretty_exceptions_show_locals=False)
Choice = TypeVar("Choice", bound=Enum)


@dataclass(frozen=True)
class Outcome:
    """What to do with a run when it is there: files to write, and what makes the command fail."""

    artifacts: Sequence[Path] = ()
    json: Path | None = None
    html: Path | None = None
    old: BenchRun | None = None
    fail_over: float | None = None
    budget_ms: float | None = None

    def __post_init__(self) -> None:
        if self.fail_over is not None and self.old is None:
            raise OptionError("--fail-over needs a run to compare with: add --compare OLD.json")
        if self.fail_over is not None and not 0 <= self.fail_over < float("inf"):
            raise OptionError(f"--fail-over takes percent from 0: got {self.fail_over}")
        if self.budget_ms is not None and not 0 < self.budget_ms < float("inf"):
            raise OptionError(f"--latency-budget takes milliseconds above 0: got {self.budget_ms}")
        if self.json is not None:
            check_target(self.json)
        if self.html is not None:
            check_report_target(self.html, (self.json,))


def parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers from ``"1,8"``, each once.

    Raises:
        OptionError: the text is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise OptionError(f"{option} takes whole numbers with commas between them: got {text!r}")
    return tuple(dict.fromkeys(int(part) for part in parts))


def parse_sizes(text: str, option: str) -> tuple[tuple[int, int], ...]:
    """(height, width) of each size in ``"512x512,512x1024"``, each once.

    Raises:
        OptionError: the text is something else.
    """
    return tuple(dict.fromkeys(parse_sides(part, option) for part in text.split(",")))


def parse_choices(text: str, kind: type[Choice], option: str) -> tuple[Choice, ...]:
    """Members of `kind` by their values, with commas between them, each once.

    Raises:
        OptionError: a value is not one of `kind`.
    """
    values = [member.value for member in kind]
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if part not in values:
            raise OptionError(f"{option} takes {', '.join(values)}, with commas between them: got {part!r}")
    return tuple(dict.fromkeys(kind(part) for part in parts))


def chosen_picture(path: Path | None) -> Picture:
    """The image to time with: the user's, or a packaged street scene of 384 x 512 pixels.

    Raises:
        DataError: the file is no whole image.
    """
    if path is None:
        scene = packaged_scenes().samples[0]
        jpeg = cv2.imencode(".jpg", read_image(scene.image))[1].tobytes()
        return Picture(jpeg, f"packaged street scene {scene.name}")
    picture = Picture(read_whole(path, "image"), str(path))
    picture.decoded()
    return picture


def all_candidates(
    artifacts: Sequence[Path], options: ArtifactOptions, torch: TorchSource | None, forms: Sequence[TorchForm]
) -> list[Candidate]:
    """PyTorch's forms, then the artefacts.

    Raises:
        OptionError: there is nothing to time, or an artefact is of an unknown kind.
    """
    if not artifacts and torch is None:
        raise OptionError("there is nothing to time: name exported files, or give --config for the PyTorch network")
    pytorch = [] if torch is None else torch_candidates(torch, forms)
    return distinct([*pytorch, *artifact_candidates(artifacts, options)])


def finish(run: BenchRun, outcome: Outcome) -> None:
    """Write and print `run`, and end the command with a code that tells what was wrong with it.

    Raises:
        typer.Exit: it was stopped by hand (130), or an output is wrong, a contender failed, or one became too slow (1).
    """
    if outcome.json is not None:
        write_run(outcome.json, run)
    show_run(run)
    show_profiles(run)
    show_sweep(run, outcome.budget_ms)
    comparison = None if outcome.old is None else compare(run, outcome.old)
    if comparison is not None:
        show_changes(comparison)
    if outcome.html is not None:
        write_html(outcome.html, run, outcome.artifacts)
    if outcome.json is not None:
        console.print(f"every sample is in {outcome.json}", soft_wrap=True)
    if run.interrupted:
        report_error("interrupted; the samples so far are kept")
        raise typer.Exit(INTERRUPTED)
    if faults := list_faults(run, comparison, outcome.fail_over):
        report_error("\n".join(faults))
        raise typer.Exit(1)


def write_html(path: Path, run: BenchRun, artifacts: Sequence[Path]) -> None:
    """Write `run` as a page for the browser, with what the manifests of `artifacts` tell.

    Raises:
        StorageError: a file cannot be written.
    """
    if not run.contenders:
        return
    contenders = timed_contenders(run, artifacts)
    title = f"{contenders[0].network}: {len(contenders)} contenders timed"
    data = ReportData(title, run.created, contenders, run=run, environment=environment(run), notes=run.warnings)
    page, *_ = write_report(path, data)
    console.print(f"report in {page}", soft_wrap=True)


def list_faults(run: BenchRun, comparison: Comparison | None, fail_over: float | None) -> list[str]:
    """What makes the command fail, in words; empty: nothing."""
    faults = [
        f"{row.contender} ({row.setting}): wrong output"
        for row in run.measurements
        if row.check is not None and not row.check.passed
    ]
    faults += [
        f"{row.contender} ({row.setting}) ended early: {row.error}" for row in run.measurements if row.error is not None
    ]
    if comparison is not None and fail_over is not None:
        faults += [
            f"{change.contender} ({change.setting}) became {change.percent:.1f} % slower, more than {fail_over:g} %"
            for change in comparison.beyond(fail_over)
        ]
    return faults


def chosen_grid(batch: str | None, shape: str | None, threads: str, streams: str) -> Grid:
    """The settings to time, from lists as they are typed."""
    return Grid(
        batches=() if batch is None else parse_numbers(batch, "--batch"),
        sizes=() if shape is None else parse_sizes(shape, "--shape"),
        threads=parse_numbers(threads, "--threads"),
        streams=parse_numbers(streams, "--streams"),
    )


@app.command()
@run_command
def command(
    artifacts: Annotated[list[Path] | None, typer.Argument(help="Exported files: .onnx or .engine.")] = None,
    config: Annotated[str | None, typer.Option(help="Config name or file: time the PyTorch network too.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="File, 'published', 'bundled' or 'random'.")] = None,
    torch_forms: Annotated[
        str, typer.Option("--torch", help="Its forms: published, reparameterized, channels-last, amp, fp16, compiled.")
    ] = "published,reparameterized",
    device: Annotated[str, typer.Option(help="PyTorch device: cpu, cuda, cuda:1, ...")] = "cpu",
    runtime: Annotated[
        str, typer.Option(help="For .onnx: onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt, openvino.")
    ] = "onnxruntime",
    baseline: Annotated[
        str | None, typer.Option(help="Part of the name of the contender to compare with; by default the first.")
    ] = None,
    batch: Annotated[str | None, typer.Option(metavar="N,N", help="Batch sizes.")] = None,
    shape: Annotated[str | None, typer.Option(metavar="HxW,HxW", help="Input sizes in pixels.")] = None,
    threads: Annotated[str, typer.Option(metavar="N,N", help="CPU threads within a call; 0: all cores.")] = "0",
    streams: Annotated[str, typer.Option(metavar="N,N", help="Calls in flight at a time.")] = "1",
    clock: Annotated[Content, typer.Option(help="What the clock holds.")] = Content.NETWORK,
    seconds: Annotated[float, typer.Option(help="Time each contender for at least this long.")] = 3.0,
    samples: Annotated[int, typer.Option(help="And at least this often.")] = 50,
    rounds: Annotated[int, typer.Option(help="Turns of each contender.")] = 50,
    warmup: Annotated[float, typer.Option(help="Warm-up of each contender, milliseconds.")] = 200.0,
    queue: Annotated[int, typer.Option(help="Calls given in a row before waiting (back-to-back throughput).")] = 1,
    cuda_graph: Annotated[bool, typer.Option(help="CUDA graphs in TensorRT engines.")] = True,
    trust_engine: Annotated[
        bool, typer.Option("--trust-engine", help="Run engines that no manifest vouches for: they are code.")
    ] = False,
    image: Annotated[Path | None, typer.Option(help="Image to time with; by default a packaged street scene.")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Pixels, percent, that must have the baseline's label.")
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also time the layers.")] = False,
    latency_budget: Annotated[float | None, typer.Option(help="Milliseconds: find the best point within.")] = None,
    old: Annotated[Path | None, typer.Option("--compare", help="JSON of an earlier run.")] = None,
    fail_over: Annotated[float | None, typer.Option(help="Fail where slower than that by more percent.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the run with every sample here.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a report for the browser here.")] = None,
) -> None:
    """Time artefacts and the PyTorch network against each other, with the spread of every number."""
    if checkpoint is not None and config is None:
        raise OptionError("--checkpoint goes with --config; an artefact brings its own weights")
    outcome = Outcome(
        artifacts or (), json_file, html, None if old is None else read_run(old), fail_over, latency_budget
    )
    grid = chosen_grid(batch, shape, threads, streams)
    method = Method(clock, warmup, seconds=seconds, samples=samples, rounds=rounds, queue=queue)
    options = BenchOptions(grid, chosen_picture(image), method, profile, min_agreement)
    opening = ArtifactOptions(parse_choices(runtime, Runtime, "--runtime"), trust_engine, cuda_graph)
    forms = parse_choices(torch_forms, TorchForm, "--torch")
    with progress_bar() as downloaded:
        torch = None
        if config is not None:
            torch = TorchSource(config, chosen_checkpoint(checkpoint, Path(config).stem), device, downloaded)
        candidates = baseline_first(all_candidates(artifacts or [], opening, torch, forms), baseline)
        with progress_bar("timing") as progress:
            run = bench(candidates, options, progress=progress)
    finish(run, outcome)


def main() -> None:
    """Entry point of ``ffnet-bench``."""
    app()
