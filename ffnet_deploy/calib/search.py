"""Mixed-precision search: the smallest set of blocks to leave unquantised so that the accuracy holds."""

import hashlib
import json
import math
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from ffnet_deploy.calib.equalize import equalize
from ffnet_deploy.calib.options import CalibrationOptions
from ffnet_deploy.calib.plan import is_named
from ffnet_deploy.calib.quantize import Quantized, apply
from ffnet_deploy.calib.ranges import Calibration
from ffnet_deploy.calib.scoring import Trial, blocks_of, disagreement, sqnr, tried
from ffnet_deploy.core.decoding import DecodingError, decode, decode_file, document_bytes
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.intervals import difference_interval
from ffnet_deploy.evaluation.scores import MiouLimit
from ffnet_deploy.precision.graph_index import GraphIndex

_BETWEEN = re.compile(r"\.\.\.|[\s+,:{}\[\]]+")
"""What separates the names of nodes in the name of a layer that they were fused into."""
_QUANTIZED = ("int8", "fp8")
_MAX_TIMINGS = 128 << 20
"""Largest run of the benchmark that is read, bytes."""


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each layer by its name, in an engine with quantised convolutions and in one without."""

    quantized: Mapping[str, float]
    base: Mapping[str, float]

    def slower(self, blocks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Names of the blocks that take longer quantised than not; both engines must name them.

        Args:
            blocks: names of the convolutions of each.
        """
        owners = {conv: block for block, convs in blocks.items() for conv in convs}
        low, high = _summed(self.quantized, owners), _summed(self.base, owners)
        return tuple(block for block in blocks if block in low and block in high and low[block] > high[block])


def _summed(layers: Mapping[str, float], owners: Mapping[str, str]) -> dict[str, float]:
    """Milliseconds of each block: a layer counts for the block of the first convolution that its name holds."""
    sums: dict[str, float] = {}
    for name, milliseconds in layers.items():
        block = next((owners[part] for part in _BETWEEN.split(name) if part in owners), None)
        if block is not None:
            sums[block] = sums.get(block, 0.0) + milliseconds
    return sums


def read_timings(path: Path) -> Timings:
    """Timings from a run of ``ffnet-bench --profile --json`` over an engine of each precision.

    Raises:
        ArtifactError: the file is no such run, or does not hold one profile of each.
    """
    remedy = "to do    ffnet-bench NET.fp16.engine NET.int8.engine --profile --json FILE"
    quantized: list[dict[str, float]] = []
    base: list[dict[str, float]] = []
    try:
        raw = decode(document_bytes(path, _MAX_TIMINGS), dict[str, Any], _MAX_TIMINGS)
        # until format 1 what was timed was called a contender
        name, entries = ("contender", "contenders") if raw["format"] == 1 else ("candidate", "candidates")
        precisions = {str(one["name"]): one["precision"] for one in raw[entries]}
        for measurement in raw["measurements"]:
            if measurement["profile"] is not None:
                sums: dict[str, float] = {}
                for layer in measurement["profile"]["layers"]:
                    sums[layer["name"]] = sums.get(layer["name"], 0.0) + float(layer["milliseconds"])
                (quantized if precisions[measurement[name]] in _QUANTIZED else base).append(sums)
    except (OSError, DecodingError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} was not written by ffnet-bench --json ({error}).\n  {remedy}") from error
    if len(quantized) != 1 or len(base) != 1:
        raise ArtifactError(
            f"{path} holds {len(quantized)} profiles of quantised networks and {len(base)} of others; one each is "
            f"needed.\n  {remedy}"
        )
    return Timings(quantized[0], base[0])


JUDGED_ON = 32
"""Images that each block is tried on, at most: enough to rank them, and every block is tried on all."""

_EXACT_DB = 150.0
"""What float32 can tell apart at best."""


@dataclass(frozen=True)
class Sensitivity:
    """What it costs to quantise one block and nothing else.

    Attributes:
        block: Name of the block.
        convs: Names of its convolutions.
        macs_percent: Share of the convolutions' multiply-adds that the block has.
        sqnr_db: Ratio of signal to quantisation noise in the logits.
        disagreement_percent: Share of the positions of the logits whose label changes.
        drop: Fall of the mIoU in points; None where there are no labels.
    """

    block: str
    convs: tuple[str, ...]
    macs_percent: float
    sqnr_db: float
    disagreement_percent: float
    drop: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "convs": list(self.convs)}


def sensitivities(
    model: onnx.ModelProto,
    ranges: Calibration,
    options: CalibrationOptions,
    dataset: Dataset,
    known: Collection[str] = (),
    progress: Progress = no_progress,
) -> Iterator[Sensitivity]:
    """The cost of each block of the FP32 graph `model`, in graph order, each as soon as it is measured.

    Args:
        model: FP32, with logits as its output.
        ranges: calibration of all of it.
        options: how it is quantised; what `keep` names is never quantised and left out.
        dataset: images to compare logits on, and mIoU where they are labelled; the first `JUDGED_ON` are taken.
        known: blocks to leave out.
        progress: called with blocks done.
    """
    blocks, judged = blocks_of(model), dataset.limited(JUDGED_ON)
    open_blocks = {name: convs for name, convs in blocks.items() if _is_open(convs, options) and name not in known}
    if not open_blocks:
        return
    shares, before = _mac_shares(model, ranges), tried(model, judged)
    for done, (name, convs) in enumerate(open_blocks.items(), len(blocks) - len(open_blocks) + 1):
        others = tuple(conv for block, names in blocks.items() if block != name for conv in names)
        after = tried(apply(model, ranges, replace(options, keep=(*options.keep, *others))).model, judged)
        yield Sensitivity(
            block=name,
            convs=convs,
            macs_percent=sum(shares[conv] for conv in convs),
            sqnr_db=min(sqnr(before.logits, after.logits), _EXACT_DB),
            disagreement_percent=disagreement(before.logits, after.logits),
            drop=None if before.miou is None or after.miou is None else before.miou - after.miou,
        )
        progress("trying each block alone", done, len(blocks))


def ranked(rows: Sequence[Sensitivity]) -> tuple[Sensitivity, ...]:
    """Most costly first: by noise in the logits, which small changes move where mIoU only jitters."""
    return tuple(sorted(rows, key=lambda row: row.sqnr_db))


def _is_open(convs: Sequence[str], options: CalibrationOptions) -> bool:
    return not all(is_named(conv, options.keep) for conv in convs)


def _mac_shares(model: onnx.ModelProto, ranges: Calibration) -> Mapping[str, float]:
    equalized = onnx.ModelProto()
    equalized.CopyFrom(model)
    equalize(equalized, ranges.factors)  # ranges and shapes are of the equalised graph
    macs = {conv.name: conv.macs(ranges.shapes[conv.input]) for conv in GraphIndex(equalized).convs}
    total = sum(macs.values())
    return {name: 100 * count / total for name, count in macs.items()}


FORMAT = 2
"""Version of the state files that are written. Of version 1, whose scores have no interval, the ranking is read."""
MIN_SQNR = 25.0
"""Least signal to noise of the logits, dB, where there are no labels.

On the bundled networks INT8 at 30 dB costs no mIoU that 100 images show; at 21 dB it cost a third of a point.
"""


@dataclass(frozen=True)
class SearchOptions:
    """What the search may cost, and where it keeps its state.

    Attributes:
        limit: By how much the mIoU may fall: the upper end of the fall's 95 % interval must stay within.
        min_sqnr: Noise budget where there are no labels: least signal to noise of the logits, dB.
        budget: Seconds for trials, after which the best set found is taken; None: until the search is done.
        images: Number of images to judge on, where there are more.
        state: JSON file of what was measured, gone on with when it is there; None: nothing is kept.
        timings: Layer times of engines; blocks that are slower quantised are left alone from the start.
    """

    limit: MiouLimit = MiouLimit(0.3)  # noqa: RUF009  frozen
    min_sqnr: float = MIN_SQNR
    budget: float | None = None
    images: int = 64
    state: Path | None = None
    timings: Timings | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.min_sqnr):
            raise OptionError(f"a noise budget is a number of dB: got {self.min_sqnr}")
        if self.images < 1:
            raise OptionError(f"a search needs at least one image: got {self.images}")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise OptionError(f"a budget is a positive number of seconds: got {self.budget}")


@dataclass(frozen=True)
class TrialScore:
    """What a partly quantised graph costs.

    Attributes:
        sqnr_db: Signal to noise of the logits.
        drop: Fall of mIoU, points; None where there are no labels.
        largest_drop: Upper end of the fall's 95 % interval, images resampled for both networks alike; None alike.
    """

    sqnr_db: float
    drop: float | None = None
    largest_drop: float | None = None


def score(model: onnx.ModelProto, reference: Trial, dataset: Dataset) -> TrialScore:
    """The cost of `model` on `dataset`, beside what the FP32 graph made of it."""
    found = tried(model, dataset)
    noise = min(sqnr(reference.logits, found.logits), _EXACT_DB)
    if reference.miou is None or found.miou is None:
        return TrialScore(noise)
    low, _ = difference_interval(reference.confusions, found.confusions)
    return TrialScore(noise, reference.miou - found.miou, -low)


@dataclass(frozen=True)
class SearchResult:
    """The outcome.

    Attributes:
        quantized: The graph.
        kept: Blocks left unquantised.
        score: What the graph costs on the images searched on.
        limit: What was allowed: points of mIoU, or dB where there are no labels.
        reference: mIoU of the FP32 graph in percent; None without labels.
        table: Cost of each block alone, most costly first; empty where everything could be quantised.
        trials: Number of sets of blocks that were tried.
        images: Number of images searched on.
        finished: False where the budget ended the search.
    """

    quantized: Quantized
    kept: tuple[str, ...]
    score: TrialScore
    limit: float
    reference: float | None
    table: tuple[Sensitivity, ...]
    trials: int
    images: int
    finished: bool

    def to_dict(self) -> dict[str, Any]:
        """For the manifest; `noise_share_percent` is what each block adds to the noise of all blocks."""
        noises = {row.block: 10 ** (-row.sqnr_db / 10) for row in self.table}
        total = sum(noises.values())
        rows = [{**row.to_dict(), "noise_share_percent": 100 * noises[row.block] / total} for row in self.table]
        return {
            "kept": list(self.kept),
            "drop": self.score.drop,
            "largest_drop": self.score.largest_drop,
            "sqnr_db": self.score.sqnr_db,
            "limit": {"points" if self.reference is not None else "sqnr_db": self.limit},
            "reference_mIoU": self.reference,
            "trials": self.trials,
            "images": self.images,
            "finished": self.finished,
            "sensitivity": rows,
        }


def search_mixed(
    model: onnx.ModelProto,
    ranges: Calibration,
    options: CalibrationOptions,
    dataset: Dataset,
    search: SearchOptions | None = None,
    progress: Progress = no_progress,
) -> SearchResult:
    """Quantise as much of the FP32 graph `model` as its accuracy allows.

    Everything quantised is tried first: if it holds, nothing is ranked. Else blocks are ranked by the noise that each
    alone adds to the logits; the shortest head of that list that holds is found by bisection, then each of its blocks
    is quantised again where the accuracy still holds. With labels the fall of mIoU decides, by the upper end of its
    interval over paired images; without labels the noise budget does.

    Args:
        model: FP32, with logits as its output.
        ranges: calibration of all of it.
        options: how it is quantised; what `keep` names stays unquantised whatever is found.
        dataset: images to rank blocks on and to hold the accuracy on, labelled or not.
        search: limits.
        progress: called with blocks and trials done.

    Raises:
        VerificationError: no set that was tried holds.
        ArtifactError: the state file is of another search, or damaged.
    """
    search = search or SearchOptions()
    return _Search(model, ranges, options, dataset, search, progress).run()


@dataclass(frozen=True)
class SearchFile:
    """The state of a search as its file holds it.

    Attributes:
        format: Version of the file.
        key: SHA-256 of what the measurements hold for.
        scores: Cost by the names of the blocks left unquantised; in version 1 a mIoU.
        sensitivity: Cost of each block alone, in the order measured.
    """

    format: int
    key: str
    scores: dict[str, TrialScore | float]
    sensitivity: tuple[Sensitivity, ...]


class _State:
    """Everything measured so far, on disk after each measurement.

    Raises:
        ArtifactError: the file at `path` is of another search, or damaged.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.key = key
        self.rows: list[Sensitivity] = []
        self.scores: dict[str, TrialScore] = {}
        if path is None or not path.exists():
            return
        remedy = "remove the file to search anew"
        stored = decode_file(path, SearchFile, f"the state of the search in {path}", remedy)
        if stored.format not in (1, FORMAT) or stored.key != key:
            raise ArtifactError(
                f"{path} is the state of another search: graph, calibration, kept layers or images differ.\n"
                f"  to do    {remedy}"
            )
        self.rows = list(stored.sensitivity)
        self.scores = {name: one for name, one in stored.scores.items() if isinstance(one, TrialScore)}

    def save(self) -> None:
        """Write the state, atomically."""
        if self.path is not None:
            scores = {name: asdict(one) for name, one in self.scores.items()}
            rows = [row.to_dict() for row in self.rows]
            write_json(self.path, {"format": FORMAT, "key": self.key, "scores": scores, "sensitivity": rows})


class _Search:
    def __init__(
        self,
        model: onnx.ModelProto,
        ranges: Calibration,
        options: CalibrationOptions,
        dataset: Dataset,
        search: SearchOptions,
        progress: Progress,
    ) -> None:
        self.model, self.ranges, self.options, self.dataset = model, ranges, options, dataset
        self.search, self.progress = search, progress
        files = [[str(sample.image), str(sample.labels)] for sample in dataset.samples]
        text = json.dumps([asdict(ranges.key), sorted(options.keep), files], sort_keys=True)
        self.state = _State(search.state, hashlib.sha256(text.encode()).hexdigest())
        self.blocks = {name: convs for name, convs in blocks_of(model).items() if _is_open(convs, options)}
        self.slow = frozenset(search.timings.slower(self.blocks) if search.timings else ())
        self.reference = tried(model, dataset)
        self.started = time.monotonic()

    def run(self) -> SearchResult:
        kept, finished = self.slow, True
        if not self.holds(kept):
            self.rank()
            kept, finished = self.pruned(self.shortest_head())
        score = self.state.scores[_name(kept)]
        miou = self.reference.miou
        return SearchResult(
            quantized=apply(self.model, self.ranges, self.options_for(kept)),
            kept=tuple(sorted(kept)),
            score=score,
            limit=self.search.min_sqnr if miou is None else self.search.limit.allowed_drop(miou),
            reference=miou,
            table=ranked(self.state.rows),
            trials=len(self.state.scores),
            images=len(self.dataset),
            finished=finished,
        )

    def options_for(self, kept: frozenset[str]) -> CalibrationOptions:
        """The options that leave the blocks `kept` unquantised."""
        names = tuple(conv for block in sorted(kept) for conv in self.blocks[block])
        return replace(self.options, keep=(*self.options.keep, *names))

    def rank(self) -> None:
        """Measure the noise of each block alone, where that was not done before."""
        known = {row.block for row in self.state.rows}
        for row in sensitivities(self.model, self.ranges, self.options, self.dataset, known, self.progress):
            self.state.rows.append(row)
            self.state.save()
        self.order = [row.block for row in ranked(self.state.rows) if row.block not in self.slow]

    def shortest_head(self) -> frozenset[str]:
        """The fewest of the most costly blocks that have to be kept for the accuracy to hold."""
        low, high = 1, len(self.order) - 1  # it is within these, if any head holds
        best: frozenset[str] | None = None
        while low <= high and not self.is_out_of_time():
            middle = (low + high) // 2
            kept = frozenset(self.order[:middle]) | self.slow
            if self.holds(kept):
                best, high = kept, middle - 1
            else:
                low = middle + 1
        if best is None:
            raise self.failure()
        return best

    def pruned(self, kept: frozenset[str]) -> tuple[frozenset[str], bool]:
        """`kept` without the blocks that it can do without, the least costly tried first; False if time ran out."""
        for block in [block for block in reversed(self.order) if block in kept]:
            if self.is_out_of_time():
                return kept, False
            if self.holds(kept - {block}):
                kept -= {block}
        return kept, True

    def holds(self, kept: frozenset[str]) -> bool:
        name, scores = _name(kept), self.state.scores
        if name not in scores:
            trial = apply(self.model, self.ranges, self.options_for(kept)).model
            scores[name] = score(trial, self.reference, self.dataset)
            self.state.save()
        self.progress(f"trying {len(kept)} blocks unquantised", len(scores), len(self.blocks))
        drop = scores[name].largest_drop
        if drop is None or self.reference.miou is None:
            return scores[name].sqnr_db >= self.search.min_sqnr
        return drop <= self.search.limit.allowed_drop(self.reference.miou)

    def is_out_of_time(self) -> bool:
        return self.search.budget is not None and time.monotonic() - self.started > self.search.budget

    def failure(self) -> VerificationError:
        tried, miou = self.state.scores.values(), self.reference.miou
        if miou is None:
            found = f"the logits' noise: the best has {max(one.sqnr_db for one in tried):.1f} dB"
            found += f", {self.search.min_sqnr:g} are needed"
        else:
            least = min(one.largest_drop for one in tried if one.largest_drop is not None)
            found = f"the mIoU: the least fall may be {least:.2f} points (95 % interval), "
            found += f"{self.search.limit.allowed_drop(miou):g} are allowed"
        return VerificationError(
            f"no set of blocks that was tried holds {found}.\n"
            "  to do    allow more by --max-drop or more time, search and calibrate on more images, or use --fp16"
        )


def _name(kept: frozenset[str]) -> str:
    return " ".join(sorted(kept))
