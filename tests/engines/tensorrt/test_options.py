import re
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.core.contract import DimensionRange, TestProtocol
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.tensorrt.options import BuildOptions, HardwareCompatibility, ProfileShapes, TacticSource
from ffnet_deploy.engines.tensorrt.variant import Variant
from tests.toy import contract


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"height": DimensionRange.fixed(100)}, "height 100 is not a multiple of 32; the nearest are 96 and 128"),
        ({"workspace": 0}, "in MiB, from 1"),
        ({"optimization_level": 6}, "0 to 5"),
        ({"optimization_level": -1}, "0 to 5"),
        ({"aux_streams": -1}, "0 or more"),
        ({"compute_capabilities": ("8.9",)}, "only TensorRT for RTX takes compute capabilities"),
        ({"variant": Variant.RTX, "compute_capabilities": ("89",)}, "written as 8.9: got '89'"),
        ({"variant": Variant.RTX, "compute_capabilities": ("Ada",)}, "written as 8.9"),
        ({"variant": Variant.RTX, "timing_cache": Path("a")}, "has no timing cache"),
        ({"variant": Variant.RTX, "tactic_sources": (TacticSource.CUDNN,)}, "uses its own kernels"),
        ({"variant": Variant.RTX, "dla": 0}, "leave --tactic-sources and --dla out"),
        ({"dla": -1}, "numbered from 0"),
        (
            {"variant": Variant.RTX, "hardware_compatibility": HardwareCompatibility.AMPERE_PLUS},
            "takes the GPUs to build for by name",
        ),
    ],
)
def test_options_that_cannot_be_carried_out(given: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=re.escape(told)):
        BuildOptions(**given)


def test_a_profile_must_rise() -> None:
    with pytest.raises(OptionError, match="must rise"):
        BuildOptions(batch=DimensionRange(4, 2, 1))


def test_the_profile_defaults_to_the_graphs_ranges() -> None:
    assert BuildOptions().narrowed(contract()) == contract()
    narrowed = BuildOptions(batch=DimensionRange.fixed(2)).narrowed(contract())
    assert narrowed.batch == DimensionRange.fixed(2) and narrowed.height == contract().height


ANY = {
    "batch": DimensionRange(1, 1, 64),
    "height": DimensionRange(32, 512, 4096),
    "width": DimensionRange(32, 512, 4096),
}


@pytest.mark.parametrize(
    ("protocol", "height", "width"),
    [
        (TestProtocol(scale=(2048, 512)), (32, 512, 2048), (32, 512, 2048)),
        (TestProtocol(scale=(1000, 500), keep_ratio=False), (32, 512, 512), (32, 512, 1024)),
        (TestProtocol(mode="slide", crop=(512, 1024), stride=(256, 512)), (32, 512, 512), (32, 512, 1024)),
    ],
)
def test_a_graph_of_any_size_gets_the_profile_of_its_protocol(
    protocol: TestProtocol, height: tuple[int, int, int], width: tuple[int, int, int]
) -> None:
    any_size = contract(protocol=protocol, **ANY)
    (profile,) = BuildOptions().profile_shapes(any_size)
    assert profile.batch == DimensionRange(1, 1, 8), "and not 64 x 3 x 4096 x 4096, more than a tensor holds"
    assert (profile.height, profile.width) == (DimensionRange(*height), DimensionRange(*width))
    assert BuildOptions(batch=DimensionRange(1, 1, 64)).narrowed(any_size).batch.max == 64, "asked for"


def test_several_profiles_are_covered_by_one_contract() -> None:
    portrait = ProfileShapes(DimensionRange(1, 2, 4), DimensionRange.fixed(256), DimensionRange.fixed(64))
    first = {"batch": DimensionRange.fixed(1), "height": DimensionRange.fixed(64), "width": DimensionRange.fixed(256)}
    options = BuildOptions(**first, profiles=(portrait,))
    assert len(options.profile_shapes(contract())) == 2
    covered = options.narrowed(contract())
    assert (covered.batch, covered.height) == (DimensionRange(1, 1, 4), DimensionRange(64, 64, 256))
    assert "--profile 1:2:4@256x64" in options.command(Path("a"), Path("b"))
    beyond = ProfileShapes(DimensionRange.fixed(9), DimensionRange.fixed(64), DimensionRange.fixed(64))
    with pytest.raises(OptionError, match=re.escape("the graph accepts a batch of 1..4, not 9")):
        BuildOptions(profiles=(beyond,)).profile_shapes(contract())


def test_the_description_of_earlier_versions_is_kept_so_that_their_engines_are_reused() -> None:
    assert BuildOptions().to_dict().keys() == {
        *("variant", "batch", "height", "width", "workspace", "optimization_level", "version_compatible"),
        *("hardware_compatibility", "aux_streams", "refit", "strip_weights", "compute_capabilities"),
    }
    assert BuildOptions(sparsity=True).to_dict()["sparsity"]


def test_what_shapes_the_engine_is_compared_and_what_does_not_is_not() -> None:
    same = BuildOptions(timing_cache=Path("a"), device=1)
    assert same.to_dict() == BuildOptions().to_dict() != BuildOptions(refit=True).to_dict()


def test_the_command_repeats_every_option() -> None:
    options = BuildOptions(
        batch=DimensionRange(1, 2, 4),
        height=DimensionRange(64, 96, 128),
        width=DimensionRange(64, 128, 256),
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
        version_compatible=True,
        refit=True,
        strip_weights=True,
    )
    assert options.command(Path("a.onnx"), Path("a.engine"), "nano") == (
        "ffnet-export --config nano --checkpoint CHECKPOINT --onnx a.onnx --backend trt --batch 1:2:4 "
        "--shape 64x64:96x128:128x256 --hardware-compatible ampere-plus --version-compatible --refit --strip-weights "
        "--out a.engine"
    )
    assert "--shape 64x128 " in BuildOptions(height=DimensionRange.fixed(64), width=DimensionRange.fixed(128)).command(
        Path("a"), Path("b")
    )
