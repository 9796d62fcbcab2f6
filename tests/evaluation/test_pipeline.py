"""Many images through one engine: same predictions as one by one, in order, bounded, stopped at once."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.evaluation.pipeline import AHEAD, BEHIND, StageClock, predict_stream
from ffnet_deploy.evaluation.protocol import MULTI_SCALE, PredictOptions, predict
from tests.toy import ToyEngine, contract, picture

SIZES = [(90, 140), (90, 140), (61, 200), (128, 192), (128, 192), (128, 192), (70, 70), (90, 140), (50, 120), (64, 96)]


@pytest.mark.parametrize("options", [PredictOptions(), PredictOptions(MULTI_SCALE, flip=True)], ids=["once", "scales"])
@pytest.mark.parametrize("batch", [DimensionRange.fixed(1), DimensionRange(1, 2, 4), DimensionRange.fixed(3)])
def test_a_stream_gives_what_single_predictions_give(options: PredictOptions, batch: DimensionRange) -> None:
    engine = ToyEngine(contract(batch=batch))
    images = [picture(*size, seed=number) for number, size in enumerate(SIZES)]
    found = list(
        predict_stream(
            engine,
            range(len(images)),
            lambda number: (images[number], -number),
            lambda number, image, extra, prediction: (number, extra, prediction.labels),
            options=options,
        )
    )
    assert [(number, extra) for number, extra, _ in found] == [(number, -number) for number in range(len(images))]
    for number, _, labels in found:
        expected = predict(engine, images[number], options=options).labels
        assert (labels == expected).mean() >= 0.99999, SIZES[number]


def test_images_of_equal_size_run_together() -> None:
    engine = ToyEngine(contract(batch=DimensionRange(1, 2, 4)))
    same = picture(64, 96)
    list(predict_stream(engine, range(5), lambda _: (same, None), lambda *_: None, options=PredictOptions(batch=4)))
    assert [shape[0] for shape in engine.shapes] == [4, 1]


def test_no_more_images_are_read_ahead_than_memory_allows() -> None:
    lock, read, done, most = threading.Lock(), [0], [0], [0]
    image = picture(64, 96)

    def reading(_: int) -> tuple[np.ndarray, None]:
        with lock:
            read[0] += 1
            most[0] = max(most[0], read[0] - done[0])
        return image, None

    def handling(*_: object) -> None:
        with lock:
            done[0] += 1

    together = PredictOptions(batch=2)
    list(predict_stream(ToyEngine(contract()), range(100), reading, handling, options=together))
    assert done[0] == 100
    assert most[0] <= AHEAD + BEHIND + 2 * together.batch


def test_an_error_comes_at_the_turn_of_its_image_and_ends_the_workers() -> None:
    def reading(number: int) -> tuple[np.ndarray, None]:
        if number == 3:
            raise DataError("image 3 is broken")
        return picture(64, 96), None

    before, seen = threading.active_count(), []
    with pytest.raises(DataError, match="image 3"):
        for number in predict_stream(ToyEngine(contract()), range(50), reading, lambda number, *_: number):
            seen.append(number)
    assert seen == list(range(len(seen))) and len(seen) <= 3
    assert threading.active_count() <= before + 8  # label maps keep their threads; readers are gone
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_unusable_images_are_skipped_where_asked() -> None:
    def reading(number: int) -> tuple[np.ndarray, None]:
        if number % 2:
            raise DataError(f"image {number} is broken")
        return picture(64, 96), None

    skipped: list[str] = []
    found = list(
        predict_stream(
            ToyEngine(contract()),
            range(20),
            reading,
            lambda number, *_: number,
            skip=lambda error: skipped.append(str(error)),
        )
    )
    assert found == list(range(0, 20, 2)) and len(skipped) == 10


def test_the_clock_tells_where_the_time_went() -> None:
    clock = StageClock()
    list(
        predict_stream(ToyEngine(contract()), range(3), lambda _: (picture(64, 96), None), lambda *_: None, clock=clock)
    )
    assert clock.network > 0 and set(clock.to_dict()) == {"reading", "network", "finishing"}
    assert replace(clock, network=1.23456).to_dict()["network"] == 1.235
