"""The eight labelled street scenes that come with the package: what is verified and timed on where no data is given."""

from importlib import resources
from pathlib import Path

from ffnet_deploy.evaluation.datasets import Dataset, open_dataset


def packaged_scenes() -> Dataset:
    """Eight street scenes of 384 x 512 pixels with labels 0..7 of the label set ``scenes``.

    They were rendered by the repository's scene generator (``python -m scenes``) from the seeds in their names, which
    neither trained nor selected a network.
    """
    return open_dataset(Path(str(resources.files("ffnet_deploy.evaluation") / "scenes")), "scenes")
