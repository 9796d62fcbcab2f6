import numpy as np
import pytest

from ffnet_deploy.evaluation.windows import Box, ScoredWindow, ScoreMap, window_boxes


def reference_boxes(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> list[tuple[int, ...]]:
    """(top, bottom, left, right) of the windows that mmseg's slide_inference cuts, recorded from its network calls."""
    torch = pytest.importorskip("torch")
    segmentors = pytest.importorskip("mmseg.models.segmentors")
    from mmengine.config import ConfigDict

    seen = []

    class Recording(segmentors.EncoderDecoder):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.test_cfg = ConfigDict(mode="slide", stride=stride, crop_size=crop)
            self.out_channels = 1

        def encode_decode(self, inputs, metas):
            rows, columns = inputs[0, 0, :, 0], inputs[0, 1, 0, :]
            seen.append((int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1))
            return inputs[:, :1]

    rows, columns = torch.meshgrid(torch.arange(float(size[0])), torch.arange(float(size[1])), indexing="ij")
    Recording().slide_inference(torch.stack([rows, columns])[None], [{}])
    return seen


@pytest.mark.parametrize(
    ("size", "crop", "stride"),
    [
        ((64, 128), (64, 64), (48, 48)),
        ((100, 250), (64, 64), (43, 43)),
        ((40, 128), (64, 64), (48, 48)),
        ((40, 30), (64, 64), (48, 48)),
        ((128, 256), (64, 96), (64, 30)),
        ((65, 129), (64, 64), (64, 64)),
    ],
)
def test_windows_lie_where_mmsegs_do(size: tuple[int, int], crop: tuple[int, int], stride: tuple[int, int]) -> None:
    boxes = window_boxes(size, crop, stride)
    assert [(box.top, box.bottom, box.left, box.right) for box in boxes] == reference_boxes(size, crop, stride)


def test_cityscapes_takes_three_windows() -> None:
    boxes = window_boxes((1024, 2048), (1024, 1024), (768, 768))
    assert [(box.top, box.left) for box in boxes] == [(0, 0), (0, 768), (0, 1024)]


def test_overlaps_are_averaged() -> None:
    windows = tuple(
        ScoredWindow(Box(0, left, 2, 4), np.full((1, 1, 1), value, np.float32)) for left, value in ((0, 1), (2, 3))
    )
    assert ScoreMap((2, 6), windows).rows(0, 2)[0, :, 0].tolist() == [1, 1, 2, 2, 3, 3]
    assert ScoreMap((2, 6), windows, mirrored=True).rows(0, 1)[0, :, 0].tolist() == [3, 3, 2, 2, 1, 1]
