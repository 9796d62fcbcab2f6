"""Tiny segmentors of both families, shared by the tests of this folder."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx
import pytest

from ffnet_deploy.export.onnx import ExportOptions, build_graph
from ffnet_deploy.segmentor import Segmentor, open_segmentor
from tests.tiny import FAMILIES, write_checkpoint


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Config and checkpoint of each tiny segmentor, by name."""
    folder = tmp_path_factory.mktemp("tiny")
    return {name: write_checkpoint(folder, name) for name in FAMILIES}


@pytest.fixture(scope="session")
def tiny(tiny_files: dict[str, tuple[Path, Path]]) -> dict[str, Segmentor]:
    """Each tiny segmentor, by name."""
    return {name: open_segmentor(config, checkpoint) for name, (config, checkpoint) in tiny_files.items()}


GraphOf = Callable[[str, ExportOptions], onnx.ModelProto]


@pytest.fixture(scope="session")
def graph_of(tiny: dict[str, Segmentor]) -> GraphOf:
    """The graph of a tiny segmentor for the given options, built once a session."""

    @cache
    def build(name: str, options: ExportOptions) -> onnx.ModelProto:
        return build_graph(tiny[name], options)

    return build
