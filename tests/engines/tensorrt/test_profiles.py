"""Which shapes an engine covers: what TensorRT and the GPU can hold is checked before anything is built."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.core.contract import MAX_ELEMENTS, Contract, DimensionRange, TestProtocol
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.build import build_plan, fit_profiles
from ffnet_deploy.engines.tensorrt.network import ParsedNetwork, input_shape, largest_tensor, parse_onnx
from ffnet_deploy.engines.tensorrt.options import BuildOptions, ProfileShapes, find_target
from ffnet_deploy.engines.tensorrt.variant import Variant
from tests.engines.tensorrt.rtx import OPTIONS, exported, in_precision
from tests.engines.tensorrt.typed import save

pytest.importorskip("tensorrt_rtx")
SIDE = DimensionRange(32, 512, 4096)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(exported("tiny_seg", True), tmp_path_factory.mktemp("graph") / "tiny.onnx")


@pytest.fixture(scope="module")
def parsed(graph: Path) -> ParsedNetwork:
    return parse_onnx(Variant.RTX, graph)


@pytest.fixture
def any_size(graph: Path) -> Contract:
    """What a graph of ``--dynamic`` says of itself."""
    described = read_description(graph)[0]
    protocol = TestProtocol(scale=(2048, 512))
    return replace(described, batch=DimensionRange(1, 1, 64), height=SIDE, width=SIDE, protocol=protocol)


def elements(parsed: ParsedNetwork, contract: Contract, batch: int, height: int, width: int) -> int:
    return largest_tensor(parsed.network, input_shape(contract, batch, height, width)).elements


def test_the_default_profile_fits(parsed: ParsedNetwork, any_size: Contract) -> None:
    (profile,) = fit_profiles(parsed.network, any_size, OPTIONS, None)
    assert (profile.batch.max, profile.height.max, profile.width.max) == (8, 2048, 2048)
    assert elements(parsed, any_size, 8, 2048, 2048) <= MAX_ELEMENTS
    assert tuple(parsed.network.get_input(0).shape) == (-1, -1, -1, 3), "asking leaves the network as it was"


def test_the_largest_shape_of_the_graph_is_refused_with_sizes_that_fit(
    parsed: ParsedNetwork, any_size: Contract
) -> None:
    whole = replace(OPTIONS, batch=any_size.batch, height=SIDE, width=SIDE)
    with pytest.raises(OptionError, match=r"too large: .* would give 64 x ") as caught:
        fit_profiles(parsed.network, any_size, whole, None)
    told = str(caught.value)
    assert f"holds at most {MAX_ELEMENTS} in one tensor" in told
    offered = re.search(r"--batch up to (\d+) at 4096x4096, or --shape up to (\d+)x(\d+) in batches of 64", told)
    assert offered is not None, told
    batch, height, width = (int(number) for number in offered.groups())
    assert (
        elements(parsed, any_size, batch, 4096, 4096)
        <= MAX_ELEMENTS
        < elements(parsed, any_size, batch + 1, 4096, 4096)
    )
    assert elements(parsed, any_size, 64, height, width) <= MAX_ELEMENTS


def test_a_small_gpu_gets_a_smaller_default_and_is_told(parsed: ParsedNetwork, any_size: Contract) -> None:
    notes: list[str] = []
    (profile,) = fit_profiles(parsed.network, any_size, OPTIONS, 2 << 30, notes.append)
    assert profile.batch.max < 8 and notes[0].startswith(f"the profile covers {profile}")
    largest = largest_tensor(
        parsed.network, input_shape(any_size, profile.batch.max, profile.height.max, profile.width.max)
    )
    assert largest.bytes * 2 <= 2 << 30
    asked = replace(
        OPTIONS, batch=DimensionRange.fixed(64), height=DimensionRange.fixed(1024), width=DimensionRange.fixed(1024)
    )
    with pytest.raises(OptionError, match=r"MiB, and the GPU has 64 MiB"):
        fit_profiles(parsed.network, any_size, asked, 64 << 20)


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_recipes_for_dynamic_graphs_build_with_the_default_profile(
    precision: Precision, any_size: Contract, tmp_path: Path
) -> None:
    path = save(in_precision(exported("tiny_seg", True), precision), tmp_path / "tiny.onnx")
    _, record = read_description(path)
    options = replace(OPTIONS, compute_capabilities=("8.9",))
    built = build_plan(path, any_size, record, options, find_target(options))
    assert built.contract.batch == DimensionRange(1, 1, 8) and built.contract.height.max == 2048
    assert built.violations == () and built.layers is None and len(built.plan) > 1000


def test_several_profiles_are_built_into_one_engine(graph: Path, any_size: Contract) -> None:
    small, large = DimensionRange.fixed(64), DimensionRange.fixed(256)
    single = DimensionRange.fixed(1)
    options = replace(
        OPTIONS,
        compute_capabilities=("8.9",),
        batch=single,
        height=small,
        width=large,
        profiles=(ProfileShapes(single, large, small),),
    )
    _, record = read_description(graph)
    built = build_plan(graph, any_size, record, options, find_target(options))
    assert [shapes.as_option() for shapes in built.profiles] == ["1@64x256", "1@256x64"]
    assert built.contract.height == DimensionRange(64, 64, 256)


def test_costs_of_the_nodes_are_those_of_their_shapes(graph: Path, any_size: Contract) -> None:
    options: Any = replace(OPTIONS, compute_capabilities=("8.9",))
    contract, record = read_description(graph)
    costs = build_plan(graph, contract, record, options, find_target(options)).costs
    from tests.engines.tensorrt.typed import convolutions

    names = convolutions(exported("tiny_seg", True))
    assert set(names) <= set(costs), "each convolution has a cost"
    first = costs[names[0]]
    model = exported("tiny_seg", True)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    node = next(node for node in model.graph.node if node.name == names[0])
    out, taken, high, wide = weights[node.input[1]]
    stride = next(attribute.ints[0] for attribute in node.attribute if attribute.name == "strides")
    positions = contract.batch.opt * (contract.height.opt // stride) * (contract.width.opt // stride)
    assert first[0] == 2 * positions * out * taken * high * wide
    moved = (
        contract.batch.opt * 3 * contract.height.opt * contract.width.opt + out * taken * high * wide + positions * out
    )
    assert first[1] >= 4 * moved


def test_the_profile_of_a_fixed_graph_is_its_shape(tmp_path: Path) -> None:
    path = save(exported("tiny_seg", False), tmp_path / "fixed.onnx")
    contract = read_description(path)[0]
    (profile,) = BuildOptions().profile_shapes(contract)
    assert profile.batch.is_fixed and (profile.height.opt, profile.width.opt) == (64, 128)
