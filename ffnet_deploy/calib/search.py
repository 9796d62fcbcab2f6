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
from ffnet_deploy.calib.scoring import blocks_of, disagreement, miou, sqnr, tried
from ffnet_deploy.core.decoding import decode_file
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.precision.graph_index import GraphIndex

_BETWEEN = re.compile(r"\.\.\.|[\s+,:{}\[\]]+")
"""What separates the names of nodes in the name of a layer that they were fused into."""
_QUANTIZED = ("int8", "fp8")


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
        raw = json.loads(path.read_text(encoding="utf-8"))
        # until format 1 what was timed was called a contender
        name, entries = ("contender", "contenders") if raw["format"] == 1 else ("candidate", "candidates")
        precisions = {str(one["name"]): one["precision"] for one in raw[entries]}
        for measurement in raw["measurements"]:
            if measurement["profile"] is not None:
                sums: dict[str, float] = {}
                for layer in measurement["profile"]["layers"]:
                    sums[layer["name"]] = sums.get(layer["name"], 0.0) + float(layer["milliseconds"])
                (quantized if precisions[measurement[name]] in _QUANTIZED else base).append(sums)
    except (OSError, ValueError, KeyError, TypeError) as error:
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
        block: its name.
        convs: names of its convolutions.
        macs_percent: its share of the convolutions' multiply-adds.
        sqnr_db: of the logits, signal to noise.
        disagreement_percent: positions of the logits whose label changes.
        drop: fall of mIoU, points; None where there are no labels.
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
        progress: told of blocks done.
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


FORMAT = 1


@dataclass(frozen=True)
class SearchOptions:
    """What the search may cost, and where it keeps its state.

    Attributes:
        max_drop: largest fall of mIoU, points.
        budget: seconds for trials, after which the best set found is taken; None: until the search is done.
        images: labelled images to judge on, where there are more.
        state: JSON file of what was measured, gone on with when it is there; None: nothing is kept.
        timings: of engines; blocks that are slower quantised are left alone from the start.
    """

    max_drop: float = 0.3
    budget: float | None = None
    images: int = 64
    state: Path | None = None
    timings: Timings | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < math.inf:
            raise OptionError(f"a largest fall of mIoU is 0 points or more: got {self.max_drop}")
        if self.images < 1:
            raise OptionError(f"a search needs at least one image: got {self.images}")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise OptionError(f"a budget is a positive number of seconds: got {self.budget}")


@dataclass(frozen=True)
class Found:
    """The outcome.

    Attributes:
        quantized: the graph.
        kept: blocks left unquantised.
        drop: fall of mIoU, points.
        reference: mIoU in percent of the FP32 graph.
        table: cost of each block alone, most costly first.
        trials: sets of blocks whose mIoU was measured.
        finished: False where the budget ended the search.
    """

    quantized: Quantized
    kept: tuple[str, ...]
    drop: float
    reference: float
    table: tuple[Sensitivity, ...]
    trials: int
    finished: bool

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "kept": list(self.kept),
            "drop": self.drop,
            "reference_mIoU": self.reference,
            "trials": self.trials,
            "finished": self.finished,
            "sensitivity": [row.to_dict() for row in self.table],
        }


def search_mixed(
    model: onnx.ModelProto,
    ranges: Calibration,
    options: CalibrationOptions,
    labelled: Dataset,
    search: SearchOptions | None = None,
    progress: Progress = no_progress,
) -> Found:
    """Quantise as much of the FP32 graph `model` as the fall of mIoU allows.

    Blocks are ranked by what they cost alone; the shortest head of that list that holds the mIoU is found by bisection,
    then each of its blocks is quantised again where the mIoU still holds.

    Args:
        model: FP32, with logits as its output.
        ranges: calibration of all of it.
        options: how it is quantised; what `keep` names stays unquantised whatever is found.
        labelled: data to rank blocks on, and whose mIoU must hold.
        search: limits.
        progress: told of blocks and trials done.

    Raises:
        VerificationError: no set that was tried holds the mIoU.
        ArtifactError: the state file is of another search, or damaged.
    """
    search = search or SearchOptions()
    state = _State.opened(search.state, _key(ranges, options, labelled))
    for row in sensitivities(model, ranges, options, labelled, {row.block for row in state.rows}, progress):
        state.rows.append(row)
        state.save()
    if state.reference is None:
        state.reference = miou(model, labelled)
        state.save()
    run = _Search(model, ranges, options, labelled, search, state, progress)
    kept, finished = run.run()
    quantized = apply(model, ranges, run.options_for(kept))
    drop = state.reference - state.scores[_name(kept)]
    return Found(quantized, tuple(sorted(kept)), drop, state.reference, run.table, len(state.scores), finished)


def _key(ranges: Calibration, options: CalibrationOptions, labelled: Dataset) -> str:
    """SHA-256 of what the measurements hold for."""
    files = [[str(sample.image), str(sample.labels)] for sample in labelled.samples]
    text = json.dumps([asdict(ranges.key), sorted(options.keep), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _name(kept: Sequence[str] | frozenset[str]) -> str:
    return " ".join(sorted(kept))


@dataclass(frozen=True)
class SearchFile:
    """The state of a search as its file holds it; percentages are of mIoU.

    Attributes:
        format: version of the file.
        key: SHA-256 of what the measurements hold for.
        reference_mIoU: of the FP32 graph; None: not measured yet.
        scores: mIoU by the names of the blocks left unquantised.
        sensitivity: cost of each block alone, in the order measured.
    """

    format: int
    key: str
    reference_mIoU: float | None  # noqa: N815
    scores: dict[str, float]
    sensitivity: tuple[Sensitivity, ...]

    def __post_init__(self) -> None:
        if not all(0 <= score <= 100 for score in (self.reference_mIoU or 0.0, *self.scores.values())):
            raise OptionError("mIoU lies within 0 and 100 percent")


class _State:
    """Everything measured so far, on disk after each measurement."""

    def __init__(self, path: Path | None, key: str) -> None:
        self.path = path
        self.key = key
        self.rows: list[Sensitivity] = []
        self.reference: float | None = None
        self.scores: dict[str, float] = {}

    @classmethod
    def opened(cls, path: Path | None, key: str) -> "_State":
        """The state in `path`, or a new one."""
        state = cls(path, key)
        if path is None or not path.exists():
            return state
        remedy = "remove the file to search anew"
        stored = decode_file(path, SearchFile, f"the state of the search in {path}", remedy)
        if stored.format != FORMAT or stored.key != key:
            raise ArtifactError(
                f"{path} is the state of another search: graph, calibration, kept layers or labelled images differ.\n"
                f"  to do    {remedy}"
            )
        state.reference, state.scores = stored.reference_mIoU, dict(stored.scores)
        state.rows = list(stored.sensitivity)
        return state

    def save(self) -> None:
        """Write the state, atomically."""
        if self.path is None:
            return
        rows = [row.to_dict() for row in self.rows]
        content = {"format": FORMAT, "key": self.key, "reference_mIoU": self.reference, "scores": self.scores}
        write_json(self.path, {**content, "sensitivity": rows})


@dataclass
class _Search:
    model: onnx.ModelProto
    ranges: Calibration
    options: CalibrationOptions
    labelled: Dataset
    search: SearchOptions
    state: _State
    progress: Progress

    def __post_init__(self) -> None:
        assert self.state.reference is not None
        self.table = ranked(self.state.rows)
        self.convs = {row.block: row.convs for row in self.table}
        slow = self.search.timings.slower(self.convs) if self.search.timings else ()
        self.slow = frozenset(slow)
        self.order = [row.block for row in self.table if row.block not in self.slow]
        self.reference = self.state.reference
        self.started = time.monotonic()

    def options_for(self, kept: Sequence[str] | frozenset[str]) -> CalibrationOptions:
        """The options that leave the blocks `kept` unquantised."""
        names = tuple(conv for block in sorted(kept) for conv in self.convs[block])
        return replace(self.options, keep=(*self.options.keep, *names))

    def run(self) -> tuple[frozenset[str], bool]:
        """The blocks to keep, and whether the search came to its end."""
        low, high = 0, max(len(self.order) - 1, 0)  # the shortest head that holds is within low..high, if any is
        best: frozenset[str] | None = None
        middle = 0  # at first with everything quantised, which often holds
        while low <= high:
            if self._is_out_of_time() and best is not None:
                return best, False
            kept = self._head(middle)
            if self._holds(kept):
                best, high = kept, middle - 1
            else:
                low = middle + 1
            middle = (low + high) // 2
            if self._is_out_of_time() and best is None:
                break
        if best is None:
            raise self._failure()
        return self._pruned(best)

    def _head(self, count: int) -> frozenset[str]:
        return frozenset(self.order[:count]) | self.slow

    def _pruned(self, kept: frozenset[str]) -> tuple[frozenset[str], bool]:
        """`kept` without the blocks that it can do without, the least costly tried first."""
        for block in [block for block in reversed(self.order) if block in kept]:
            if self._is_out_of_time():
                return kept, False
            if self._holds(kept - {block}):
                kept -= {block}
        return kept, True

    def _holds(self, kept: frozenset[str]) -> bool:
        name = _name(kept)
        if name not in self.state.scores:
            trial = apply(self.model, self.ranges, self.options_for(kept)).model
            self.state.scores[name] = miou(trial, self.labelled)
            self.state.save()
        self.progress(f"trying {len(kept)} blocks unquantised", len(self.state.scores), len(self.convs))
        return self.reference - self.state.scores[name] <= self.search.max_drop

    def _is_out_of_time(self) -> bool:
        return self.search.budget is not None and time.monotonic() - self.started > self.search.budget

    def _failure(self) -> VerificationError:
        least = self.reference - max(self.state.scores.values())
        return VerificationError(
            f"no set of blocks that was tried holds the mIoU: the least fall is {least:.2f} points, "
            f"{self.search.max_drop} are allowed.\n"
            "  to do    allow more by --max-drop or more time, calibrate on more images, or use --fp16"
        )
