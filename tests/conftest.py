import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `camvid`, `ade20k_sample` and `cityscapes_sample`; the test is skipped where it is absent."""
    folder = Path(os.environ.get("FFNET_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no labelled sample images at {folder}; set FFNET_DATA to their folder")
    return folder
