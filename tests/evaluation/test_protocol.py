from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.contract import DimensionRange, InputKind, OutputKind, TestProtocol
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.evaluation.protocol import MULTI_SCALE, PredictOptions, predict
from tests.toy import ToyEngine, contract, fixed, logits, picture, weights

WHOLE = TestProtocol(scale=(192, 128))
SLIDE = TestProtocol(scale=(192, 128), mode="slide", crop=(64, 96), stride=(43, 50))
WIDE = {"height": DimensionRange(32, 64, 512), "width": DimensionRange(32, 96, 1024)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """PyTorch's threads wait for each other longer than these small networks run."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class MmsegReference:
    """mmseg's EncoderDecoder, data preprocessor and test-time augmentation around the toy network."""

    def __init__(self, protocol: TestProtocol) -> None:
        self.torch = pytest.importorskip("torch")
        pytest.importorskip("mmseg")
        self.protocol = protocol
        self.model = self._model(protocol)

    def _model(self, protocol: TestProtocol) -> Any:
        from mmengine.config import ConfigDict
        from mmengine.model import BaseModule
        from mmseg.models.data_preprocessor import SegDataPreProcessor
        from mmseg.models.segmentors import EncoderDecoder
        from mmseg.registry import MODELS

        torch = self.torch
        kernel = torch.from_numpy(weights(11))

        class Backbone(BaseModule):
            def forward(self, images):
                return (torch.nn.functional.conv2d(images, kernel, stride=4),)

        if "ToyBackbone" not in MODELS:
            MODELS.register_module(name="ToyBackbone", module=Backbone)
        values = contract().normalization
        head = {
            "type": "FCNHead",
            "in_channels": 11,
            "channels": 11,
            "num_convs": 0,
            "num_classes": 11,
            "concat_input": False,
        }
        head |= {"align_corners": False, "dropout_ratio": 0}
        model = EncoderDecoder(
            backbone={"type": "ToyBackbone"},
            decode_head=head,
            test_cfg=ConfigDict(mode=protocol.mode, crop_size=protocol.crop, stride=protocol.stride),
            data_preprocessor=SegDataPreProcessor(mean=values.mean, std=values.std, bgr_to_rgb=True),
        ).eval()
        identity = torch.eye(11)[:, :, None, None]
        model.decode_head.conv_seg.weight.data.copy_(identity)
        model.decode_head.conv_seg.bias.data.zero_()
        return model

    def sample(self, path: Path, ratio: float = 1.0, flip: bool = False) -> dict[str, Any]:
        from mmcv.transforms import Compose, LoadImageFromFile, RandomFlip, Resize
        from mmseg.datasets.transforms import PackSegInputs, ResizeToMultiple

        scale = tuple(int(side * ratio) for side in self.protocol.scale)
        steps = [LoadImageFromFile(), Resize(scale=scale, keep_ratio=True), ResizeToMultiple(self.protocol.divisor)]
        steps += [RandomFlip(prob=1.0 if flip else 0.0), PackSegInputs()]
        return Compose(steps)({"img_path": str(path)})

    def predict(self, path: Path, options: PredictOptions) -> np.ndarray:
        from mmseg.models.segmentors import SegTTAModel

        flips = (False, True) if options.flip else (False,)
        with self.torch.no_grad():
            results = [
                self.model.test_step({"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]})[0]
                for packed in (self.sample(path, ratio, flip) for ratio in options.ratios for flip in flips)
            ]
        if len(results) > 1:
            merging = SegTTAModel(module=self.model)
            results = merging.merge_preds([results])
        return results[0].pred_sem_seg.data.numpy().squeeze().astype(np.uint8)


class TensorEngine(ToyEngine):
    """The toy network with its output left in a tensor, as engines on GPUs leave it."""

    keeps_output = True

    def run_on_device(self, batch: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(self.run(batch))


ONCE, FLIP, SCALES = PredictOptions(), PredictOptions(flip=True), PredictOptions(MULTI_SCALE, flip=True)


@pytest.mark.parametrize("kind", [ToyEngine, TensorEngine], ids=["host", "device"])
@pytest.mark.parametrize("protocol", [WHOLE, SLIDE], ids=["whole", "slide"])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((90, 140), ONCE),
        ((128, 192), ONCE),
        ((500, 333), ONCE),
        ((61, 300), ONCE),
        ((90, 140), FLIP),
        ((61, 300), FLIP),
        ((90, 140), SCALES),
    ],
)
def test_labels_equal_mmsegs(
    tmp_path: Path, size: tuple[int, int], protocol: TestProtocol, options: PredictOptions, kind: type[ToyEngine]
) -> None:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), picture(*size, seed=3))
    found = predict(kind(contract(**WIDE)), cv2.imread(str(path)), protocol, options)
    expected = MmsegReference(protocol).predict(path, options)
    agreement = float((found.labels == expected).mean())
    # float32 positions in torch's resize put near ties on the other side
    assert agreement > 0.999, f"{agreement:.5f}"
    assert found.notes == ()
    assert len(np.unique(found.labels)) > 3


@pytest.mark.parametrize("protocol", [WHOLE, SLIDE, replace(SLIDE, crop=(160, 224))], ids=["whole", "slide", "small"])
@pytest.mark.parametrize("options", [ONCE, SCALES], ids=["once", "scales"])
@pytest.mark.parametrize("size", [(90, 140), (129, 193), (61, 300)])
def test_labels_made_on_the_device_equal_those_made_on_the_host(
    size: tuple[int, int], options: PredictOptions, protocol: TestProtocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffnet_deploy.evaluation.finishing.DEVICE_VALUES", 11 * size[1] * 20)  # several bands
    image, described = picture(*size, seed=3), contract(**WIDE)
    found = predict(TensorEngine(described), image, protocol, options).labels
    expected = predict(ToyEngine(described), image, protocol, options).labels
    assert found.dtype == expected.dtype and (found == expected).mean() >= 0.99999


@pytest.mark.parametrize(
    ("pattern", "protocol"),
    [
        ("ade20k_sample/images/validation/*.jpg", TestProtocol(scale=(2048, 512))),
        ("camvid/images/val/*", TestProtocol(scale=(480, 360), mode="slide", crop=(256, 256), stride=(171, 171))),
    ],
)
def test_labels_equal_mmsegs_on_real_images(shared_data: Path, pattern: str, protocol: TestProtocol) -> None:
    described = contract(height=DimensionRange(32, 512, 2048), width=DimensionRange(32, 512, 2048))
    for path in sorted(shared_data.glob(pattern))[:3]:
        found = predict(ToyEngine(described), cv2.imread(str(path)), protocol).labels
        agreement = float((found == MmsegReference(protocol).predict(path, PredictOptions())).mean())
        assert agreement > 0.9995, f"{path.name}: {agreement:.6f}"


@pytest.mark.parametrize("size", [(64, 91), (60, 96), (64, 96), (130, 200)])
@pytest.mark.parametrize("options", [ONCE, FLIP])
def test_labels_do_not_depend_on_the_bands(
    size: tuple[int, int], options: PredictOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(ToyEngine(contract()), picture(*size), options=options).labels
    monkeypatch.setattr("ffnet_deploy.evaluation.finishing.BAND_VALUES", 11 * size[1] * 5)
    assert np.array_equal(predict(ToyEngine(contract()), picture(*size), options=options).labels, whole)


@pytest.mark.parametrize("kind", [InputKind.RGB, InputKind.BGR])
def test_uint8_inputs_give_the_same_labels(kind: InputKind) -> None:
    described = contract(input=kind)
    values, kernel = described.normalization, weights(11)

    def network(batch: np.ndarray) -> np.ndarray:
        rgb = batch if kind is InputKind.RGB else batch[..., ::-1]
        floats = (rgb.astype(np.float32) - np.float32(values.mean)) / np.float32(values.std)
        return logits(floats.transpose(0, 3, 1, 2), kernel)

    image = picture(70, 100)
    assert np.array_equal(
        predict(ToyEngine(described, network), image).labels, predict(ToyEngine(contract()), image).labels
    )


def test_windows_are_batched_as_the_artefact_allows() -> None:
    image, protocol = picture(128, 192), replace(SLIDE, divisor=1)
    engine = ToyEngine(contract(batch=DimensionRange(1, 2, 4)))
    expected = predict(engine, image, protocol)
    assert [shape[0] for shape in engine.shapes] == [4, 4, 1]
    for dimension, batch, seen in (
        (DimensionRange.fixed(1), 4, [1] * 9),
        (DimensionRange.fixed(2), 4, [2] * 5),
        (DimensionRange(1, 1, 8), 3, [3] * 3),
    ):
        engine = ToyEngine(contract(batch=dimension))
        found = predict(engine, image, protocol, PredictOptions(batch=batch))
        assert [shape[0] for shape in engine.shapes] == seen
        assert np.array_equal(found.labels, expected.labels)


def test_a_fixed_batch_is_filled_up() -> None:
    engine = ToyEngine(contract(batch=DimensionRange.fixed(3)))
    found = predict(engine, picture(60, 90))
    assert engine.shapes[0][0] == 3
    assert np.array_equal(found.labels, predict(ToyEngine(contract()), picture(60, 90)).labels)


def test_a_static_artefact_stretches_whole_images_and_says_so() -> None:
    engine = ToyEngine(contract(**fixed(64, 64)))
    found = predict(engine, picture(60, 90))
    assert engine.shapes == [(1, 3, 64, 64)]
    assert found.labels.shape == (60, 90)
    assert len(found.notes) == 1 and "64x64" in found.notes[0] and "96x64" in found.notes[0]


def test_a_static_artefact_of_the_protocols_size_has_nothing_to_note() -> None:
    engine = ToyEngine(contract(**fixed(64, 96)))
    assert predict(engine, picture(60, 90)).notes == ()


def test_sizes_out_of_range_are_an_error_that_names_them() -> None:
    with pytest.raises(OptionError, match=r"height of 160, and the artefact accepts 32\.\.128"):
        predict(
            ToyEngine(contract(height=DimensionRange(32, 64, 128))), picture(60, 90), TestProtocol(scale=(400, 150))
        )


def test_windows_must_fit_the_artefact() -> None:
    with pytest.raises(OptionError, match=r"windows of 64x96[\s\S]*height of 128[\s\S]*--crop 128x128"):
        predict(ToyEngine(contract(**fixed(128, 128))), picture(60, 90), SLIDE)


def test_windows_smaller_than_a_static_artefact_are_stretched() -> None:
    engine = ToyEngine(contract(**fixed(64, 96)))
    found = predict(engine, picture(40, 60), replace(SLIDE, scale=(48, 32)))
    assert engine.shapes == [(1, 3, 64, 96)]
    assert len(found.notes) == 1 and "stretched" in found.notes[0]


def test_sides_that_are_no_multiple_of_the_stride_are_enlarged() -> None:
    engine = ToyEngine(contract())
    found = predict(engine, picture(60, 90), TestProtocol(scale=(90, 60), divisor=1))
    assert engine.shapes == [(1, 3, 64, 96)]
    assert found.labels.shape == (60, 90) and len(found.notes) == 1


def test_multi_scale_needs_a_dynamic_artefact() -> None:
    with pytest.raises(OptionError, match=r"fixed \(64x96\)"):
        predict(ToyEngine(contract(**fixed(64, 96))), picture(60, 90), options=PredictOptions(MULTI_SCALE))


def labels_network(batch: np.ndarray) -> np.ndarray:
    best = logits(batch, weights(11)).argmax(axis=1).astype(np.uint8)
    return best.repeat(4, axis=1).repeat(4, axis=2)


def test_labels_are_resized_to_the_image() -> None:
    described = contract(output=OutputKind.LABELS)
    found = predict(ToyEngine(described, labels_network), picture(32, 48)).labels
    assert found.shape == (32, 48)
    exact = predict(ToyEngine(contract()), picture(32, 48)).labels
    assert (found == exact).mean() > 0.8


@pytest.mark.parametrize("options", [PredictOptions(flip=True), PredictOptions(MULTI_SCALE)])
def test_labels_cannot_be_averaged(options: PredictOptions) -> None:
    engine = ToyEngine(contract(output=OutputKind.LABELS), labels_network)
    with pytest.raises(OptionError, match="--output logits"):
        predict(engine, picture(60, 90), options=options)
    with pytest.raises(OptionError, match="9 windows"):
        predict(engine, picture(128, 192), replace(SLIDE, divisor=1))


def test_probabilities_are_compared_and_averaged_as_they_are() -> None:
    def network(batch: np.ndarray) -> np.ndarray:
        scores = logits(batch, weights(11)).repeat(4, axis=2).repeat(4, axis=3)
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)

    engine = ToyEngine(contract(output=OutputKind.PROBABILITIES), network)
    found = predict(engine, picture(64, 96), options=PredictOptions(flip=True)).labels
    whole = network(predicted_input(picture(64, 96)))[0]
    mirrored = network(predicted_input(picture(64, 96)[:, ::-1]))[0][:, :, ::-1]
    assert np.array_equal(found, (whole + mirrored).argmax(axis=0))


def predicted_input(image: np.ndarray) -> np.ndarray:
    from ffnet_deploy.evaluation.preprocessing import network_input

    return network_input(np.ascontiguousarray(image)[None], contract())


def test_values_that_are_not_finite_are_noted() -> None:
    engine = ToyEngine(contract(), lambda batch: np.full((len(batch), 11, 16, 24), np.nan, np.float32))
    assert "NaN" in predict(engine, picture(60, 90)).notes[0]


def test_an_output_of_another_shape_is_an_error() -> None:
    engine = ToyEngine(contract(), lambda batch: np.zeros((len(batch), 7, 16, 24), np.float32))
    with pytest.raises(ArtifactError, match=r"\(7, 16, 24\).*expected \(11, height, width\)"):
        predict(engine, picture(60, 90))
    engine = ToyEngine(contract(output=OutputKind.LABELS), lambda batch: np.zeros((len(batch), 1, 16, 24), np.uint8))
    with pytest.raises(ArtifactError, match="expected \\(height, width\\)"):
        predict(engine, picture(60, 90))


def test_half_precision_outputs_are_read() -> None:
    kernel = weights(11)
    engine = ToyEngine(contract(), lambda batch: logits(batch, kernel).astype(np.float16))
    agreement = (
        predict(engine, picture(60, 90)).labels == predict(ToyEngine(contract()), picture(60, 90)).labels
    ).mean()
    assert agreement > 0.99


def test_a_one_pixel_wide_image_is_predicted() -> None:
    assert predict(ToyEngine(contract()), picture(50, 1)).labels.shape == (50, 1)


@pytest.mark.parametrize("wrong", [{"ratios": ()}, {"ratios": (0.0,)}, {"batch": 0}])
def test_options_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        PredictOptions(**wrong)
