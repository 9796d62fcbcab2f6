"""The images that an export is verified on: the user's own, or generated street scenes when none are given."""

from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.export.verify import NamedImage
from ffnet_deploy.scenes import SceneOptions, make_scene

_FIRST_SEED = 1_000_000
_SIZE = SceneOptions(height=384, width=512)


def images_of(dataset: Dataset, count: int) -> list[NamedImage]:
    """The first `count` images of `dataset`.

    Raises:
        DataError: an image cannot be read.
    """
    return [NamedImage(sample.name, read_image(sample.image)) for sample in dataset.limited(count).samples]


def generated_images(count: int) -> list[NamedImage]:
    """`count` generated street scenes of 384 x 512 pixels, the same each time."""
    return [
        NamedImage(f"scene {seed}", make_scene(seed, _SIZE).image) for seed in range(_FIRST_SEED, _FIRST_SEED + count)
    ]
