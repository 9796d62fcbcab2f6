"""Label maps in phases and at borders, against the argmax of the enlarged logits."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ffnet_deploy.core.contract import OutputKind  # noqa: E402
from ffnet_deploy.export.network import Finish  # noqa: E402
from ffnet_deploy.export.rewrites.labels import BorderLabels, PhaseLabels, makes_even_labels  # noqa: E402

FORMS = (PhaseLabels, BorderLabels)


def logits(batch: int, classes: int, height: int, width: int) -> Tensor:
    """Regions with borders between them, and noise."""
    torch.manual_seed(0)
    coarse = torch.randn(batch, classes, max(height // 4, 1), max(width // 4, 1), dtype=torch.float64)
    smooth = functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return smooth * 4 + torch.randn(batch, classes, height, width, dtype=torch.float64) * 0.3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stride", [2, 4, 8])
@pytest.mark.parametrize("shape", [(1, 5, 1, 1), (1, 5, 1, 7), (2, 19, 12, 9), (1, 150, 16, 16)])
def test_labels_are_those_of_the_enlarged_logits(
    form: type[nn.Module], stride: int, shape: tuple[int, int, int, int]
) -> None:
    given = logits(*shape)
    found, expected = form(stride)(given), Finish(OutputKind.LABELS, stride)(given)
    assert found.dtype is torch.uint8
    assert torch.equal(found, expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_one_label_everywhere(form: type[nn.Module], value: float) -> None:
    given = torch.zeros(2, 4, 5, 6)
    given[:, 3] = value
    assert torch.equal(form(4)(given), Finish(OutputKind.LABELS, 4)(given))


def test_only_labels_of_an_even_stride_are_made_in_cells() -> None:
    assert makes_even_labels(Finish(OutputKind.LABELS, 8))
    assert not makes_even_labels(Finish(OutputKind.LABELS, 1))
    assert not makes_even_labels(Finish(OutputKind.LOGITS, 8))
