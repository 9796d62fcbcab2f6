"""``ffnet-eval``: the scores of a network, or of what was exported from it, on labelled images."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

from rich.table import Table

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.artifacts.manifest import read_manifest
from ffnet_deploy.benchmark.files import read_run
from ffnet_deploy.benchmark.record import BenchRun
from ffnet_deploy.cli.console import FLAT, ExitCode, console, make_app, progress_bar, report_note, run_command
from ffnet_deploy.cli.options import (
    CFG_OPTIONS,
    DATA,
    ENGINE,
    EVERYDAY,
    MAX_THREADS,
    OUTPUT,
    PROTOCOL,
    DataFlags,
    SaveFlags,
    check_at_most,
    check_numbers,
    choice,
    claim_report,
    inherited,
    option,
    parameters,
    parse_sides,
)
from ffnet_deploy.cli.zoo import beside_published, zoo_table
from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import MAX_BATCH, Contract, TestProtocol
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.core.files import sha256
from ffnet_deploy.engines.backend import Backend, Provider, backend_of
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.source import RunOptions, Source
from ffnet_deploy.evaluation.datasets import Dataset, open_images
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, Evaluation, write_evaluation
from ffnet_deploy.evaluation.parallel import EnginePool, PoolEngine, World, evaluate_in_world
from ffnet_deploy.evaluation.prediction_files import SaveOptions
from ffnet_deploy.evaluation.protocol import MULTI_SCALE, PredictOptions
from ffnet_deploy.evaluation.scores import MiouLimit
from ffnet_deploy.report.builder import ReportBuilder
from ffnet_deploy.report.data import DEFAULT_LIMIT, CandidateResults
from ffnet_deploy.report.format import NOTHING, percent, points, share
from ffnet_deploy.report.gallery import GalleryOptions
from ffnet_deploy.report.gate import limit_in_words, within
from ffnet_deploy.report.training import LearningCurve, learning_curve
from ffnet_deploy.report.write import write_report

app = make_app("ffnet-eval", "Score an exported network, or a config with its checkpoint, by the published protocol.")


class Mode(str, Enum):
    """Whole images, or sliding windows."""

    WHOLE = "whole"
    SLIDE = "slide"


@parameters(
    checkpoint=option(EVERYDAY, "FILE"),
    backend=choice(Backend, EVERYDAY),
    refresh=option(ENGINE),
    cfg_options=CFG_OPTIONS,
    device=option(ENGINE),
    provider=choice(Provider, ENGINE),
    threads=option(ENGINE),
    trust_engine=option(ENGINE),
    engine_cache=option(ENGINE, "FOLDER"),
)
@dataclass(frozen=True)
class RunFlags(RunOptions):
    """The weights of a network, and where it runs, as the command line describes them."""

    def __post_init__(self) -> None:
        check_at_most([self.threads], MAX_THREADS, "--threads")

    def source_of(self, artifact: Path | None, config: str | None) -> Source:
        """The network of an artefact, or of a config.

        Raises:
            OptionError: the options do not go together.
        """
        run = inherited(self, RunOptions)
        if self.device is not None and self.device.partition(":")[0].lower() == "tensorrt":
            run |= {"device": f"cuda{self.device[len('tensorrt') :]}", "provider": Provider.TENSORRT}
            report_note(f"--device {self.device} is now written --device {run['device']} --provider tensorrt")
        return Source(**run, artifact=artifact, config=config)


@dataclass(frozen=True)
class NetworkFlags(RunFlags):
    """The network to score, and where it runs."""

    artifact: Annotated[Path | None, option(EVERYDAY, "FILE")] = None
    """Exported ONNX graph or engine to score."""
    config: Annotated[str | None, option(EVERYDAY, "NAME")] = None
    """Config name, or a config file (a Python file: it is run), to score the PyTorch network."""
    zoo: Annotated[bool, option(EVERYDAY)] = False
    """List the published and bundled networks with their mIoU and which of them are here, and stop."""

    def source(self) -> Source:
        """The network to score.

        Raises:
            OptionError: the options do not go together.
        """
        return self.source_of(self.artifact, self.config)


@dataclass(frozen=True)
class ProtocolFlags:
    """How an image is shown to the network."""

    multi_scale: Annotated[bool, option(PROTOCOL)] = False
    """Average the predictions at the scales 0.5, 0.75, 1, 1.25, 1.5 and 1.75 (test-time augmentation)."""
    flip: Annotated[bool, option(PROTOCOL)] = False
    """Average with the prediction of the mirrored image (test-time augmentation)."""
    mode: Annotated[Mode | None, choice(Mode, PROTOCOL)] = None
    """Show whole images or sliding windows. By default the mode that the network was published with."""
    crop: Annotated[str | None, option(PROTOCOL, "HEIGHTxWIDTH")] = None
    """Size of a sliding window in pixels."""
    stride: Annotated[str | None, option(PROTOCOL, "HEIGHTxWIDTH")] = None
    """Step between sliding windows in pixels. By default two thirds of the window."""
    batch: Annotated[int, option(PROTOCOL)] = 4
    """Largest number of windows or scales that run together."""

    def __post_init__(self) -> None:
        check_at_most([self.batch], MAX_BATCH, "--batch")

    def options(self, own: TestProtocol, limit: int | None, save: SaveOptions) -> EvaluateOptions:
        """How to score a network whose own protocol is `own`.

        Raises:
            OptionError: windows are described for whole images, or sliding lacks a crop size.
        """
        protocol = chosen_protocol(own, self.mode, parse_size(self.crop, "--crop"), parse_size(self.stride, "--stride"))
        return EvaluateOptions(protocol, self.augmentation(), limit, save)

    def augmentation(self) -> PredictOptions:
        """The scales and mirror images to average.

        Raises:
            OptionError: the batch is none.
        """
        return PredictOptions(MULTI_SCALE if self.multi_scale else (1.0,), self.flip, self.batch)


@dataclass(frozen=True)
class ResultFlags:
    """How much to score, what to compare with, and what to write."""

    limit: Annotated[int | None, option(DATA, "N")] = None
    """Score the first N images only."""
    json: Annotated[Path | None, option(EVERYDAY, "FILE")] = None
    """Write the scores to this JSON file."""
    html: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """Write a report for the browser to this .html file."""
    against: Annotated[tuple[Path, ...], option(OUTPUT, "FILE")] = ()
    """Another artefact to score on the same images and to compare. May be repeated."""
    max_drop: Annotated[float | None, option(OUTPUT, "POINTS")] = None
    """Fail where the mIoU of an --against artefact is lower by more points than this."""
    tier: Annotated[float | None, option(OUTPUT, "PERCENT")] = None
    """Fail where an --against artefact keeps less of the first one's mIoU: 99.9 and 99 are MLPerf's accuracy tiers."""
    bench: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """JSON file of ffnet-bench whose times the report shows too."""
    pictures: Annotated[int, option(OUTPUT, "N")] = 12
    """Number of images in the report's gallery."""
    work_dir: Annotated[Path | None, option(OUTPUT, "FOLDER")] = None
    """Work folder of ffnet-train whose learning curve the report shows. By default the folder of --checkpoint."""
    resume: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """Keep the score of each image in this file, and continue from it where an earlier run was interrupted."""
    processes: Annotated[int, option(ENGINE, "N")] = 1
    """Number of processes that share the images, for runtimes on the CPU. For GPUs use torchrun."""

    def __post_init__(self) -> None:
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            raise OptionError(f"--max-drop takes points from 0: got {self.max_drop}")
        if self.tier is not None and self.max_drop is not None:
            raise OptionError("--tier and --max-drop are two limits for one fall of mIoU: give one")
        check_numbers(self)
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit takes a number of images from 1: got {self.limit}")
        if self.bench is not None and self.html is None:
            raise OptionError("--bench goes with --html: the report shows its times")
        if self.work_dir is not None and self.html is None:
            raise OptionError("--work-dir goes with --html: the report shows its learning curve")
        if self.gate is not None and not self.against:
            raise OptionError("--max-drop and --tier compare with another artefact: add --against FILE")
        check_at_most([self.processes], MAX_THREADS, "--processes")
        if self.html is not None or self.against:
            shared = "--processes" if self.processes > 1 else "torchrun" if World.of_environment().size > 1 else None
            if shared or self.resume is not None:
                raise OptionError(
                    f"{shared or '--resume'} keeps scores and no predictions, which --html and --against compare.\n"
                    "  to do    score each artefact by itself, or without it"
                )

    @property
    def gate(self) -> MiouLimit | None:
        """How far the mIoU of an --against artefact may fall; None: any fall is accepted.

        Raises:
            OptionError: the tier is no share.
        """
        if self.tier is not None:
            return MiouLimit(DEFAULT_LIMIT.points, self.tier)
        return None if self.max_drop is None else MiouLimit(self.max_drop)

    def claim(self, outputs: Outputs) -> None:
        """Check that all files may be written.

        Raises:
            OptionError: one is an input or another output, or is there already and not the toolkit's.
            StorageError: a folder cannot be written.
        """
        outputs.claim(self.json, Kind.SCORES)
        outputs.claim(self.resume, Kind.EVALUATION_STATE)
        claim_report(outputs, self.html, (self.json, self.bench))

    def read_bench(self) -> BenchRun | None:
        """The run of the benchmark, where one is named.

        Raises:
            ArtifactError: it is missing, damaged or of another version.
        """
        return None if self.bench is None else read_run(self.bench)

    def read_training(self, checkpoint: str | None) -> LearningCurve | None:
        """The learning curve of ``--work-dir``, or of the run that wrote the file `checkpoint`, for the report.

        Raises:
            OptionError, ArtifactError: ``--work-dir`` holds no records, or they are damaged.
        """
        if self.work_dir is None:
            weights = Path(checkpoint or "")
            return learning_curve(weights.parent) if self.html is not None and weights.is_file() else None
        if (found := learning_curve(self.work_dir)) is None:
            raise OptionError(f"--work-dir {self.work_dir} holds no records of ffnet-train")
        return found


@app.default
def command(
    *,
    network: Annotated[NetworkFlags, FLAT] = NetworkFlags(),
    data: Annotated[DataFlags, FLAT] = DataFlags(),
    protocol: Annotated[ProtocolFlags, FLAT] = ProtocolFlags(),
    result: Annotated[ResultFlags, FLAT] = ResultFlags(),
    save: Annotated[SaveFlags, FLAT] = SaveFlags(),
) -> int:
    """Score a network, and others against it; write what was found, then print it."""
    if network.zoo:
        console.print(zoo_table())
        report_note("--config NAME --checkpoint published downloads what is not here")
        return ExitCode.DONE
    data.allow_pixels()
    world = World.of_environment()
    source = network.source() if world.size == 1 else own_device(network.source(), world)
    if data.data is None and data.images is None:
        raise OptionError("give either --data ROOT (labelled images) or --images DIR (to predict only)")
    protocol.augmentation()
    saved = save.options(labelled=data.images is None)
    run, training = result.read_bench(), result.read_training(source.checkpoint)
    outputs = Outputs(*source.files, *result.against, result.bench, result.work_dir, *data.files)
    result.claim(outputs)
    for folder in saved.folders:
        outputs.claim_folder(folder)
    outputs.claim_folder(network.engine_cache)
    scored: list[Scored] = []
    gallery = GalleryOptions(count=result.pictures if result.html is not None else 0)
    comparison = ReportBuilder(gallery, compares=bool(result.against), training=training)

    def chosen(contract: Contract) -> tuple[Dataset, EvaluateOptions]:
        samples = chosen_samples(data, contract, saved.folders)
        return samples, replace(protocol.options(contract.protocol, result.limit, saved), state=result.resume)

    try:
        if result.processes > 1:
            threads = source.threads or max((os.cpu_count() or 1) // result.processes, 1)
            with (
                EnginePool(replace(source, threads=threads).open, result.processes) as pool,
                progress_bar() as progress,
            ):
                samples, scoring = chosen(pool.engine.contract)
                scored.append(scored_alone(pool.evaluate(samples, scoring, progress), pool.engine, source))
        else:
            with progress_bar() as progress, source.open(progress) as engine:
                notes = take_its_sizes(engine, source, result.against)
                samples, scoring = chosen(engine.contract)
                if world.size > 1:
                    found = evaluate_in_world(engine, samples, scoring, world, progress)
                    scored += [] if found is None else [scored_alone(found, engine, source)]
                else:
                    evaluation = comparison.score(engine, samples, scoring, source.artifact, progress, notes)
                    scored.append(described(evaluation, engine, source, comparison, result.gate))
        unsaved = replace(scoring, save=SaveOptions())
        for path in result.against:
            other = beside(source, path)
            with other.open() as engine, progress_bar() as progress:
                evaluation = comparison.score(engine, samples, unsaved, path, progress)
                scored.append(described(evaluation, engine, other, comparison, result.gate))
    finally:  # what is scored is kept, whatever happens to the rest
        if scored:
            with stopping.deferred():
                write_scores(result.json, scored)
    if not scored:  # another process of torchrun's tells what was found
        return ExitCode.DONE
    page = write_page(result, comparison, run, source)
    show(scored, saved)
    if page is not None:
        console.print(page, soft_wrap=True)
    if result.gate is not None:
        check_drop(comparison, result.gate)
    return ExitCode.SKIPPED if any(one.evaluation.skipped for one in scored) else ExitCode.DONE


@dataclass(frozen=True)
class Scored:
    """What was found of one network.

    Attributes:
        evaluation: Scores of the engine.
        about: What was scored, for the JSON file.
        comparison: How it compares with the first engine, in a line; empty for the first.
    """

    evaluation: Evaluation
    about: dict[str, Any]
    comparison: str = ""

    @property
    def published(self) -> str:
        """How far its mIoU is from the one that the network is known to have, in a line; empty where none is known."""
        return beside_published(self.about["network"], self.evaluation)


def chosen_samples(data: DataFlags, contract: Contract, written: Sequence[Path]) -> Dataset:
    """The labelled split, or the images but for those below the folders `written`.

    Raises:
        DataError: they cannot be used, or the classes of the data are not those of `contract`.
    """
    labelled = data.labelled(contract.dataset, contract.classes)
    if labelled is None:
        assert data.images is not None  # one of the two is given
        return open_images(data.images, leave_out=written)
    for note in labelled.notes:
        report_note(note)
    return labelled


def described(
    evaluation: Evaluation, engine: Engine, source: Source, comparison: ReportBuilder, gate: MiouLimit | None
) -> Scored:
    """`evaluation`, the last of `comparison`, with what was scored and how it compares with the first."""
    if comparison.agreement is None:
        return Scored(evaluation, about(engine, source))
    accuracy = comparison.candidates[-1].accuracy
    difference = accuracy.difference if accuracy else None
    details = {**about(engine, source), "agreement": comparison.agreement}
    if difference is not None:
        details["difference"] = difference.to_dict()
        if gate is not None:
            holds = within(gate, comparison.candidates[0], comparison.candidates[-1])
            details["gate"] = {**gate.to_dict(), "passed": holds}
    return Scored(evaluation, details, comparison_line(comparison, evaluation))


def own_device(source: Source, world: World) -> Source:
    """`source` on the GPU of this process of torchrun's, where it runs on GPUs and names none."""
    on_gpus = source.device == "cuda" or (source.device is None and source.fitting_backend.runs_engines)
    return replace(source, device=f"cuda:{world.local_rank}") if on_gpus else source


def scored_alone(found: Evaluation, engine: Engine | PoolEngine, source: Source) -> Scored:
    """What several processes found together, which is compared with nothing."""
    return Scored(replace(found, notes=tuple(dict.fromkeys((*engine.notes, *found.notes)))), about(engine, source))


def write_scores(path: Path | None, scored: Sequence[Scored]) -> None:
    """Write the first network's scores to `path`, with the others' as ``against``; nothing for None.

    Raises:
        StorageError: the file cannot be written.
    """
    first, *others = scored
    against = [{**one.evaluation.to_dict(), **one.about} for one in others]
    if path is not None:
        write_evaluation(path, first.evaluation, {**first.about, "against": against} if against else first.about)


def write_page(result: ResultFlags, comparison: ReportBuilder, run: BenchRun | None, source: Source) -> str | None:
    """Write the report, where one is asked for, and say where it is."""
    if result.html is None:
        return None
    artifacts = tuple(path for path in (source.artifact, *result.against) if path is not None)
    report = comparison.report(run=run, artifacts=artifacts, limit=result.gate or DEFAULT_LIMIT)
    return f"report in {', '.join(map(str, write_report(result.html, report, (result.json, result.bench))))}"


def parse_size(text: str | None, option: str) -> tuple[int, int] | None:
    """(height, width) from ``"1024"`` or ``"512x1024"``; None stays None."""
    return None if text is None else parse_sides(text, option)


def chosen_protocol(
    own: TestProtocol, mode: Mode | None, crop: tuple[int, int] | None, stride: tuple[int, int] | None
) -> TestProtocol:
    """The network's `own` protocol with what the options change.

    Raises:
        OptionError: windows are described for whole images, or sliding lacks a crop size.
    """
    chosen = mode.value if mode else own.mode
    if chosen == "whole":
        if crop or stride:
            raise OptionError("--crop and --stride belong to sliding windows: add --mode slide")
        return replace(own, mode="whole", crop=None, stride=None)
    crop = crop or own.crop
    if crop is None:
        raise OptionError("--mode slide needs --crop HEIGHTxWIDTH (and takes --stride, by default two thirds of it)")
    default = own.stride if own.crop == crop and own.stride else (-(-crop[0] * 2 // 3), -(-crop[1] * 2 // 3))
    return replace(own, mode="slide", crop=crop, stride=stride or default)


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


def beside(source: Source, path: Path) -> Source:
    """The source of a further artefact, with what of `source` applies to it."""
    device = source.device or ""
    if backend_of(path).runs_engines:
        return Source(
            artifact=path, device=device if device.startswith("cuda") else None, trust_engine=source.trust_engine
        )
    return Source(
        artifact=path,
        device=source.device,
        provider=source.provider,
        threads=source.threads,
        engine_cache=source.engine_cache,
    )


def comparison_line(comparison: ReportBuilder, found: Evaluation) -> str:
    """How the candidate that was scored last compares with the first, in a line."""
    first, last = comparison.candidates[0], comparison.candidates[-1]
    score = percent(found.scores.mean_iou) if found.scores else NOTHING
    change = f" ({change})" if (change := change_in_words(last)) else ""
    same = share(comparison.agreement)
    whom = first.artifact or first.name
    return f"{last.artifact} ({last.engine}): mIoU {score}{change}, {same} of the labels as {whom}"


def check_drop(comparison: ReportBuilder, limit: MiouLimit) -> None:
    """Hold what was compared to ``--max-drop`` or ``--tier``.

    Raises:
        VerificationError: the mIoU of one fell further than `limit` allows.
    """
    first, *others = comparison.candidates
    fallen = [one for one in others if one.scores is not None and not within(limit, first, one)]
    if fallen:
        lines = "".join(f"\n  found    {change_in_words(one)}  {one.artifact}" for one in fallen)
        raise VerificationError(
            f"mIoU is not {limit_in_words(limit, first.artifact or first.name)} "
            f"({'--max-drop' if limit.tier is None else '--tier'}):{lines}\n"
            "  to do    keep more layers in a higher precision, or allow more"
        )


def change_in_words(candidate: CandidateResults) -> str:
    """How the mIoU of a candidate differs from the first one's, with its interval; nothing where it was not scored."""
    found = candidate.accuracy.difference if candidate.accuracy else None
    if found is None:
        return ""
    low, high = found.interval
    return f"{points(found.mean_iou)} points, 95 % {points(low)} to {points(high)}, keeps {found.kept:.2f} %"


def about(engine: Engine | PoolEngine, source: Source) -> dict[str, Any]:
    """What was scored, for the JSON file."""
    return {
        "backend": source.fitting_backend.value,
        "engine": engine.name,
        "network": engine.contract.network,
        "artifact": None if source.artifact is None else str(source.artifact),
        "sha256": None if source.artifact is None else sha256(source.artifact),
        "sources": dict(engine.contract.sources),
    }


def show(scored: Sequence[Scored], saved: SaveOptions) -> None:
    """Print the scores of the first network, notes, speed, where the pictures are, and how the others compare."""
    first, *others = scored
    evaluation = first.evaluation
    if evaluation.scores is not None:
        console.print(score_table(evaluation))
        console.print(
            f"mIoU {evaluation.scores.mean_iou:.2f}  aAcc {evaluation.scores.pixel_accuracy:.2f}  "
            f"mAcc {evaluation.scores.mean_accuracy:.2f}"
        )
    for note in evaluation.notes:
        report_note(note)
    if first.published:
        console.print(first.published)
    console.print(f"{evaluation.images} images in {evaluation.seconds:.1f} s")
    show_saved(saved)
    for other in others:
        console.print(other.comparison, soft_wrap=True)
    show_skipped(evaluation)


def show_skipped(evaluation: Evaluation) -> None:
    """List the images that could not be read."""
    if evaluation.skipped:
        listed = "".join(f"\n  {reason}" for reason in evaluation.skipped)
        report_note(f"{len(evaluation.skipped)} images could not be read and are left out:{listed}")


def show_saved(saved: SaveOptions) -> None:
    """Print where the predictions are."""
    written = {"pictures": saved.images, "label maps": saved.labels, "probabilities": saved.scores}
    for what, folder in written.items():
        if folder is not None:
            console.print(f"{what} in {folder}", soft_wrap=True)


def score_table(evaluation: Evaluation) -> Table:
    """Per-class and mean scores, in percent."""
    assert evaluation.scores is not None
    table = Table("class", title=f"{evaluation.dataset} {evaluation.split}, {evaluation.images} images")
    for column in ("IoU", "Acc"):
        table.add_column(column, justify="right")
    for name, score in evaluation.scores.per_class.items():
        table.add_row(name, percent(score.iou), percent(score.accuracy))
    table.add_section()
    table.add_row("mean", percent(evaluation.scores.mean_iou), percent(evaluation.scores.mean_accuracy), style="bold")
    table.add_row("all pixels", "", percent(evaluation.scores.pixel_accuracy), style="bold")
    return table


def main() -> None:
    """Entry point of ``ffnet-eval``."""
    run_command(app)


if __name__ == "__main__":
    main()
