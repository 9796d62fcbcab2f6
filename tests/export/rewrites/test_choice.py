"""Which rewrites a graph gets."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("mmseg")

from ffnet_deploy.core.contract import OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.backend import Backend
from ffnet_deploy.export.rewrites import LABEL_FORMS, Rewrite
from ffnet_deploy.export.rewrites.choice import (
    FEWEST_OPERATIONS,
    MeasuredForm,
    Measurement,
    Use,
    automatic,
    choose,
    measurements,
)

SQUEEZE, MATRIX = Rewrite.SQUEEZE_FIRST, Rewrite.MATRIX_RESIZE
USE = Use(Backend.ONNXRUNTIME, "mine", "FFNetHead", OutputKind.LOGITS, (512, 512))


def row(network: str, side: int, *forms: tuple[tuple[Rewrite, ...], float], labels: bool = False) -> Measurement:
    return Measurement(
        backend=Backend.ONNXRUNTIME,
        network=network,
        decoder="FFNetHead",
        output=OutputKind.LABELS if labels else OutputKind.LOGITS,
        size=(side, side),
        forms=tuple(MeasuredForm(rewrites, milliseconds) for rewrites, milliseconds in forms),
        machine="a machine",
    )


TABLE = [
    row("small", 256, ((), 9.0), ((SQUEEZE,), 8.0)),
    row("large", 1024, ((), 9.0), ((SQUEEZE, MATRIX), 7.0), ((MATRIX,), 8.0)),
    row("large", 1024, ((), 9.0), ((Rewrite.BORDER_LABELS,), 7.0), labels=True),
]


def use(network: str = "mine", side: int = 512, output: OutputKind = OutputKind.LOGITS) -> Use:
    return Use(Backend.ONNXRUNTIME, network, "FFNetHead", output, (side, side))


def test_fastest_form_of_the_nearest_size_is_taken() -> None:
    assert automatic(use(side=288), TABLE).rewrites == (SQUEEZE,)
    assert automatic(use(side=800), TABLE).rewrites == (SQUEEZE, MATRIX)


def test_the_network_itself_counts_before_others() -> None:
    choice = automatic(use("small", 1024), TABLE)
    assert choice.rewrites == (SQUEEZE,)
    assert choice.reason == "best of 2 for onnxruntime: small 256x256 on a machine"


def test_of_forms_that_are_as_fast_the_one_with_fewer_operations_is_taken() -> None:
    near = row("mine", 512, ((), 8.6), ((MATRIX,), 8.3), ((SQUEEZE,), 8.7), ((SQUEEZE, MATRIX), 8.8))
    assert automatic(use(), [near]).rewrites == (SQUEEZE,)
    far = row("mine", 512, ((MATRIX,), 8.3), ((SQUEEZE,), 8.8))
    assert automatic(use(), [far]).rewrites == (MATRIX,)


def test_labels_are_chosen_apart() -> None:
    choice = automatic(use("small", 256, OutputKind.LABELS), TABLE)
    assert choice.rewrites == (SQUEEZE, Rewrite.BORDER_LABELS)


@pytest.mark.parametrize("backend", [Backend.TENSORRT, Backend.TENSORRT_RTX])
def test_what_is_not_measured_takes_the_fewest_operations(backend: Backend) -> None:
    choice = choose("auto", Use(backend, "mine", "FFNetHead", OutputKind.LABELS, (512, 512)))
    assert choice.rewrites == FEWEST_OPERATIONS
    assert "nothing is measured for trt" in choice.reason


def test_names_are_taken_as_they_are() -> None:
    assert choose("none", USE).rewrites == ()
    assert choose("matrix-resize, squeeze-first", USE).rewrites == (SQUEEZE, MATRIX)
    with pytest.raises(OptionError, match=r"--rewrite takes auto, none, or of squeeze-first.*not 'squeeze'"):
        choose("squeeze", USE)


def test_the_packaged_table_can_be_read() -> None:
    for measured in measurements():
        assert len(measured.forms) > 1
        assert () in [tuple(name for name in form.rewrites if name not in LABEL_FORMS) for form in measured.forms] or (
            measured.output is OutputKind.LABELS
        )
