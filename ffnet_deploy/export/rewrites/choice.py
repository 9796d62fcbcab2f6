"""Which rewrites a graph gets: as the user says, or by what was measured for the runtime that will run it."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from ffnet_deploy.core.contract import OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.backend import Backend
from ffnet_deploy.export.rewrites.passes import LABEL_FORMS, Rewrite

AUTO, NONE = "auto", "none"
FEWEST_OPERATIONS = (Rewrite.SQUEEZE_FIRST, Rewrite.TAPS_FIRST)
"""What is done where nothing was measured: what takes fewer multiply-adds. TensorRT's `Resize` stays as it is."""
SAME_TIME = 1.05
"""Ratio of two medians up to which forms count as equally fast: runs and machines differ by more."""
MEASUREMENTS = "measured.json"
"""Written by ``python -m benchmarks.rewrites --table``."""


@dataclass(frozen=True)
class MeasuredForm:
    """Time of a network with some rewrites.

    Attributes:
        rewrites: Rewrites in the graph.
        milliseconds: Median time of a call.
    """

    rewrites: tuple[Rewrite, ...]
    milliseconds: float


@dataclass(frozen=True)
class Measurement:
    """Forms of one network that were timed in turns in one run.

    Attributes:
        backend: What ran them.
        network: Name of the config.
        decoder: Kind of the decoder.
        output: What the graphs give.
        size: Input (height, width) in pixels.
        forms: The measured forms; at least one.
        machine: Processor and versions, in words.
    """

    backend: Backend
    network: str
    decoder: str
    output: OutputKind
    size: tuple[int, int]
    forms: tuple[MeasuredForm, ...]
    machine: str

    @property
    def best(self) -> MeasuredForm:
        """The fastest form; of those within `SAME_TIME` of it the one with fewer operations.

        Fewer operations leave no concatenation either, behind which a graph for CPUs cannot be quantised.
        """
        limit = SAME_TIME * min(form.milliseconds for form in self.forms)
        near = [form for form in self.forms if form.milliseconds <= limit]
        return min(near, key=lambda form: (-len({*form.rewrites} & {*FEWEST_OPERATIONS}), form.milliseconds))


@dataclass(frozen=True)
class Use:
    """What a graph is made for.

    Attributes:
        backend: What will run it.
        network: Name of the config.
        decoder: Kind of its decoder.
        output: What the graph gives.
        size: Usual input (height, width) in pixels.
    """

    backend: Backend
    network: str
    decoder: str
    output: OutputKind
    size: tuple[int, int]


@dataclass(frozen=True)
class Choice:
    """Rewrites, and why these.

    Attributes:
        rewrites: Rewrites to be applied where they find something to replace.
        reason: Why these were chosen, in words.
    """

    rewrites: tuple[Rewrite, ...]
    reason: str


def choose(text: str, use: Use) -> Choice:
    """The rewrites that `text` asks for: ``"auto"``, ``"none"``, or names with commas between them.

    Raises:
        OptionError: it names none.
    """
    if text == AUTO:
        return automatic(use, measurements())
    if text == NONE:
        return Choice((), "asked for")
    known = {name.value: name for name in Rewrite}
    names = [part.strip() for part in text.split(",")]
    if unknown := [name for name in names if name not in known]:
        raise OptionError(f"--rewrite takes {AUTO}, {NONE}, or of {', '.join(known)}: not {unknown[0]!r}")
    return Choice(tuple(name for name in Rewrite if name.value in names), "asked for")


def automatic(use: Use, measured: Sequence[Measurement]) -> Choice:
    """The form that was the best for the backend, on the network itself or one with the same decoder.

    Of several the measurement of the nearest number of pixels counts. Label maps are chosen apart from the rest.
    """
    decoder = _nearest(use, OutputKind.LOGITS, measured)
    if decoder is None:
        reason = f"nothing is measured for {use.backend.value} and {use.decoder}: what takes fewer operations"
        return Choice(FEWEST_OPERATIONS, reason)
    chosen = [name for name in decoder.best.rewrites if name not in LABEL_FORMS]
    reason = f"best of {len(decoder.forms)} for {use.backend.value}: {_described(decoder)}"
    if use.output is OutputKind.LABELS and (labels := _nearest(use, OutputKind.LABELS, measured)) is not None:
        chosen += [name for name in labels.best.rewrites if name in LABEL_FORMS]
        reason += f"; labels: {_described(labels)}"
    return Choice(tuple(chosen), reason)


def _nearest(use: Use, output: OutputKind, measured: Sequence[Measurement]) -> Measurement | None:
    fitting = [one for one in measured if (one.backend, one.decoder, one.output) == (use.backend, use.decoder, output)]
    own = [one for one in fitting if one.network == use.network]

    def distance(one: Measurement) -> float:
        return abs(math.log(math.prod(one.size) / math.prod(use.size)))

    return min(own or fitting, key=distance, default=None)


def _described(one: Measurement) -> str:
    return f"{one.network} {one.size[0]}x{one.size[1]} on {one.machine}"


@cache
def measurements() -> tuple[Measurement, ...]:
    """The table that came with the package."""
    text = resources.files(__package__).joinpath(MEASUREMENTS).read_text(encoding="utf-8")
    return tuple(measurement(raw) for raw in json.loads(text)["measurements"])


def measurement(raw: dict[str, Any]) -> Measurement:
    """A measurement from its form in the table."""
    return Measurement(
        backend=Backend(raw["backend"]),
        network=raw["network"],
        decoder=raw["decoder"],
        output=OutputKind(raw["output"]),
        size=(raw["size"][0], raw["size"][1]),
        forms=tuple(
            MeasuredForm(tuple(Rewrite(name) for name in form["rewrites"]), form["milliseconds"])
            for form in raw["forms"]
        ),
        machine=raw["machine"],
    )
