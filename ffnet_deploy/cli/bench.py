"""``ffnet-bench``: how fast artefacts and the PyTorch network are, side by side."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
from cyclopts import Parameter

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import (
    ArtifactOptions,
    Candidate,
    TorchSource,
    artifact_candidates,
    baseline_first,
    distinct,
    torch_candidates,
)
from ffnet_deploy.benchmark.compare import RunComparison, compare
from ffnet_deploy.benchmark.files import read_run, write_run
from ffnet_deploy.benchmark.nsight import Profiler
from ffnet_deploy.benchmark.record import BenchRun, TimingMethod, TimingScope
from ffnet_deploy.benchmark.steps import Picture
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.cli.bench_tables import show_changes, show_profiles, show_run, show_sweep
from ffnet_deploy.cli.console import (
    FLAT,
    ExitCode,
    console,
    make_app,
    progress_bar,
    report_error,
    report_note,
    run_command,
)
from ffnet_deploy.cli.options import (
    CFG_OPTIONS,
    DATA,
    ENGINE,
    EVERYDAY,
    MAX_STREAMS,
    MAX_THREADS,
    MEASUREMENT,
    OUTPUT,
    check_numbers,
    choice,
    claim_report,
    option,
    parse_choices,
    parse_numbers,
    parse_sizes,
    refresh_checkpoint,
)
from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import MAX_BATCH
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.backend import Backend, Provider, backend_of, gpu_index
from ffnet_deploy.engines.source import check_weights
from ffnet_deploy.engines.torch import TorchForm
from ffnet_deploy.evaluation.images import read_image, read_whole
from ffnet_deploy.evaluation.packaged import packaged_scenes
from ffnet_deploy.report import ReportData, write_report
from ffnet_deploy.report.builder import environment, timed_candidates
from ffnet_deploy.segmentor.overrides import read_config
from ffnet_deploy.segmentor.zoo import chosen_checkpoint

app = make_app(
    "ffnet-bench",
    "Time artefacts and the PyTorch network side by side, with the spread of every number.",
    "[ARTIFACTS...]",
)


@dataclass(frozen=True)
class CandidateFlags:
    """What is timed."""

    config: Annotated[str | None, option(EVERYDAY, "NAME")] = None
    """Config name or file: time the PyTorch network too."""
    checkpoint: Annotated[str | None, option(EVERYDAY, "FILE")] = None
    """Weights of the config: a file, 'published', 'bundled' or 'random'. By default the bundled ones."""
    backend: Annotated[str | None, option(EVERYDAY, "LIST")] = None
    """What runs the networks, with commas: torch, onnxruntime, openvino, trt, trt-rtx. By default what fits each."""
    device: Annotated[str | None, option(EVERYDAY)] = None
    """Where they run: cpu, cuda or cuda:N. By default the CPU, and for engines the first GPU."""
    refresh: Annotated[bool, option(ENGINE)] = False
    """With --checkpoint published: download it anew, whatever the cache holds."""
    cfg_options: Annotated[tuple[str, ...], CFG_OPTIONS] = ()
    """Change keys of the config, in mmengine's syntax, as model.decode_head.num_classes=19."""
    provider: Annotated[str | None, option(ENGINE, "LIST")] = None
    """Execution providers of ONNX Runtime, each timed: cpu, cuda, tensorrt. By default the one of the device."""
    torch_forms: Annotated[str, option(ENGINE, "LIST")] = "published,reparameterized"
    """Forms of the PyTorch network: published, reparameterized, channels-last, amp, fp16, compiled, ..."""
    cuda_graph: Annotated[bool, option(ENGINE, negative="--no-cuda-graph")] = True
    """Let TensorRT engines launch a captured CUDA graph."""
    trust_engine: Annotated[bool, option(ENGINE)] = False
    """Run engines that have no manifest of this toolkit. Engines are executable code."""
    baseline: Annotated[str | None, option(MEASUREMENT, "NAME")] = None
    """Part of the name of the candidate that the others are compared with. By default the first."""
    torch: Annotated[str | None, Parameter(show=False)] = None
    """Old spelling of --torch-forms."""
    runtime: Annotated[str | None, Parameter(show=False)] = None
    """Old spelling of --backend and --provider."""

    def __post_init__(self) -> None:
        check_weights(self.config, self.checkpoint, self.refresh, self.cfg_options)
        if self.runtime is not None and (self.backend is not None or self.provider is not None):
            raise OptionError("--runtime is the old spelling of --backend and --provider: leave it out")

    def forms(self) -> tuple[TorchForm, ...]:
        """The forms of the PyTorch network to time.

        Raises:
            OptionError: one is unknown.
        """
        if self.torch is None:
            return parse_choices(self.torch_forms, TorchForm, "--torch-forms")
        report_note(f"--torch is now written --torch-forms {self.torch}")
        return parse_choices(self.torch, TorchForm, "--torch")

    def artifact_options(self, artifacts: Sequence[Path]) -> ArtifactOptions:
        """How `artifacts` are opened.

        Raises:
            OptionError: a backend or device fits none of them.
        """
        gpu = None if self.device is None else gpu_index(self.device)
        if self.runtime is not None:
            return self._old_options(self.runtime, gpu or 0)
        backends, providers = self._graph_backends(artifacts, gpu)
        return ArtifactOptions(backends, providers, self.trust_engine, self.cuda_graph, gpu or 0)

    def _old_options(self, text: str, device: int) -> ArtifactOptions:
        """`ArtifactOptions` from ``--runtime``: onnxruntime, onnxruntime-cuda, onnxruntime-tensorrt and openvino."""
        known = ("onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", "openvino")
        parts = [part.strip().lower() for part in text.split(",")]
        if not set(parts) <= set(known):
            raise OptionError(f"--runtime takes {', '.join(known)}, with commas between them: got {text!r}")
        split = [part.partition("-") for part in dict.fromkeys(parts)]
        backends = tuple(dict.fromkeys(Backend(name) for name, _, _ in split))
        providers = tuple(Provider(kind or "cpu") for name, _, kind in split if name == "onnxruntime")
        now = f"--backend {','.join(backend.value for backend in backends)}"
        if providers not in ((), (Provider.CPU,)):
            now += f" --provider {','.join(provider.value for provider in providers)}"
        report_note(f"--runtime {text} is now written {now}")
        return ArtifactOptions(backends, providers, self.trust_engine, self.cuda_graph, device)

    def _graph_backends(
        self, artifacts: Sequence[Path], gpu: int | None
    ) -> tuple[tuple[Backend, ...], tuple[Provider, ...]]:
        """Backends of the ONNX files, and the execution providers of ONNX Runtime."""
        asked = () if self.backend is None else parse_choices(self.backend, Backend, "--backend")
        kinds = {backend_of(path) for path in artifacts} | ({Backend.TORCH} if self.config is not None else set())
        for backend in asked:
            if backend not in kinds and not (backend.runs_graphs and Backend.ONNXRUNTIME in kinds):
                takes = {Backend.TORCH: "--config", Backend.TENSORRT: "a .engine file"}
                needed = takes.get(backend, "a .rtx.engine file" if backend.runs_engines else "an .onnx file")
                raise OptionError(f"--backend {backend.value} has nothing to run: give it {needed}")
        graphs = tuple(backend for backend in asked if backend.runs_graphs) or (Backend.ONNXRUNTIME,)
        if self.provider is not None and Backend.ONNXRUNTIME not in graphs:
            raise OptionError("--provider is ONNX Runtime's: add onnxruntime to --backend")
        providers: tuple[Provider, ...] = (Provider.CPU if gpu is None else Provider.CUDA,)
        if self.provider is not None:
            providers = parse_choices(self.provider, Provider, "--provider")
        if gpu is not None and graphs == (Backend.OPENVINO,):
            raise OptionError(f"OpenVINO runs on cpu, not {self.device!r}")
        return graphs, providers


@dataclass(frozen=True)
class MeasurementFlags:
    """At what settings it is timed, and how long."""

    batch: Annotated[str | None, option(EVERYDAY, "N,N")] = None
    """Batch sizes, with commas between them. By default what each was exported for."""
    shape: Annotated[str | None, option(EVERYDAY, "HxW,HxW")] = None
    """Input sizes in pixels, with commas between them. By default what each was exported for."""
    threads: Annotated[str, option(MEASUREMENT, "N,N")] = "0"
    """CPU threads within a call; 0 takes all cores."""
    streams: Annotated[str, option(MEASUREMENT, "N,N")] = "1"
    """Numbers of calls that are in flight at the same time."""
    clock: Annotated[str, option(MEASUREMENT, "SCOPE")] = "network"
    """What is timed: network (alone), device (copies too), end-to-end (image to labels), file (with decoding)."""
    seconds: Annotated[float, option(MEASUREMENT)] = 3.0
    """Minimum time in seconds for which each candidate is timed."""
    samples: Annotated[int, option(MEASUREMENT)] = 50
    """Minimum number of samples per candidate."""
    rounds: Annotated[int, option(MEASUREMENT)] = 50
    """Minimum number of rounds; the order of the candidates is reshuffled in each."""
    warmup: Annotated[float, option(MEASUREMENT, "MS")] = 200.0
    """Warm-up of each candidate in milliseconds."""
    queue: Annotated[int, option(MEASUREMENT, "N")] = 1
    """Number of calls that are enqueued before waiting for the last (back-to-back throughput)."""
    image: Annotated[Path | None, option(DATA, "FILE")] = None
    """Image to time with. By default a packaged street scene."""
    min_agreement: Annotated[float | None, option(MEASUREMENT, "PERCENT")] = None
    """Fail where fewer pixels than this have the baseline's label."""
    profile: Annotated[bool, option(MEASUREMENT)] = False
    """Also time each layer, and show where the time goes."""
    profile_with: Annotated[Profiler | None, choice(Profiler, MEASUREMENT)] = None
    """Mark each candidate's calls for a profiler: nsys (NVTX ranges, for nsys profile ffnet-bench ...)."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def options(self) -> BenchOptions:
        """What to measure.

        Raises:
            OptionError: a value is out of its range.
            DataError: the image cannot be read.
        """
        grid = Grid(
            batches=() if self.batch is None else parse_numbers(self.batch, "--batch", MAX_BATCH),
            sizes=() if self.shape is None else parse_sizes(self.shape, "--shape"),
            threads=parse_numbers(self.threads, "--threads", MAX_THREADS),
            streams=parse_numbers(self.streams, "--streams", MAX_STREAMS),
        )
        scopes = parse_choices(self.clock, TimingScope, "--clock")
        if len(scopes) != 1:
            raise OptionError(f"--clock takes one of its values: got {self.clock!r}")
        if self.clock.lower() == "transfers":
            report_note("--clock transfers is now written --clock device")
        method = TimingMethod(
            scopes[0],
            self.warmup,
            seconds=self.seconds,
            samples=self.samples,
            rounds=self.rounds,
            queue=self.queue,
        )
        picture = chosen_picture(self.image)
        return BenchOptions(grid, picture, method, self.profile, self.min_agreement, self.profile_with)


@dataclass(frozen=True)
class RecordFlags:
    """Files to write, and what makes the command fail."""

    json: Annotated[Path | None, option(EVERYDAY, "FILE")] = None
    """Write the run with every sample to this JSON file."""
    html: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """Write a report for the browser to this .html file."""
    latency_budget: Annotated[float | None, option(OUTPUT, "MS")] = None
    """Find the best throughput whose 95th percentile of latency is within this budget."""
    compare: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """JSON file of an earlier run to compare with."""
    fail_over: Annotated[float | None, option(OUTPUT, "PERCENT")] = None
    """Fail where a candidate became slower than in the --compare run by more than this."""

    def __post_init__(self) -> None:
        if self.fail_over is not None and self.compare is None:
            raise OptionError("--fail-over needs a run to compare with: add --compare OLD.json")
        if self.fail_over is not None and not 0 <= self.fail_over < float("inf"):
            raise OptionError(f"--fail-over takes percent from 0: got {self.fail_over}")
        check_numbers(self)
        if self.latency_budget is not None and not 0 < self.latency_budget < float("inf"):
            raise OptionError(f"--latency-budget takes milliseconds above 0: got {self.latency_budget}")

    def claim(self, outputs: Outputs) -> None:
        """Check that all files may be written.

        Raises:
            OptionError: one is an input or another output, or is there already and not the toolkit's.
            StorageError: a folder cannot be written.
        """
        outputs.claim(self.json, Kind.BENCH)
        claim_report(outputs, self.html, (self.json, self.compare))

    def read_old(self) -> BenchRun | None:
        """The run to compare with, where one is named.

        Raises:
            ArtifactError: it is missing, damaged or of another version.
        """
        return None if self.compare is None else read_run(self.compare)


@app.default
def command(
    *artifacts: Annotated[Path, option(EVERYDAY, help="Exported files to time: .onnx or .engine.")],
    which: Annotated[CandidateFlags, FLAT] = CandidateFlags(),
    measurement: Annotated[MeasurementFlags, FLAT] = MeasurementFlags(),
    record: Annotated[RecordFlags, FLAT] = RecordFlags(),
) -> int:
    """Time what is named, and hold it to what it may cost."""
    old = record.read_old()
    options = measurement.options()
    named = (which.config and Path(which.config), which.checkpoint and Path(which.checkpoint))
    record.claim(Outputs(*artifacts, *(path for path in named if path), measurement.image, record.compare))
    opening = which.artifact_options(artifacts)
    with progress_bar() as downloaded:
        torch = None
        if which.config is not None:
            config = read_config(which.config, which.cfg_options)
            checkpoint = chosen_checkpoint(which.checkpoint, Path(which.config).stem)
            refresh_checkpoint(which.refresh, which.checkpoint, Path(which.config).stem, downloaded)
            torch = TorchSource(config, checkpoint, which.device or "cpu", downloaded)
        candidates = all_candidates(artifacts, opening, torch, which.forms())
        candidates = baseline_first(candidates, which.baseline)
        with progress_bar("timing") as progress:
            run = bench(candidates, options, progress=progress)
    return finish(run, artifacts, record, old)


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


def finish(run: BenchRun, artifacts: Sequence[Path], record: RecordFlags, old: BenchRun | None) -> int:
    """Write `run`, then print it; the exit code tells what was wrong with it."""
    if record.json is not None:
        write_run(record.json, run)
    comparison = None if old is None else compare(run, old)
    page = None if record.html is None else write_html(record.html, run, artifacts, (record.json, record.compare))
    show_run(run)
    show_profiles(run)
    show_sweep(run, record.latency_budget)
    if comparison is not None:
        show_changes(comparison)
    if page is not None:
        console.print(f"report in {page}", soft_wrap=True)
    if record.json is not None:
        console.print(f"every sample is in {record.json}", soft_wrap=True)
    if run.interrupted:
        report_error("interrupted; the samples so far are kept")
        return ExitCode(stopping.exit_code(stopping.requested() or signal.SIGINT))
    if faults := list_faults(run, comparison, record.fail_over):
        report_error("\n".join(faults))
        return ExitCode.FAILED
    return ExitCode.DONE


def write_html(path: Path, run: BenchRun, artifacts: Sequence[Path], taken: Sequence[Path | None] = ()) -> Path | None:
    """Write `run` as a page for the browser, with what the manifests of `artifacts` tell; None: nothing was timed.

    Raises:
        StorageError: a file cannot be written.
    """
    if not run.candidates:
        return None
    candidates = timed_candidates(run, artifacts)
    title = f"{candidates[0].network}: {len(candidates)} candidates timed"
    data = ReportData(title, run.created, candidates, run=run, environment=environment(run), notes=run.warnings)
    page, *_ = write_report(path, data, taken)
    return page


def list_faults(run: BenchRun, comparison: RunComparison | None, fail_over: float | None) -> list[str]:
    """What makes the command fail, in words; empty: nothing."""
    faults = [
        f"{row.candidate} ({row.setting}): wrong output"
        for row in run.measurements
        if row.check is not None and not row.check.passed
    ]
    faults += [
        f"{row.candidate} ({row.setting}) ended early: {row.error}" for row in run.measurements if row.error is not None
    ]
    if comparison is not None and fail_over is not None:
        faults += [
            f"{change.candidate} ({change.setting}) became {change.percent:.1f} % slower, more than {fail_over:g} %"
            for change in comparison.beyond(fail_over)
        ]
    return faults


def main() -> None:
    """Entry point of ``ffnet-bench``."""
    run_command(app)


if __name__ == "__main__":
    main()
