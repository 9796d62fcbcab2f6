"""What the GPU tests run on: a GPU, and a folder that benchmarks/prepare_gpu.py made."""

import os
from pathlib import Path

import pytest

from benchmarks.gpu_reference import Reference, build_options, find_references
from ffnet_deploy.engines.cuda import Cuda, NoDeviceError
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.export.engine import build_engine

FOLDER = "FFNET_GPU_FOLDER"
VARIANT = Variant(os.environ.get("FFNET_GPU_BACKEND", Variant.TENSORRT.value))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/gpu/" in item.path.as_posix():
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def gpu() -> Cuda:
    """The GPU; the test is skipped where there is none."""
    try:
        return Cuda()
    except NoDeviceError as error:
        pytest.skip(str(error).splitlines()[0])


@pytest.fixture(scope="session")
def references(gpu: Cuda) -> list[Reference]:
    """All networks at hand; the test is skipped where there are none."""
    if FOLDER not in os.environ:
        pytest.skip(f"set {FOLDER} to a folder of benchmarks/prepare_gpu.py, or of one network in it")
    return find_references(Path(os.environ[FOLDER]))


@pytest.fixture(scope="session")
def engines(references: list[Reference], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Reference]]:
    """The engine of every graph, built once (or reused from FFNET_GPU_ENGINES), with its reference."""
    chosen = os.environ.get("FFNET_GPU_ENGINES")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("engines")
    made = []
    for reference in references:
        for graph in reference.graphs:
            path = folder / f"{graph.name.removesuffix('.onnx')}{VARIANT.suffix}"
            build_engine(graph, path, build_options(graph, VARIANT))
            made.append((path, reference))
    return made
