"""Many images through one engine: decoded and resized ahead of the network, label maps and their use behind it.

The network runs in the calling thread. Memory is bounded: at most `AHEAD` images are decoded before their turn and
`BEHIND` and a batch wait for their label maps, whatever their number.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import TestProtocol
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.protocol import (
    Output,
    Prediction,
    PredictOptions,
    Prepared,
    check_protocol,
    finish_image,
    prepare,
    run_network,
)

AHEAD = 6
"""Images that are read and resized before the network's turn comes to them, at most."""
BEHIND = 4
"""Images whose label maps are still being made while the network goes on, at most."""
_READERS = 2

Item = TypeVar("Item")
Extra = TypeVar("Extra")
Result = TypeVar("Result")


@dataclass
class StageClock:
    """Where the time of a run went, as seen from the thread that runs the network, in seconds.

    Attributes:
        reading: Waiting for images that were not yet read and resized.
        network: Running the network.
        finishing: Waiting for label maps, scores and pictures of earlier images.
    """

    reading: float = 0.0
    network: float = 0.0
    finishing: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """The seconds of each stage, rounded to milliseconds."""
        return {name: round(value, 3) for name, value in vars(self).items()}


@dataclass(frozen=True)
class _Read(Generic[Item, Extra]):
    item: Item
    image: NDArray[np.uint8]
    extra: Extra
    prepared: Prepared


def predict_stream(
    engine: Engine,
    items: Iterable[Item],
    read: Callable[[Item], tuple[NDArray[np.uint8], Extra]],
    handle: Callable[[Item, NDArray[np.uint8], Extra, Prediction], Result],
    protocol: TestProtocol | None = None,
    options: PredictOptions | None = None,
    clock: StageClock | None = None,
    skip: Callable[[DataError], None] | None = None,
    name: Callable[[Item], str] = str,
) -> Generator[Result, None, None]:
    """Predict every item, and yield what `handle` makes of each prediction, in the order of the items.

    Args:
        engine: Runs the network.
        items: What to predict: files, frames.
        read: Gives the image of an item, uint8 (height, width, 3) BGR, and whatever else `handle` needs
            (labels); runs in worker threads, several at a time.
        handle: Gets item, image, the second value of `read`, and the prediction; runs in one other thread, one item
            after the other.
        protocol: How to resize and cut; None takes the artefact's own.
        options: Scales, mirroring and batch. Windows of equal size run together, also those of different images.
        clock: Filled with where the time went.
        skip: Called with each item that cannot be used, which is then left out; None: such an item is an error.
        name: What errors call an item.

    Raises:
        OptionError: the artefact cannot run what `protocol` and `options` ask for.
        Exception: whatever `read` and `handle` raise, at the turn of their item.
    """
    contract = engine.contract
    protocol, options, clock = protocol or contract.protocol, options or PredictOptions(), clock or StageClock()
    check_protocol(contract, protocol, options)

    def read_one(item: Item) -> _Read[Item, Extra]:
        image, extra = read(item)
        try:
            return _Read(item, image, extra, prepare(contract, image, protocol, options))
        except DataError as error:
            raise DataError(f"{name(item)}: {error}") from error

    def finish_one(one: _Read[Item, Extra], outputs: list[Output]) -> Result:
        return handle(one.item, one.image, one.extra, finish_image(contract, one.prepared, outputs, options))

    def finished(waiting: int) -> Iterator[Result]:
        while behind and (len(behind) > waiting or behind[0].done()):
            began = time.perf_counter()
            result = behind.popleft().result()
            clock.finishing += time.perf_counter() - began
            yield result

    remaining = iter(items)
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="reading")
    finisher = ThreadPoolExecutor(1, thread_name_prefix="finishing")
    ahead: deque[Future[_Read[Item, Extra]]] = deque()
    behind: deque[Future[Result]] = deque()
    try:
        ahead.extend(readers.submit(read_one, item) for item in islice(remaining, AHEAD))
        while ahead:
            stopping.check()
            began = time.perf_counter()
            try:
                group = _alike(ahead, min(options.batch, contract.batch.max))
            except DataError as error:
                if skip is None:
                    raise
                skip(error)
                ahead.extend(readers.submit(read_one, item) for item in islice(remaining, 1))
                continue
            clock.reading += time.perf_counter() - began
            ahead.extend(readers.submit(read_one, item) for item in islice(remaining, AHEAD - len(ahead)))
            began = time.perf_counter()
            outputs = run_network(engine, [one.prepared for one in group], options.batch)
            clock.network += time.perf_counter() - began
            behind.extend(finisher.submit(finish_one, *pair) for pair in zip(group, outputs, strict=True))
            yield from finished(BEHIND)
        yield from finished(0)
    finally:
        readers.shutdown(cancel_futures=True)
        finisher.shutdown(cancel_futures=True)


def _alike(ahead: deque[Future[_Read[Item, Extra]]], most: int) -> list[_Read[Item, Extra]]:
    """Take the next image, and those of equal size behind it until they have `most` windows; waits for each.

    Raises:
        Exception: whatever the reading of the next image raised.
    """
    group = [ahead.popleft().result()]
    while ahead and _windows(group) < most:
        if ahead[0].exception() is not None or _shape(ahead[0].result()) != _shape(group[-1]):
            break
        group.append(ahead.popleft().result())
    return group


def _windows(group: list[_Read[Item, Extra]]) -> int:
    return sum(len(view.crops) for one in group for view in one.prepared.views)


def _shape(one: _Read[Item, Extra]) -> tuple[int, ...]:
    return one.prepared.views[0].crops[0].shape
