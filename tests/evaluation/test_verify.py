"""The gate opens for the same network and closes for any other."""

from dataclasses import replace

import numpy as np
import pytest

from ffnet_deploy.core.contract import Contract, DimensionRange, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.label_sets import label_set
from ffnet_deploy.evaluation.verify import (
    ImageDifference,
    Tolerance,
    Verification,
    VerifyOptions,
    compare,
    packaged_images,
    verification_sizes,
    verify,
)

LABELS = label_set("scenes")
CONTRACT = Contract(
    "toy", "scenes", LABELS.classes, LABELS.palette, height=DimensionRange.fixed(64), width=DimensionRange.fixed(96)
)


class Slopes:
    """Logits that follow the picture, with a planted error at one position of one class."""

    name = "slopes"

    def __init__(self, error: float = 0.0, contract: Contract = CONTRACT) -> None:
        self.contract = contract
        self.error = error

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = np.stack([batch[:, index % 3, ::8, ::8] * (index + 1) for index in range(8)], axis=1)
        logits[0, 3, 2, 2] += self.error
        if self.contract.output is OutputKind.LABELS:
            return logits.argmax(1).astype(np.uint8)
        return logits.astype(np.float32)

    def close(self) -> None: ...

    def __enter__(self) -> "Slopes":
        return self

    def __exit__(self, *_: object) -> None: ...


def test_equal_engines_pass() -> None:
    result = verify(Slopes(), Slopes(), VerifyOptions(packaged_images(2), "packaged"))
    assert result.passed
    assert [row.largest for row in result.comparisons] == [0, 0]
    assert [row.agreement for row in result.comparisons] == [100, 100]


def test_planted_error_is_measured_and_refused() -> None:
    result = verify(Slopes(), Slopes(error=0.5), VerifyOptions(packaged_images(1), "packaged"))
    assert result.comparisons[0].largest == pytest.approx(0.5, rel=1e-3)
    assert not result.passed
    assert "relative error" in result.failures[0]
    assert "scene_1000000 at 64x96" in result.failures[0]


def test_nan_is_refused() -> None:
    assert not verify(Slopes(), Slopes(error=float("nan")), VerifyOptions(packaged_images(1), "packaged")).passed


def test_label_maps_are_compared_by_agreement() -> None:
    contract = replace(CONTRACT, output=OutputKind.LABELS)
    images = packaged_images(1)
    row = compare(Slopes(contract=contract), Slopes(error=1e6, contract=contract), images, (64, 96))
    assert row.agreement == pytest.approx(100 * (1 - 1 / 96), rel=1e-6)
    strict = Verification("a", "b", OutputKind.LABELS, (row,), Tolerance(agreement=99.9))
    assert "label agreement" in strict.failures[0]


def test_fall_of_miou_is_refused_and_a_rise_is_not() -> None:
    row = ImageDifference("x", (64, 96), 0, 0, 1, 100, 384)
    falls = Verification("a", "b", OutputKind.LOGITS, (row,), Tolerance(), miou=(60.0, 59.9))
    rises = replace(falls, miou=(59.9, 60.0))
    assert falls.failures == ["mIoU fell by 0.100 points, more than 0.05"]
    assert rises.passed


def test_pooled_agreement_weighs_images_by_their_positions() -> None:
    large, tiny = ImageDifference("a", (64, 96), 0, 0, 1, 99.9, 9_600), ImageDifference("b", (32, 32), 0, 0, 1, 75.0, 4)
    each = Verification("x", "y", OutputKind.LABELS, (large, tiny), Tolerance(agreement=99.5))
    together = replace(each, tolerance=Tolerance(agreement=99.5, pooled=True))
    assert each.failures == ["label agreement 75.000 % < 99.5 % on b at 32x32"]
    assert together.passed
    assert together.agreement == pytest.approx(100 * (9_590.4 + 3) / 9_604)
    assert not replace(together, tolerance=Tolerance(agreement=99.95, pooled=True)).passed


def test_dynamic_sizes_are_verified_at_the_extremes_and_off_the_square() -> None:
    contract = replace(CONTRACT, height=DimensionRange(32, 64, 128), width=DimensionRange(64, 96, 128))
    assert verification_sizes(contract) == [(64, 96), (96, 128), (32, 96), (64, 64), (32, 64)]
    sizes = [
        row.size
        for row in verify(
            Slopes(contract=contract), Slopes(contract=contract), VerifyOptions(packaged_images(1), "packaged")
        ).comparisons
    ]
    assert sizes == verification_sizes(contract)


class Mixer(Slopes):
    """Right for one image, wrong for several: every image gets the first one's logits."""

    def run(self, batch: np.ndarray) -> np.ndarray:
        logits = super().run(batch)
        return np.repeat(logits[:1], len(logits), axis=0)


def test_images_mixed_up_within_a_batch_are_found() -> None:
    contract = replace(CONTRACT, batch=DimensionRange(1, 1, 8))
    images = packaged_images(2)
    assert not verify(Slopes(contract=contract), Mixer(contract=contract), VerifyOptions(images, "packaged")).passed
    assert verify(Slopes(contract=contract), Slopes(contract=contract), VerifyOptions(images, "packaged")).passed


def test_record_tells_everything() -> None:
    record = verify(Slopes(), Slopes(), VerifyOptions(packaged_images(1), "packaged")).to_dict()
    assert record["passed"] is True
    assert record["comparisons"][0]["relative"] == 0
    assert record["tolerance"]["relative"] == 1e-4


@pytest.mark.parametrize("wrong", [{"relative": -1}, {"agreement": 101}, {"miou": -0.1}])
def test_senseless_tolerances_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        Tolerance(**wrong)
