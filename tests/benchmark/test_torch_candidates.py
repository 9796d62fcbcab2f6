from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import TorchSource, torch_candidates
from ffnet_deploy.benchmark.record import TimingMethod
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.core.errors import MissingPackageError, OptionError
from ffnet_deploy.engines import torch as torch_engine
from ffnet_deploy.engines.torch import TorchEngine, TorchForm
from tests.benchmark.toy_picture import PICTURE

pytest.importorskip("mmseg")
EAGER = (TorchForm.PUBLISHED, TorchForm.REPARAMETERIZED, TorchForm.CHANNELS_LAST, TorchForm.AMP)
QUICK = TimingMethod(warmup_ms=0, warmup_runs=1, seconds=0.0, samples=6, rounds=6, settle_ms=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    from tests.tiny import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("tiny"), "tiny_seg")


def source(checkpoint: tuple[Path, Path]) -> TorchSource:
    return TorchSource(str(checkpoint[0]), str(checkpoint[1]))


def test_the_forms_are_one_network(checkpoint: tuple[Path, Path]) -> None:
    candidates = torch_candidates(source(checkpoint), EAGER)
    run = bench(candidates, BenchOptions(Grid(sizes=((64, 96),)), PICTURE, QUICK))
    assert [one.name for one in run.candidates] == [f"PyTorch {form.value}" for form in EAGER]
    assert [one.precision for one in run.candidates] == ["fp32", "fp32", "fp32", "bf16"]
    for row in run.measurements[1:3]:
        assert row.check is not None
        assert row.check.relative is not None
        assert row.check.relative < 1e-4
        assert row.check.passed
    amp = run.measurements[3].check
    assert amp is not None
    assert amp.relative is not None
    assert 1e-4 < amp.relative < 0.2, "bfloat16 was not used, or breaks the network"


def test_the_profile_finds_the_networks_blocks_and_costs(checkpoint: tuple[Path, Path]) -> None:
    (candidate,) = torch_candidates(source(checkpoint), [TorchForm.REPARAMETERIZED])
    run = bench([candidate], BenchOptions(Grid(sizes=((64, 96),)), PICTURE, QUICK, profile=True))
    profile = run.measurements[0].profile
    assert profile is not None, run.warnings
    blocks = {block.name: block for block in profile.blocks}
    assert {"stem", "stage 1 token mixer", "stage 4 channel mixer", "head", "upsample"} <= set(blocks)
    first = next(layer for layer in profile.layers if layer.name == "backbone.patch_embed.0")
    assert first.flops == 2 * 8 * 32 * 48 * 3 * 9
    assert all(block.milliseconds > 0 for block in blocks.values())


@pytest.mark.slow
def test_the_compiled_form_is_the_same_network(checkpoint: tuple[Path, Path]) -> None:
    candidates = torch_candidates(source(checkpoint), [TorchForm.PUBLISHED, TorchForm.COMPILED])
    run = bench(candidates, BenchOptions(Grid(sizes=((64, 96),)), PICTURE, QUICK, profile=True))
    compiled = run.measurements[1]
    assert compiled.error is None
    assert compiled.check is not None
    assert compiled.check.passed
    assert compiled.profile is None


def test_timing_leaves_the_segmentor_as_it_is(checkpoint: tuple[Path, Path]) -> None:
    from ffnet_deploy.segmentor.load import open_segmentor

    segmentor = open_segmentor(*checkpoint)
    before = {name: tensor.clone() for name, tensor in segmentor.model.state_dict().items()}
    image = np.zeros((1, 3, 64, 64), np.float32)
    for form in EAGER:
        with TorchEngine.from_segmentor(segmentor, form=form) as engine:
            assert engine.run(image).dtype == np.float32
    after = segmentor.model.state_dict()
    assert all((after[name] == tensor).all() for name, tensor in before.items())


def test_forms_that_do_not_run_here_are_refused(checkpoint: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (half,) = torch_candidates(source(checkpoint), [TorchForm.FP16])
    with pytest.raises(OptionError, match="fp16 computes in float16, which is for GPUs"):
        half.open(0, 1)
    monkeypatch.setattr(torch_engine.shutil, "which", lambda name: None)
    (compiled,) = torch_candidates(source(checkpoint), [TorchForm.COMPILED])
    with pytest.raises(MissingPackageError, match=r"C\+\+ compiler(?s:.)*apt-get install g\+\+"):
        compiled.open(0, 1)
    (other,) = torch_candidates(TorchSource(*map(str, checkpoint), device="nonsense"), [TorchForm.PUBLISHED])
    with pytest.raises(OptionError, match="cannot use the device 'nonsense'"):
        other.open(0, 1)


def test_opening_a_form_on_another_device_leaves_the_segmentor_where_it_is(tiny: dict[str, Any]) -> None:
    for form in (TorchForm.PUBLISHED, TorchForm.REPARAMETERIZED):
        TorchEngine.from_segmentor(tiny["tiny_upernet"], "meta", form).close()
    assert {parameter.device.type for parameter in tiny["tiny_upernet"].model.parameters()} == {"cpu"}
