"""The whole way from an image file to its label map, with a published network, as MMSegmentation goes it."""

from pathlib import Path

import pytest

from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.evaluation.protocol import predict

torch = pytest.importorskip("torch")
pytest.importorskip("mmseg")

SIDES = DimensionRange(32, 512, 8192)


@pytest.mark.slow
def test_label_maps_of_ffnet_seg_are_those_of_mmseg(shared_data: Path) -> None:
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope

    from ffnet_deploy.engines.torch import TorchEngine
    from ffnet_deploy.segmentor.load import open_segmentor
    from tests import golden

    segmentor = open_segmentor("ffnet_seg_512_ade_160k")
    golden.fill(segmentor.model)
    engine = TorchEngine(segmentor.model, segmentor.contract(height=SIDES, width=SIDES))
    steps = [step for step in segmentor.config.cfg.test_pipeline if step["type"] != "LoadAnnotations"]
    images = sorted((shared_data / "ade20k_sample" / "images" / "validation").glob("*.jpg"))[:3]
    with DefaultScope.overwrite_default_scope("mmseg"), torch.no_grad():
        pipeline = Compose(steps)
        for image in images:
            packed = pipeline({"img_path": str(image)})
            batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
            expected = segmentor.model.test_step(batch)[0].pred_sem_seg.data[0].numpy()
            agreement = (predict(engine, read_image(image)).labels == expected).mean()
            print(f"{image.name}: {agreement:.6f}")
            assert agreement > 0.9999
