import re
from pathlib import Path
from typing import Any

import pytest

from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.engines.tensorrt.options import BuildOptions, HardwareCompatibility
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
