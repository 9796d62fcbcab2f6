from pathlib import Path

import cv2
import numpy as np
import pytest

from ffnet_deploy.core.contract import InputKind, Normalization, TestProtocol
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.evaluation.preprocessing import network_input, normalized, rescaled_size, resize_for_test
from tests.toy import contract, picture

ADE20K = TestProtocol(scale=(2048, 512))
CITYSCAPES = TestProtocol(scale=(2048, 1024), divisor=1)
CAMVID = TestProtocol(scale=(480, 360))


def mmseg_input(path: Path, protocol: TestProtocol, ratio: float = 1.0) -> np.ndarray:
    """The tensor that mmseg's own pipeline and data preprocessor make of the image, (1, 3, height, width)."""
    transforms = pytest.importorskip("mmseg.datasets.transforms")
    from mmcv.transforms import Compose, LoadImageFromFile, Resize
    from mmseg.models.data_preprocessor import SegDataPreProcessor

    scale = tuple(int(side * ratio) for side in protocol.scale)
    steps = [LoadImageFromFile(), Resize(scale=scale, keep_ratio=protocol.keep_ratio)]
    steps += [transforms.ResizeToMultiple(protocol.divisor)] if protocol.divisor > 1 else []
    packed = Compose([*steps, transforms.PackSegInputs(meta_keys=())])({"img_path": str(path)})
    values = Normalization()
    prepare = SegDataPreProcessor(mean=values.mean, std=values.std, bgr_to_rgb=True)
    return prepare({"inputs": [packed["inputs"]], "data_samples": None})["inputs"].numpy()


def our_input(path: Path, protocol: TestProtocol, ratio: float = 1.0) -> np.ndarray:
    return normalized(resize_for_test(read_image(path), protocol, ratio)[None], Normalization())


@pytest.mark.parametrize(
    ("pattern", "protocol", "every"),
    [
        ("ade20k_sample/images/*/*.jpg", ADE20K, 1),
        ("cityscapes_sample/leftImg8bit/*/*/*.png", CITYSCAPES, 1),
        ("camvid/images/val/*", CAMVID, 5),
        ("camvid/images/val/*", ADE20K, 25),
    ],
)
def test_inputs_are_bit_identical_with_mmsegs_pipeline(
    shared_data: Path, pattern: str, protocol: TestProtocol, every: int
) -> None:
    files = sorted(shared_data.glob(pattern))[::every]
    assert files
    different = [
        path.name for path in files if not np.array_equal(our_input(path, protocol), mmseg_input(path, protocol))
    ]
    assert not different, f"{len(different)} of {len(files)} differ: {different[:5]}"


@pytest.mark.parametrize("ratio", [0.5, 0.75, 1.25, 1.75])
def test_scaled_inputs_are_bit_identical_too(shared_data: Path, ratio: float) -> None:
    path = min(shared_data.glob("ade20k_sample/images/validation/*.jpg"))
    assert np.array_equal(our_input(path, ADE20K, ratio), mmseg_input(path, ADE20K, ratio))


@pytest.mark.parametrize("size", [(500, 1), (1, 500), (3000, 1), (333, 517), (7, 7), (33, 2000)])
@pytest.mark.parametrize("protocol", [ADE20K, TestProtocol(scale=(96, 64), keep_ratio=False, divisor=1)])
def test_odd_shapes_are_bit_identical(tmp_path: Path, size: tuple[int, int], protocol: TestProtocol) -> None:
    path = tmp_path / "odd.png"
    cv2.imwrite(str(path), picture(*size))
    found = our_input(path, protocol)
    assert np.array_equal(found, mmseg_input(path, protocol))
    assert found.shape[2] % protocol.divisor == found.shape[3] % protocol.divisor == 0


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((512, 683), (2048, 512), (512, 683)),
        ((375, 500), (512, 2048), (512, 683)),
        ((100, 1000), (2048, 512), (205, 2048)),
    ],
)
def test_sizes_keep_the_ratio(size: tuple[int, int], scale: tuple[int, int], expected: tuple[int, int]) -> None:
    assert rescaled_size(*size, scale) == expected


def test_an_image_too_narrow_to_shrink_is_an_error() -> None:
    with pytest.raises(DataError, match="1x5000"):
        resize_for_test(np.zeros((5000, 1, 3), np.uint8), ADE20K)


def test_inputs_of_each_kind() -> None:
    images = np.stack([picture(32, 64, seed) for seed in (0, 1)])
    bgr = network_input(images, contract(input=InputKind.BGR))
    rgb = network_input(images, contract(input=InputKind.RGB))
    floats = network_input(images, contract())
    assert np.array_equal(bgr, images)
    assert np.array_equal(rgb, images[..., ::-1])
    assert bgr.dtype == rgb.dtype == np.uint8
    assert floats.dtype == np.float32 and floats.shape == (2, 3, 32, 64)
    assert rgb.flags.c_contiguous and floats.flags.c_contiguous
    values = Normalization()
    np.testing.assert_allclose(floats[1, 0], (images[1, ..., 2] - values.mean[0]) / values.std[0], rtol=1e-5, atol=1e-6)
