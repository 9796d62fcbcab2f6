"""One run of the benchmark as a file: every sample, what was computed from them, and on what machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ffnet_deploy.core.errors import OptionError

Samples = tuple[float, ...]
"""Times in milliseconds, in the order they were taken."""


class Content(str, Enum):
    """What lies between the start and the stop of the clock."""

    NETWORK = "network"
    """The network alone, on input that lies where it is needed; on a GPU input and output stay in its memory."""
    TRANSFERS = "transfers"
    """The network with the copies to and from the device; on a CPU the same as the network alone."""
    END_TO_END = "end-to-end"
    """From an encoded image in memory to a label map at the image's size: decoding, resizing, normalising, copies,
    network, enlargement and argmax."""

    @property
    def sentence(self) -> str:
        """What the clock holds, in words."""
        return {
            Content.NETWORK: "network only",
            Content.TRANSFERS: "network, and copies to and from the device",
            Content.END_TO_END: "decoding, resizing, normalising, copies, network, enlargement and argmax",
        }[self]


class Verdict(str, Enum):
    """How a contender compares with another."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no difference"
    """None that the samples prove, or one too small to matter."""
    WRONG = "wrong output"
    """Its output is not that of the baseline, so its time says nothing."""


@dataclass(frozen=True)
class Interval:
    """Where a number lies with the probability `level` (0..1)."""

    low: float
    high: float
    level: float = 0.95

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Setting:
    """The point of a sweep at which a contender was timed.

    Attributes:
        batch: images per call.
        height: of the input, pixels.
        width: of the input, pixels.
        threads: CPU threads within a call; 0: all cores.
        streams: calls in flight at a time.
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
class Method:
    """How the samples were taken.

    Attributes:
        content: what the clock held.
        warmup_ms: each contender ran at least this long before its first sample, milliseconds,
        warmup_runs: and at least this often.
        seconds: each contender was timed for at least this long in all,
        samples: and at least this often,
        rounds: in at least so many turns, the order of the contenders drawn anew for each round.
        settle_ms: a turn begins with uncounted runs for about this long where its runs are much shorter.
        seed: of the order and of the resampling.
        queue: calls that a GPU is given in a row before it is waited for; a sample is their time divided by them.
    """

    content: Content = Content.NETWORK
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
        if self.queue > 1 and self.content is not Content.NETWORK:
            raise OptionError("calls are queued for the network alone: copies wait for each other")


@dataclass(frozen=True)
class Summary:
    """What was computed from the samples; all times in milliseconds.

    Attributes:
        count: number of samples.
        median: with its confidence interval, resampled by rounds.
        median_interval: None where there were too few rounds.
        mean: arithmetic.
        minimum: the fastest sample.
        maximum: the slowest sample.
        p90: 90th percentile; likewise `p95`, `p99`.
        p95: 95th percentile.
        p99: 99th percentile.
        spread: standard deviation in percent of the mean.
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
    """Median time as a multiple of another contender's: below 1 is faster.

    Attributes:
        against: name of the other contender, timed in the same rounds.
        value: ratio of the medians.
        interval: of `value`, rounds resampled jointly so that drift of the machine hits both alike.
        verdict: faster or slower only where a far stricter interval says so too.
    """

    against: str
    value: float
    interval: Interval | None
    verdict: Verdict


@dataclass(frozen=True)
class OutputCheck:
    """A contender's output beside another's, for the same images.

    Attributes:
        against: name of the other contender.
        agreement: pixels with the same label, percent.
        relative: largest difference of a value, relative to the largest magnitude; None for label maps.
        least: agreement, percent, below which the output counts as wrong.
        passed: whether it is right.
    """

    against: str
    agreement: float
    relative: float | None
    least: float
    passed: bool


@dataclass(frozen=True)
class Layer:
    """A layer, or all layers of one block of the network, in a profile.

    Attributes:
        name: of the layer, or of the block.
        block: the part of FFNet it belongs to, for instance ``"stage 3 token mixer"``.
        operator: what it computes; empty for a block.
        milliseconds: per call, mean.
        share: of the whole call, percent.
        flops: floating-point (or integer) operations per call, two for a multiply-add; None: unknown.
        bytes: read and written at least, once each; None: unknown.
        limit_ms: the least time that the device's peaks allow.
        bound: what sets that limit: ``"compute"`` or ``"memory"``.
        of_limit: `limit_ms` in percent of `milliseconds`: 100 is as fast as can be.
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
        flops: operations per second in the contender's precision.
        bytes: memory traffic, bytes per second.
        source: where the numbers are from.
    """

    flops: float
    bytes: float
    source: str


@dataclass(frozen=True)
class Profile:
    """Where the time of a call goes. Profiling costs time itself: compare layers, not totals with the timings.

    Attributes:
        tool: what measured it.
        runs: calls that were averaged.
        layers: in the order they run.
        blocks: sums over the layers of each block, in the order of the network.
        peaks: of the device, for the limits.
    """

    tool: str
    runs: int
    layers: tuple[Layer, ...]
    blocks: tuple[Layer, ...]
    peaks: Peaks | None = None


@dataclass(frozen=True)
class Contender:
    """What was timed.

    Attributes:
        name: by which it is told from the others.
        engine: runtime, version and device.
        precision: for instance ``"fp32"`` or ``"int8"``.
        network: config name.
        artifact: file name; None: built in memory.
        sha256: of that file.
        notes: what to know of its results.
    """

    name: str
    engine: str
    precision: str
    network: str
    artifact: str | None = None
    sha256: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """One contender at one setting.

    Attributes:
        contender: its name.
        setting: where in the sweep.
        rounds_ms: host clock, every sample, one tuple per round.
        device_ms: GPU events' times of the same samples, one tuple per round; empty without a GPU.
        wall_s: time spent in the counted runs, all streams together.
        summary: of `rounds_ms`; None where no sample was taken.
        device_summary: of `device_ms`.
        throughput: images per second.
        ratio: to the baseline; None for the baseline itself.
        check: of the output; None for the baseline itself.
        profile: where the time goes; None: not asked for, or not possible.
        error: why it ended early; the samples up to then are kept.
    """

    contender: str
    setting: Setting
    rounds_ms: tuple[Samples, ...]
    device_ms: tuple[Samples, ...] = ()
    wall_s: float = 0.0
    summary: Summary | None = None
    device_summary: Summary | None = None
    throughput: float | None = None
    ratio: Ratio | None = None
    check: OutputCheck | None = None
    profile: Profile | None = None
    error: str | None = None


@dataclass(frozen=True)
class Missing:
    """A contender that could not start here, and what to install."""

    contender: str
    reason: str


@dataclass(frozen=True)
class CpuState:
    """A CPU at one moment.

    Attributes:
        model: as it names itself.
        cores: logical cores of the machine.
        affinity: logical cores this process may run on.
        governor: of the clock frequency; None: not to be read here.
        megahertz: mean over all cores; None: not to be read here.
        load: load average over 1, 5 and 15 minutes.
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
        index: of the device.
        name: as it names itself.
        driver: version.
        sm_megahertz: clock of the multiprocessors.
        memory_megahertz: clock of the memory.
        watts: power drawn.
        celsius: temperature.
        throttle: why the clocks are held down, in words; empty: they are not.
        memory_used: bytes, by all processes.
        memory_total: bytes.
        processes: how many other processes compute on it.
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
class DeviceState:
    """The machine at one moment; `notes` say what could not be read."""

    cpu: CpuState
    gpus: tuple[GpuState, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BenchRun:
    """A whole run.

    Attributes:
        created: UTC, ISO 8601.
        method: how the samples were taken.
        contenders: what was timed; the first is the baseline.
        measurements: every contender at every setting.
        missing: what could not start here.
        before: the machine before the first sample.
        after: the machine after the last.
        environment: operating system, Python, variables that steer threads.
        versions: of the packages that matter.
        warnings: what to know before trusting the numbers.
        interrupted: stopped by hand; the samples up to then are kept.
    """

    created: str
    method: Method
    contenders: tuple[Contender, ...]
    measurements: tuple[Measurement, ...]
    missing: tuple[Missing, ...]
    before: DeviceState
    after: DeviceState
    environment: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def baseline(self) -> str | None:
        """Name of the contender that all others are compared with."""
        return self.contenders[0].name if self.contenders else None
