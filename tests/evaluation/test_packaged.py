"""The packaged scenes are what the generator draws, and belong to no training or validation split."""

import numpy as np

from ffnet_deploy.evaluation.images import read_image, read_label_map
from ffnet_deploy.evaluation.packaged import packaged_scenes
from scenes import SceneOptions, make_scene


def test_packaged_scenes_are_the_generators_to_the_pixel() -> None:
    scenes = packaged_scenes()
    assert len(scenes) == 8 and scenes.name == "scenes"
    for sample in scenes.samples:
        scene = make_scene(int(sample.name.removeprefix("scene_")), SceneOptions(384, 512))
        assert sample.labels is not None
        np.testing.assert_array_equal(read_image(sample.image), scene.image)
        np.testing.assert_array_equal(read_label_map(sample.labels), scene.labels)
