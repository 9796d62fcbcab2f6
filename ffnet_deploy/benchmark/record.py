"""One run of the benchmark as a file: every sample, what was computed from them, and on what machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ffnet_deploy.core.decoding import ADDED
from ffnet_deploy.core.errors import OptionError

Samples = tuple[float, ...]
"""Times in milliseconds, in the order they were taken."""


class TimingScope(str, Enum):
    """What lies between the start and the stop of the clock."""

    NETWORK = "network"
    """The network alone; on a GPU, input and output stay in its memory."""
    DEVICE = "device"
    """The network with the copies from and to host memory, page-locked where the runtime offers that; on a CPU, the
    network alone."""
    END_TO_END = "end-to-end"
    """From a decoded image to a label map at the image's size: resizing, normalising, copies, network, enlargement and
    argmax."""
    FILE = "file"
    """From the bytes of a JPEG or PNG file in memory to a label map: decoding, then all of `END_TO_END`."""

    @classmethod
    def _missing_(cls, value: object) -> "TimingScope | None":
        return cls.DEVICE if value == "transfers" else None  # its name until version 0.1.0

    @property
    def sentence(self) -> str:
        """What is timed, in words."""
        return {
            TimingScope.NETWORK: "network only",
            TimingScope.DEVICE: "network, and copies to and from the device",
            TimingScope.END_TO_END: "resizing, normalising, copies, network, enlargement and argmax of a decoded image",
            TimingScope.FILE: "decoding, resizing, normalising, copies, network, enlargement and argmax",
        }[self]


class Verdict(str, Enum):
    """How a candidate compares with another."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no difference"
    """None that the samples prove, or one too small to matter."""
    WRONG = "wrong output"
    """Its output is not that of the baseline, so its time says nothing."""


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a number, of probability `level` (0..1)."""

    low: float
    high: float
    level: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Setting:
    """The point of a sweep at which a candidate was timed.

    Attributes:
        batch: Images per call.
        height: Height of the input, pixels.
        width: Width of the input, pixels.
        threads: CPU threads within a call; 0 uses all cores.
        streams: Calls in flight at a time.
    """

    batch: int = 1
    height: int = 512
    width: int = 512
    threads: int = 0
    streams: int = 1

    def __str__(self) -> str:
        parts = [f"{self.batch}x{self.height}x{self.width}"]
        parts += [f"{self.threads} thread{'s' * (self.threads > 1)}"] if self.threads else []
        parts += [f"{self.streams} streams"] if self.streams > 1 else []
        return ", ".join(parts)


@dataclass(frozen=True)
class TimingMethod:
    """How the samples were taken.

    Attributes:
        scope: What lies between the start and the stop of the clock.
        warmup_ms: Minimum duration of the warm-up of each candidate, milliseconds.
        warmup_runs: Minimum number of calls of the warm-up.
        seconds: Minimum time for which each candidate is timed.
        samples: Minimum number of samples per candidate.
        rounds: Minimum number of rounds; the order of the candidates is reshuffled in each.
        settle_ms: Duration of uncounted calls at the start of a turn, for candidates whose calls are shorter than that.
        seed: Seed of the order and of the bootstrap.
        queue: Calls that are submitted before the device is waited for; a sample is their time divided by this number.
    """

    scope: TimingScope = TimingScope.NETWORK
    warmup_ms: float = 200.0
    warmup_runs: int = 3
    seconds: float = 3.0
    samples: int = 50
    rounds: int = 50
    settle_ms: float = 5.0
    seed: int = 0
    queue: int = 1

    def __post_init__(self) -> None:
        for name in ("warmup_runs", "samples", "rounds", "queue"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} must be at least 1: got {getattr(self, name)}")
        for name in ("warmup_ms", "seconds", "settle_ms"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise OptionError(f"{name} must be a time from 0: got {getattr(self, name)}")
        if self.queue > 1 and self.scope is not TimingScope.NETWORK:
            raise OptionError("calls are queued for the network alone: copies wait for each other")


@dataclass(frozen=True)
class Summary:
    """What was computed from the samples; all times in milliseconds.

    Attributes:
        count: Number of samples.
        median: Median of all samples.
        median_interval: Its confidence interval, resampled by rounds; None where there were too few rounds.
        mean: Arithmetic mean.
        minimum: Fastest sample.
        maximum: Slowest sample.
        p90: 90th percentile.
        p95: 95th percentile.
        p99: 99th percentile.
        spread: Standard deviation in percent of the mean.
    """

    count: int
    median: float
    median_interval: Interval | None
    mean: float
    minimum: float
    maximum: float
    p90: float
    p95: float
    p99: float
    spread: float


@dataclass(frozen=True)
class Ratio:
    """Median time as a multiple of another candidate's: below 1 is faster.

    Attributes:
        against: Name of the other candidate, which was timed in the same rounds.
        value: Ratio of the medians.
        interval: Interval of `value`; rounds are resampled jointly, so that drift of the machine affects both alike.
        verdict: Faster or slower only where a far stricter interval excludes 1 too.
    """

    against: str
    value: float
    interval: Interval | None
    verdict: Verdict


@dataclass(frozen=True)
class OutputCheck:
    """A candidate's output beside another's, for the same images.

    Attributes:
        against: Name of the other candidate.
        agreement: Pixels with the same label, percent.
        relative: Largest difference of a value, relative to the largest magnitude; None for label maps.
        least: Agreement, percent, below which the output counts as wrong; 0 judges finite values only.
        passed: Whether the output counts as right.
    """

    against: str
    agreement: float
    relative: float | None
    least: float
    passed: bool


@dataclass(frozen=True)
class ProfileRow:
    """A layer, or all layers of one block of the network, in a profile.

    Attributes:
        name: Name of the layer or block.
        block: Part of FFNet that it belongs to, for instance ``"stage 3 token mixer"``.
        operator: What it computes; empty for a block.
        milliseconds: Mean time per call.
        share: Part of the whole call, percent.
        flops: Floating-point (or integer) operations per call, two for a multiply-add; None where unknown.
        bytes: Minimum memory traffic, every tensor read or written once; None where unknown.
        limit_ms: Minimum time that the device's peaks allow.
        bound: What sets that limit: ``"compute"`` or ``"memory"``.
        of_limit: `limit_ms` in percent of `milliseconds`: 100 is the roofline.
    """

    name: str
    block: str
    operator: str
    milliseconds: float
    share: float
    flops: float | None = None
    bytes: float | None = None
    limit_ms: float | None = None
    bound: str | None = None
    of_limit: float | None = None


@dataclass(frozen=True)
class Peaks:
    """The most that a device can do.

    Attributes:
        flops: Operations per second in the candidate's precision.
        bytes: Memory traffic, bytes per second.
        source: Where the numbers come from.
    """

    flops: float
    bytes: float
    source: str


@dataclass(frozen=True)
class LayerProfile:
    """Where the time of a call goes. Profiling costs time itself: compare layers, not totals with the timings.

    Attributes:
        tool: Profiler that measured it.
        runs: Number of calls that were averaged.
        layers: Layers in the order of execution.
        blocks: Sums over the layers of each block, in the order of the network.
        peaks: Peaks of the device that the limits rest on.
    """

    tool: str
    runs: int
    layers: tuple[ProfileRow, ...]
    blocks: tuple[ProfileRow, ...]
    peaks: Peaks | None = None


@dataclass(frozen=True)
class CandidateInfo:
    """What was timed.

    Attributes:
        name: Name that is unique in the run.
        engine: Runtime, version and device.
        precision: What it computes in, for instance ``"fp32"`` or ``"int8"``.
        network: Name of the config.
        artifact: File name; None where the network was built in memory.
        sha256: SHA-256 of that file.
        notes: Remarks about its results.
    """

    name: str
    engine: str
    precision: str
    network: str
    artifact: str | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TimingResult:
    """One candidate at one setting.

    Attributes:
        candidate: Name of the candidate.
        setting: Point of the sweep.
        rounds_ms: Every sample by the host's clock, one tuple per round.
        device_ms: Times of the same samples by the GPU's events, one tuple per round; empty without a GPU.
        wall_s: Time spent in the counted calls, all streams together.
        summary: Summary of `rounds_ms`; None where no sample was taken.
        device_summary: Summary of `device_ms`.
        throughput: Images per second.
        ratio: Ratio to the baseline; None for the baseline itself.
        check: Comparison of the output with the baseline's; None for the baseline itself.
        profile: Where the time goes; None where it was not asked for, or is not possible.
        error: Why it ended early; the samples up to then are kept.
    """

    candidate: str
    setting: Setting
    rounds_ms: tuple[Samples, ...]
    device_ms: tuple[Samples, ...] = ()
    wall_s: float = 0.0
    summary: Summary | None = None
    device_summary: Summary | None = None
    throughput: float | None = None
    ratio: Ratio | None = None
    check: OutputCheck | None = None
    profile: LayerProfile | None = None
    error: str | None = None


@dataclass(frozen=True)
class Missing:
    """A candidate that could not start on this machine, and what to install."""

    candidate: str
    reason: str


@dataclass(frozen=True)
class CpuState:
    """A CPU at one moment.

    Attributes:
        model: Name of the processor.
        cores: Number of logical cores of the machine.
        affinity: Logical cores that this process may run on.
        governor: Governor of the clock frequency; None where it cannot be read.
        megahertz: Mean clock over all cores; None where it cannot be read.
        load: Load average over 1, 5 and 15 minutes.
    """

    model: str
    cores: int
    affinity: tuple[int, ...]
    governor: str | None
    megahertz: float | None
    load: tuple[float, float, float]


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment, as NVML tells; None where it does not.

    Attributes:
        index: Number of the device.
        name: Name of the device.
        driver: Version of the driver.
        sm_megahertz: Clock of the multiprocessors.
        memory_megahertz: Clock of the memory.
        watts: Power drawn.
        celsius: Temperature.
        throttle: Reasons why the clocks are reduced, in words; empty where they are not.
        memory_used: Memory in use by all processes, bytes.
        memory_total: Memory of the device, bytes.
        processes: Number of other processes that compute on it.
    """

    index: int
    name: str
    driver: str | None = None
    sm_megahertz: int | None = None
    memory_megahertz: int | None = None
    watts: float | None = None
    celsius: int | None = None
    throttle: tuple[str, ...] = ()
    memory_used: int | None = None
    memory_total: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class JetsonState:
    """A Jetson at one moment, as its own tools tell.

    Attributes:
        power_mode: Name of the mode of ``nvpmodel``, for instance ``"MAXN"``; None where it does not tell.
        clocks: Lines of ``jetson_clocks --show``, which needs root; empty where it does not tell.
    """

    power_mode: str | None = None
    clocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeviceState:
    """The machine at one moment.

    Attributes:
        cpu: The processor.
        gpus: The NVIDIA GPUs that NVML knows.
        notes: What could not be read, and why.
        jetson: Power mode and clocks; None where this is no Jetson.
    """

    cpu: CpuState
    gpus: tuple[GpuState, ...] = ()
    notes: tuple[str, ...] = ()
    jetson: JetsonState | None = field(default=None, metadata=ADDED)


@dataclass(frozen=True)
class BenchRun:
    """A whole run.

    Attributes:
        created: Time of its end, UTC, ISO 8601.
        method: How the samples were taken.
        candidates: What was timed; the first is the baseline.
        measurements: Results of every candidate at every setting.
        missing: Candidates that could not start on this machine.
        before: State of the machine before the first sample.
        after: State of the machine after the last sample.
        environment: Operating system, Python, and the environment variables that steer threads.
        versions: Versions of the packages that matter.
        warnings: What to know before trusting the numbers.
        interrupted: Whether the run was stopped early; the samples up to then are kept.
    """

    created: str
    method: TimingMethod
    candidates: tuple[CandidateInfo, ...]
    measurements: tuple[TimingResult, ...]
    missing: tuple[Missing, ...]
    before: DeviceState
    after: DeviceState
    environment: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def baseline(self) -> str | None:
        """Name of the candidate that all others are compared with."""
        return self.candidates[0].name if self.candidates else None
