"""A checkpoint's tensors find their places, or the error says where they do not."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

from torch import Tensor  # noqa: E402

from ffnet_deploy.core.errors import CheckpointError  # noqa: E402
from ffnet_deploy.segmentor.checkpoint import Checkpoint  # noqa: E402
from ffnet_deploy.segmentor.config import (  # noqa: E402
    SegmentorConfig,
    build_segmentor,
    load_config,
)
from ffnet_deploy.segmentor.weights import fitting_configs, grouped, load_weights, shapes_of  # noqa: E402
from tests.golden import PUBLISHED  # noqa: E402

SMALL = """
model = dict(
    type="EncoderDecoder",
    backbone=dict(type="FFNet", depths=(1, 1, 1, 1), dims=(8, 16, 32, 64)),
    decode_head=dict(
        type="UPerHead", in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3], channels=8, num_classes=5,
        norm_cfg=dict(type="BN"), align_corners=False),
    auxiliary_head=dict(
        type="FCNHead", in_channels=32, in_index=2, channels=8, num_convs=1, concat_input=False, num_classes=5,
        norm_cfg=dict(type="BN"), align_corners=False),
)
"""
CLASSIFIER = {f"{name}.weight": torch.zeros(4) for name in ("norm", "head", "head1", "head2")}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SegmentorConfig:
    """A small segmentor with an auxiliary head."""
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(SMALL)
    return load_config(path)


def weights(config: SegmentorConfig, seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = build_segmentor(config).state_dict()
    return {name: torch.rand_like(value) if value.is_floating_point() else value for name, value in state.items()}


def on_meta(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(build_segmentor(load_config(name)).state_dict())


def load(config: SegmentorConfig, tensors: dict[str, Tensor]) -> tuple[Any, Any]:
    model = build_segmentor(config)
    return model, load_weights(model, Checkpoint(Path("some.pth"), tensors), config)


def refusal(config: SegmentorConfig, tensors: dict[str, Tensor]) -> str:
    model = build_segmentor(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, Checkpoint(Path("some.pth"), tensors), config)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "half loaded"
    return str(caught.value)


def test_every_tensor_is_loaded(small: SegmentorConfig) -> None:
    tensors = weights(small)
    model, report = load(small, tensors)
    assert all(torch.equal(value, tensors[name]) for name, value in model.state_dict().items())
    assert (report.loaded, report.notes()) == (len(tensors), [])


def test_half_precision_is_widened(small: SegmentorConfig) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in weights(small).items()}
    model, _ = load(small, half)
    assert all(torch.equal(value, half[name].to(value.dtype)) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_a_missing_auxiliary_head_is_reported(small: SegmentorConfig) -> None:
    tensors = {name: value for name, value in weights(small).items() if not name.startswith("auxiliary_head.")}
    _, report = load(small, tensors)
    assert report.notes() == [
        "not in the checkpoint, only used in training: auxiliary_head.conv_seg "
        "(2 tensors, first auxiliary_head.conv_seg.weight)",
        "not in the checkpoint, only used in training: auxiliary_head.convs "
        "(5 tensors, first auxiliary_head.convs.0.conv.weight)",
    ]


def test_an_auxiliary_head_for_other_classes_is_left_out(small: SegmentorConfig) -> None:
    tensors = weights(small) | {"auxiliary_head.conv_seg.weight": torch.zeros(7, 8, 1, 1)}
    _, report = load(small, tensors)
    assert report.untouched == ("auxiliary_head.conv_seg.weight",)


def test_a_surplus_auxiliary_head_and_classifier_keys_are_reported() -> None:
    config = load_config("ffnet_seg_nano_scenes")
    surplus = {"auxiliary_head.conv_seg.weight": torch.zeros(1)}
    surplus |= {f"backbone.{name}": value for name, value in CLASSIFIER.items()}
    _, report = load(config, weights(config) | surplus)
    assert set(report.ignored) == set(surplus)
    assert all(line.startswith("not needed: ") for line in report.notes())


def test_batch_counters_may_be_missing(small: SegmentorConfig) -> None:
    tensors = {name: value for name, value in weights(small).items() if not name.endswith("num_batches_tracked")}
    assert load(small, tensors)[1].notes() == []


def test_missing_tensors_are_grouped(small: SegmentorConfig) -> None:
    tensors = weights(small)
    gone = [name for name in tensors if name.startswith(("backbone.stages.2.", "decode_head.fpn_convs."))]
    message = refusal(small, {name: value for name, value in tensors.items() if name not in gone})
    counted = [name for name in gone if not name.endswith("num_batches_tracked")]
    stages = sum(name.startswith("backbone") for name in counted)
    assert f"missing  backbone.stages.2 ({stages} tensors, first backbone.stages.2.0." in message
    assert f"missing  decode_head.fpn_convs ({len(counted) - stages} tensors" in message


def test_unknown_tensors_are_named(small: SegmentorConfig) -> None:
    message = refusal(small, weights(small) | {"backbone.extra.weight": torch.zeros(1)})
    assert "unknown  backbone.extra.weight" in message
    assert "use the config it was trained with" in message


def test_another_number_of_classes_is_told(small: SegmentorConfig) -> None:
    other = {"decode_head.conv_seg.weight": torch.zeros(19, 8, 1, 1), "decode_head.conv_seg.bias": torch.zeros(19)}
    message = refusal(small, weights(small) | other)
    assert "classes  the checkpoint predicts 19, the config 5" in message
    assert "shapes   decode_head.conv_seg (2 tensors" in message


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_checkpoint_of_another_model_names_the_config_that_fits(name: str, small: SegmentorConfig) -> None:
    assert f"to do    use --config {name}" in refusal(small, on_meta(name))


def test_the_config_that_fits_needs_no_auxiliary_head() -> None:
    name = "upernet_ffnet_2_512_160k_ade20k"
    found = shapes_of({key: value for key, value in on_meta(name).items() if not key.startswith("auxiliary_head.")})
    assert fitting_configs(found) == [name]


@pytest.mark.parametrize("extra", [{}, CLASSIFIER])
def test_a_bare_backbone_is_sent_to_fine_tuning(small: SegmentorConfig, extra: dict[str, Tensor]) -> None:
    tensors = weights(small)
    bare = {name.removeprefix("backbone."): tensors[name] for name in tensors if name.startswith("backbone.")}
    message = refusal(small, bare | extra)
    assert "some.pth holds no segmentor" in message and "as of an ImageNet classifier" in message
    assert "to do    start a fine-tuning from it:  ffnet-train --config small --load some.pth" in message


def test_groups_beyond_the_limit_are_counted() -> None:
    assert grouped([f"part{i}.a.b" for i in range(5)], limit=2) == ["part0.a.b", "part1.a.b", "and 3 more groups"]
