"""The smallest set of blocks to leave unquantised so that the mIoU holds: ranked, bisected, pruned, resumable."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from ffnet_deploy.calib.options import CalibrationOptions
from ffnet_deploy.calib.quantize import Quantized, apply
from ffnet_deploy.calib.ranges import Calibration
from ffnet_deploy.calib.sensitivity import Sensitivity, ranked, sensitivities
from ffnet_deploy.calib.timings import Timings
from ffnet_deploy.calib.trials import miou
from ffnet_deploy.core.errors import ArtifactError, OptionError, VerificationError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.evaluation.datasets import Dataset

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
        if self.max_drop < 0:
            raise OptionError(f"a largest fall of mIoU is 0 points or more: got {self.max_drop}")
        if self.images < 1:
            raise OptionError(f"a search needs at least one image: got {self.images}")
        if self.budget is not None and self.budget <= 0:
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
    hunt = _Hunt(model, ranges, options, labelled, search, state, progress)
    kept, finished = hunt.run()
    quantized = apply(model, ranges, hunt.options_for(kept))
    drop = state.reference - state.scores[_name(kept)]
    return Found(quantized, tuple(sorted(kept)), drop, state.reference, hunt.table, len(state.scores), finished)


def _key(ranges: Calibration, options: CalibrationOptions, labelled: Dataset) -> str:
    """SHA-256 of what the measurements hold for."""
    files = [[str(sample.image), str(sample.labels)] for sample in labelled.samples]
    text = json.dumps([asdict(ranges.key), sorted(options.keep), files], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _name(kept: Sequence[str] | frozenset[str]) -> str:
    return " ".join(sorted(kept))


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
        remedy = "to do    remove the file to search anew"
        try:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version, recorded = int(raw["format"]), str(raw["key"])
            state.reference = None if raw["reference_mIoU"] is None else float(raw["reference_mIoU"])
            state.scores = {str(name): float(value) for name, value in raw["scores"].items()}
            state.rows = [Sensitivity(**{**row, "convs": tuple(row["convs"])}) for row in raw["sensitivity"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"the state of the search in {path} is damaged ({error}).\n  {remedy}") from error
        if version != FORMAT or recorded != key:
            raise ArtifactError(
                f"{path} is the state of another search: graph, calibration, kept layers or labelled images differ.\n"
                f"  {remedy}"
            )
        return state

    def save(self) -> None:
        """Write the state, atomically."""
        if self.path is None:
            return
        rows = [row.to_dict() for row in self.rows]
        content = {"format": FORMAT, "key": self.key, "reference_mIoU": self.reference, "scores": self.scores}
        write_json(self.path, {**content, "sensitivity": rows})


@dataclass
class _Hunt:
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
