import os
import signal
from collections.abc import Callable
from functools import cache
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


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Config and checkpoint of each tiny segmentor, by name."""
    from tests.tiny import FAMILIES, write_checkpoint  # lazy: needs the conversion layer

    folder = tmp_path_factory.mktemp("tiny")
    return {name: write_checkpoint(folder, name) for name in FAMILIES}


@pytest.fixture(scope="session")
def tiny(tiny_files: dict[str, tuple[Path, Path]]) -> dict[str, Any]:
    """Each tiny segmentor, by name."""
    from ffnet_deploy.segmentor.load import open_segmentor

    return {name: open_segmentor(config, checkpoint) for name, (config, checkpoint) in tiny_files.items()}


GraphOf = Callable[[str, Any], Any]
"""From the name of a tiny segmentor and export options to its graph."""


@pytest.fixture(scope="session")
def graph_of(tiny: dict[str, Any]) -> GraphOf:
    """The graph of a tiny segmentor for the given options, built once a session."""
    from ffnet_deploy.export.onnx import build_graph

    @cache
    def build(name: str, options: Any) -> Any:
        return build_graph(tiny[name], options)

    return build
