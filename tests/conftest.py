import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import golden

# waiting threads sleep instead of spinning: on a busy machine PyTorch's small operations are 40 times as fast
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the tests in the background: Ctrl-C is tested
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `camvid`, `ade20k_sample` and `cityscapes_sample`; the test is skipped where it is absent."""
    folder = Path(os.environ.get("FFNET_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no labelled sample images at {folder}; set FFNET_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Folder with the published code's tensor lists and outputs; the test is skipped where it is absent."""
    folder = REPOSITORY.parent / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip(f"no outputs of the published code at {folder}; tests/golden.json holds a part of them")
    return folder


@pytest.fixture(scope="session", params=golden.PUBLISHED)
def golden_segmentor(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """Config name and segmentor with golden weights, one after the other; tests leave it as it is."""
    pytest.importorskip("mmseg")
    return request.param, golden.build(request.param)
