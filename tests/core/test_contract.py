import json
from dataclasses import replace
from typing import Any

import pytest

from ffnet_deploy.core.contract import (
    Contract,
    DimensionRange,
    InputKind,
    Normalization,
    OutputKind,
    TestProtocol,
    check_multiples,
    nearest_multiples,
)
from ffnet_deploy.core.errors import ArtifactError, OptionError
from tests.toy import contract

SLIDING = TestProtocol((2048, 1024), divisor=1, mode="slide", crop=(1024, 1024), stride=(768, 768))


@pytest.mark.parametrize(
    "described",
    [
        contract(),
        contract(input=InputKind.BGR, output=OutputKind.LABELS, protocol=SLIDING),
        contract(normalization=Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), sources={}),
    ],
)
def test_json_brings_back_the_same_contract(described: Contract) -> None:
    assert Contract.from_json(described.to_json()) == described
    assert Contract.from_json(described.to_json()).to_json() == described.to_json()


def test_the_same_contract_is_the_same_text() -> None:
    assert contract(sources={"a": "1", "b": "2"}).to_json() == contract(sources={"b": "2", "a": "1"}).to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"input": "audio"},
        {"batch": {"min": 2, "opt": 1, "max": 1}},
        {"batch": 3},
        {"palette": [[0, 0]]},
        {"classes": ["one"]},
        {"protocol": {"mode": "slide"}},
        {"protocol": {"unknown": 1}},
        {"normalization": {"mean": [1], "std": [1]}},
        {"sources": None},
    ],
)
def test_a_damaged_description_is_one_clear_error(changes: dict[str, Any]) -> None:
    text = json.dumps({**json.loads(contract().to_json()), **changes})
    with pytest.raises(ArtifactError, match=r"description is damaged[\s\S]*ffnet-export"):
        Contract.from_json(text)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}"])
def test_text_that_is_no_description_is_one_clear_error(text: str) -> None:
    with pytest.raises(ArtifactError, match="description is damaged"):
        Contract.from_json(text)


@pytest.mark.parametrize(("size", "near"), [(1, (32, 64)), (33, (32, 64)), (500, (480, 512)), (513, (512, 544))])
def test_errors_name_the_nearest_sizes(size: int, near: tuple[int, int]) -> None:
    assert nearest_multiples(size) == near
    with pytest.raises(
        OptionError, match=f"height {size} is not a multiple of 32; the nearest are {near[0]} and {near[1]}"
    ):
        check_multiples("height", DimensionRange(size, size, size))


def test_every_size_of_a_range_is_checked() -> None:
    check_multiples("width", DimensionRange(32, 64, 96))
    with pytest.raises(OptionError, match="width 97"):
        check_multiples("width", DimensionRange(32, 64, 97))


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 3), (1, 4, 3), (-1, -1, -1)])
def test_ranges_rise_from_at_least_one(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(OptionError, match="must rise"):
        DimensionRange(*sizes)


def test_ranges_know_what_they_accept() -> None:
    dimension = DimensionRange(32, 64, 128)
    assert 32 in dimension and 128 in dimension and 31 not in dimension and 129 not in dimension
    assert (str(dimension), str(DimensionRange.fixed(7))) == ("32..128", "7")
    assert contract().is_dynamic
    assert not replace(contract(), **dict.fromkeys(("batch", "height", "width"), DimensionRange.fixed(32))).is_dynamic


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TestProtocol(mode="tiles"),
        lambda: TestProtocol(mode="slide", crop=(64, 64)),
        lambda: TestProtocol(scale=(0, 512)),
        lambda: TestProtocol(divisor=0),
        lambda: Normalization((1.0, 2.0), (1.0, 1.0, 1.0)),  # type: ignore[arg-type]
        lambda: Normalization((1.0, 2.0, 3.0), (1.0, 0.0, 1.0)),
        lambda: contract(palette=((0, 0, 0),)),
        lambda: contract(output=OutputKind.LABELS, classes=("x",) * 256, palette=((0, 0, 0),) * 256),
    ],
)
def test_options_that_cannot_be_are_refused(wrong: Any) -> None:
    with pytest.raises(OptionError):
        wrong()


@pytest.mark.parametrize("stride", [(64, 97), (0, 96), (65, 96)])
def test_windows_that_leave_gaps_are_refused(stride: tuple[int, int]) -> None:
    with pytest.raises(OptionError, match="windows must touch"):
        TestProtocol(mode="slide", crop=(64, 96), stride=stride)
