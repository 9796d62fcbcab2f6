"""Parameters and multiply-adds of the networks are those of the published table."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from ffnet_deploy.models import ffnet_1  # noqa: E402
from ffnet_deploy.segmentor.config import build_segmentor, load_config  # noqa: E402

TABLE = [
    ("upernet_ffnet_2_512_160k_ade20k", "58.40", "941.6", (512, 2048)),
    ("upernet_ffnet_3_512_160k_ade20k", "80.47", "1009.2", (512, 2048)),
    ("upernet_ffnet_4_512_160k_ade20k", "113.38", "1157.3", (512, 2048)),
    ("ffnet_seg_512_ade_160k", "68.48", "74.57", (512, 512)),
    ("ffnet_seg_1024_city_160k", "67.76", "572.6", (1024, 2048)),
]


def without_memory(name: str) -> Any:
    """The segmentor as shapes alone."""
    with torch.device("meta"):
        return build_segmentor(load_config(name)).eval()


def multiply_adds(model: Any, height: int, width: int) -> int:
    """Multiply-adds of backbone and decoder: convolutions, and average pooling as one for each element it reads.

    Convolutions alone make 1009.147 G for FFNet-3; its published 1009.2 holds the 0.003 G of the pyramid's pooling.
    """
    counts = []

    def count(module: Any, inputs: Any, output: Any) -> None:
        convolves = isinstance(module, torch.nn.Conv2d)
        counts.append(output.numel() * module.weight[0].numel() if convolves else inputs[0].numel())

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.AdaptiveAvgPool2d):
            module.register_forward_hook(count)
    with torch.no_grad():
        model.decode_head(model.backbone(torch.empty(1, 3, height, width, device="meta")))
    return sum(counts)


def rounded(count: int, unit: float, like: str) -> str:
    return f"{count / unit:.{len(like.partition('.')[2])}f}"


@pytest.mark.parametrize(("name", "parameters", "macs", "size"), TABLE, ids=[row[0] for row in TABLE])
def test_parameters_and_macs_are_the_published_ones(
    name: str, parameters: str, macs: str, size: tuple[int, int]
) -> None:
    model = without_memory(name)
    assert rounded(sum(value.numel() for value in model.parameters()), 1e6, parameters) == parameters
    assert rounded(multiply_adds(model, *size), 1e9, macs) == macs


@pytest.mark.parametrize(("name", "stride"), [(TABLE[0][0], 4), (TABLE[3][0], 8)])
def test_logits_have_the_stride_of_the_decoder(name: str, stride: int) -> None:
    model = without_memory(name)
    logits = model.decode_head(model.backbone(torch.empty(2, 3, 64, 96, device="meta")))
    assert logits.shape == (2, 150, 64 // stride, 96 // stride)


def test_ffnet_1_is_a_backbone_too() -> None:
    with torch.device("meta"):
        features = ffnet_1().eval()(torch.zeros(1, 3, 64, 96))
    assert [tuple(feature.shape) for feature in features] == [
        (1, 80, 16, 24),
        (1, 160, 8, 12),
        (1, 320, 4, 6),
        (1, 640, 2, 3),
    ]
