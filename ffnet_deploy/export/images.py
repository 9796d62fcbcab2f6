"""The images that an export is verified on: the user's own, or the packaged street scenes when none are given."""

from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.evaluation.packaged import packaged_scenes
from ffnet_deploy.export.verify import NamedImage


def images_of(dataset: Dataset, count: int) -> list[NamedImage]:
    """The first `count` images of `dataset`.

    Raises:
        DataError: an image cannot be read.
    """
    return [NamedImage(sample.name, read_image(sample.image)) for sample in dataset.limited(count).samples]


def packaged_images(count: int) -> list[NamedImage]:
    """The first `count` of the eight packaged street scenes, 384 x 512 pixels."""
    return images_of(packaged_scenes(), count)
