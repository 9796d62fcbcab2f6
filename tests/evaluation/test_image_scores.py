"""An evaluation can be interrupted and shared, and its sum is exactly that of one run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate, merge
from ffnet_deploy.evaluation.image_scores import KIND, ImageScore, StateFile
from ffnet_deploy.evaluation.parallel import part_of
from ffnet_deploy.evaluation.protocol import PredictOptions
from tests.toy import ToyEngine, contract, write_pairs


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return open_dataset(write_pairs(tmp_path / "data", 7), "camvid")


class Interrupted(ToyEngine):
    """An engine that is stopped at its fourth call, as by Ctrl-C."""

    def run(self, batch: Any) -> Any:
        if len(self.shapes) == 3:
            raise KeyboardInterrupt
        return super().run(batch)


def test_a_confusion_matrix_survives() -> None:
    confusion = np.random.default_rng(0).poisson(0.2, (11, 11)).astype(np.int64)
    kept = ImageScore.of("one", confusion)
    assert np.array_equal(kept.confusion(11), confusion) and len(kept.cells) == np.count_nonzero(confusion)
    assert not ImageScore.of("one", None).confusion(11).any()


def test_the_score_of_an_image_with_150_classes_takes_a_few_bytes_an_entry(tmp_path: Path) -> None:
    confusion = np.random.default_rng(0).poisson(0.05, (150, 150)).astype(np.int64) * 70_000
    kept = ImageScore.of("one", confusion)
    assert kept.cells.nbytes + kept.counts.nbytes == 6 * np.count_nonzero(confusion)
    with StateFile(tmp_path / "state", {}, 150) as state:
        state.add(kept)
    with StateFile(tmp_path / "state", {}, 150) as state:
        again = state.done["one"]
    assert again == kept and (again.cells.dtype, again.counts.dtype) == (kept.cells.dtype, kept.counts.dtype)
    assert again != ImageScore.of("one", confusion + np.eye(150, dtype=np.int64))


def test_a_state_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    entry = {"image": "a", "cells": [0, 5], "counts": [3, 5_000_000_000], "notes": ["stretched"]}
    lines = {"kind": KIND, "format": 1, "key": {}}, entry
    (tmp_path / "state").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with StateFile(tmp_path / "state", {}, 3) as state:
        kept = state.done["a"]
    assert kept.confusion(3).tolist() == [[3, 0, 0], [0, 0, 5_000_000_000], [0, 0, 0]] and kept.notes == ("stretched",)


def test_an_interrupted_evaluation_goes_on_with_the_same_result(dataset: Dataset, tmp_path: Path) -> None:
    expected = evaluate(ToyEngine(contract()), dataset)
    options = EvaluateOptions(state=tmp_path / "state.jsonl", predict=PredictOptions(batch=1))
    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(contract()), dataset, options)
    kept = len((tmp_path / "state.jsonl").read_text().splitlines()) - 1
    assert 0 < kept < 7
    engine = ToyEngine(contract())
    found = evaluate(engine, dataset, options)
    assert len(engine.shapes) == 7 - kept
    assert found.scores == expected.scores and found.per_image == expected.per_image


def test_a_line_cut_short_by_a_kill_is_scored_again(dataset: Dataset, tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    expected = evaluate(ToyEngine(contract()), dataset, EvaluateOptions(state=state))
    state.write_bytes(state.read_bytes()[:-20])
    engine = ToyEngine(contract())
    found = evaluate(engine, dataset, EvaluateOptions(state=state))
    assert len(engine.shapes) == 1 and found.scores == expected.scores


def test_the_state_of_another_evaluation_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    state = tmp_path / "state.jsonl"
    evaluate(ToyEngine(contract()), dataset, EvaluateOptions(state=state))
    before = state.read_bytes()
    with pytest.raises(OptionError, match="network differ"):
        evaluate(ToyEngine(contract(network="other")), dataset, EvaluateOptions(state=state))
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"[]\n",
        b'{"kind": "something else"}\n',
        b'{"kind": "ffnet-deploy evaluation state", "format": 1}\n{"image": "a", "cells": [200], "counts": [1]}\n',
        b'{"kind": "ffnet-deploy evaluation state", "format": 1}\n{"image": 3}\n',
    ],
)
def test_what_is_no_state_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(ArtifactError, match="to do"):
        StateFile(tmp_path / "state", {}, 11)
    assert (tmp_path / "state").read_bytes() == content


@pytest.mark.parametrize("parts", [2, 3, 7, 9])
def test_parts_sum_to_the_whole(dataset: Dataset, parts: int) -> None:
    expected = evaluate(ToyEngine(contract()), dataset)
    found = merge(
        [evaluate(ToyEngine(contract()), dataset, part_of(EvaluateOptions(), part, parts)) for part in range(parts)],
        contract(),
    )
    assert found.scores == expected.scores and found.per_image == expected.per_image
    assert (found.images, found.notes) == (expected.images, expected.notes)


@pytest.mark.parametrize(
    "lines",
    [
        [{"kind": KIND, "format": 1}],
        [{"kind": KIND, "format": 1, "key": [1]}],
        [{"kind": KIND, "format": 1, "key": {}}, {"image": "a", "cells": [0], "counts": [-1], "notes": []}],
        [{"kind": KIND, "format": 1, "key": {}}, {"image": "a", "cells": [0], "counts": [10**15], "notes": []}],
    ],
)
def test_a_state_without_a_key_or_with_impossible_counts_is_damaged(lines: list[object], tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ArtifactError, match="no state of an evaluation"):
        StateFile(path, {}, 3)
