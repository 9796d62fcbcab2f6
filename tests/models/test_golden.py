"""The five networks give what the published code gives, from the same weights and inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import (
    PUBLISHED,
    Outputs,
    compact,
    key_hash,
    network_input,
    picture,
    read_keys,
    relative_error,
    run,
    samples,
    statistics,
    weight,
)

TOLERANCE = 1e-4
SIZES = ((64, 64), (96, 160))
WEIGHTS = -14.50391
"""Sum of the golden stem weights."""
PIXELS = 1734436
"""Sum of the golden picture of 64x64."""


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def check(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    error = relative_error(found, expected)
    print(f"{what}: {error:.1e} of the largest magnitude")
    assert error < TOLERANCE, f"{what}: {error:.1e}"


Comparison = tuple[str, Outputs, dict[str, np.ndarray]]
"""Config name and size, our outputs, and the published code's by kind."""


@pytest.fixture(scope="session")
def comparisons(golden_segmentor: tuple[str, Any], golden_folder: Path) -> dict[tuple[int, int], Comparison]:
    """What the segmentor gives and what the published code gave, by input size."""
    name, model = golden_segmentor
    with np.load(golden_folder / f"{PUBLISHED[name]}.npz") as file:
        recorded = dict(file)
    return {size: compared(name, model, size, recorded) for size in SIZES}


def compared(name: str, model: Any, size: tuple[int, int], recorded: dict[str, np.ndarray]) -> Comparison:
    suffix = f"_{size[0]}x{size[1]}"
    expected = {key.removesuffix(suffix): value for key, value in recorded.items() if key.endswith(suffix)}
    return f"{name} at {suffix[1:]}", run(model, *size), expected


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def published(request: pytest.FixtureRequest, comparisons: dict[tuple[int, int], Comparison]) -> Comparison:
    return comparisons[request.param]


def test_tensors_are_those_of_the_published_checkpoints(golden_segmentor: tuple[str, Any], golden_folder: Path) -> None:
    name, model = golden_segmentor
    expected, found = read_keys(golden_folder / f"{PUBLISHED[name]}.keys.tsv"), shapes(model)
    assert sorted(expected.keys() - found.keys()) == [], "missing"
    assert sorted(found.keys() - expected.keys()) == [], "unexpected"
    assert {key: (found[key], expected[key]) for key in expected if found[key] != expected[key]} == {}, "shapes"


def test_logits_equal_the_published_codes(published: Comparison) -> None:
    name, found, expected = published
    check(found.logits, expected["logits"], f"logits of {name}")


def test_auxiliary_logits_equal_the_published_codes(published: Comparison) -> None:
    name, found, expected = published
    assert (found.aux is None) == ("aux" not in expected)
    if found.aux is not None:
        check(found.aux, expected["aux"], f"auxiliary logits of {name}")


def test_features_have_the_published_codes_statistics(published: Comparison) -> None:
    name, found, expected = published
    recorded = [expected[f"feat{index}_stats"] for index in range(len(expected) - 1 - ("aux" in expected))]
    assert len(found.features) == len(recorded)
    for index, (feature, expectation) in enumerate(zip(found.features, recorded, strict=True)):
        check(statistics(feature), expectation, f"statistics of feature {index} of {name}")


def test_tensors_have_the_recorded_hash(golden_segmentor: tuple[str, Any]) -> None:
    name, model = golden_segmentor
    found = shapes(model)
    assert (len(found), key_hash(found)) == (compact()[name]["tensors"], compact()[name]["keys_sha256"])


def test_logits_equal_the_recorded_samples(golden_segmentor: tuple[str, Any]) -> None:
    name, model = golden_segmentor
    outputs = run(model, 64, 64)
    for kind, found in (("logits", outputs.logits), ("aux", outputs.aux)):
        recorded = compact()[name].get(kind)
        assert (found is None) == (recorded is None)
        if found is not None:
            error = np.abs(samples(found) - np.array(recorded["samples"])).max() / recorded["largest"]
            assert found.shape == tuple(recorded["shape"])
            assert abs(np.abs(found).max() / recorded["largest"] - 1) < TOLERANCE
            assert error < TOLERANCE, f"{kind} of {name}: {error:.1e}"


def test_weights_and_inputs_are_those_the_outputs_were_made_with() -> None:
    assert weight("backbone.patch_embed.0.c.weight", (64, 3, 3, 3)).astype(np.float64).sum() == pytest.approx(WEIGHTS)
    assert int(picture(64, 64).sum()) == PIXELS
    assert network_input(96, 160).shape == (1, 3, 96, 160)
