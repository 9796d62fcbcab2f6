import json
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.artifacts.manifest import write_manifest
from ffnet_deploy.benchmark.profiling import block_of, block_order, profile_tensorrt
from ffnet_deploy.benchmark.roofline import Cost
from tests.toy import contract, fixed

MIXER = "/backbone/stages.2/stages.2.3/token_mixer/token_mixer.0/main/conv1/Conv"


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("/backbone/patch_embed/patch_embed.0/Conv_output_0_nchwc", "stem"),
        (MIXER, "stage 3 token mixer"),
        (f"[ONNX Layer: {MIXER}] + /backbone/stages.2/stages.2.3/channel_mixer/Add", "stage 3 token mixer"),
        ("/backbone/stages.0/stages.0.1/channel_mixer/main/fc1/Conv", "stage 1 channel mixer"),
        ("backbone.stages.3.2.channel_mixer.main.fc2", "stage 4 channel mixer"),
        ("/backbone/stages.1/stages.1.0/proj/proj.0/Conv", "stage 2 down-sampling"),
        ("/backbone/norm2/LayerNormalization", "stage 3 norm"),
        ("/decode_head/head_blocks/head_blocks.1/token_mixer/main/fc/Conv", "head token mixer"),
        ("/decode_head/head_blocks/head_blocks.1/channel_mixer/act/Gelu", "head channel mixer"),
        ("/decode_head/squeeze/squeeze.0/Conv", "head"),
        ("decode_head.conv_seg", "head"),
        ("/decode_head/upsampler.1/Resize", "upsample"),
        ("/finish/Resize", "upsample"),
        ("/finish/ArgMax", "output"),
        ("/normalize/Cast", "input"),
        ("ReorderOutput_token_12", "other"),
    ],
)
def test_layers_are_found_in_the_network(name: str, block: str) -> None:
    assert block_of(name) == block


def test_blocks_are_in_the_order_of_the_data() -> None:
    order = ["input", "stem", "stage 1 token mixer", "stage 1 channel mixer", "stage 2 down-sampling"]
    order += ["stage 2 token mixer", "stage 2 norm", "head", "head token mixer", "upsample", "output", "other"]
    assert sorted(set(order), key=block_order) == order


def test_every_module_of_a_real_network_has_its_block(tmp_path: Path) -> None:
    pytest.importorskip("mmseg")
    from ffnet_deploy.core.contract import InputKind, OutputKind
    from ffnet_deploy.export.network import DeployedNetwork
    from ffnet_deploy.segmentor.load import open_segmentor
    from tests.tiny import write_config

    segmentor = open_segmentor(write_config(tmp_path, "tiny_seg"))
    network = DeployedNetwork(segmentor.model, segmentor.config.normalization, InputKind.FLOAT, OutputKind.LOGITS)
    names = [name for name, module in network.named_modules() if not any(module.children()) and name != "finish"]
    blocks = {block_of(name) for name in names}
    assert "other" not in blocks
    assert {"stem", "head", "upsample"} <= blocks
    assert {f"stage {stage} {mixer} mixer" for stage in range(1, 5) for mixer in ("token", "channel")} <= blocks


LAYER = "__myl_ConvAdd_myl0_3"


def test_an_engines_costs_come_from_its_manifest_and_its_traffic_from_the_inspector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffnet_deploy.engines.tensorrt import runner

    path = tmp_path / "net.engine"
    path.write_bytes(b"a plan")
    described = contract(**fixed(64, 96))
    costs = {f"{MIXER}": [2e6, 5e5], "/backbone/Add": [1e4, 1e5], "/head/Conv": [4e6, 3e5]}
    write_manifest(path, "engine", {"contract": json.loads(described.to_json()), "costs": costs})
    tensors = [{"Name": "x", "Dimensions": [1, 8, 16, 24], "Format": "Row major", "Datatype": "Half"}]
    outputs = [{"Name": "y", "Dimensions": [1, 8, 16, 24], "Format/Datatype": "Row major linear FP32"}]
    nodes = f"[ONNX Layer: {MIXER}]\x1e[ONNX Layer: /backbone/Add]"
    entries = [{"Name": LAYER, "Metadata": nodes, "Inputs": tensors, "Outputs": outputs}]
    path.with_name("net.engine.layers.json").write_text(json.dumps({"Layers": entries}))
    monkeypatch.setattr(runner, "layer_times", lambda *_, **__: {LAYER: [1.0, 3.0], "/head/Conv": [0.5]})
    fused, alone = profile_tensorrt(path, np.zeros((2, 3, 64, 96), np.float32), None).layers
    assert fused.name == f"{MIXER} + /backbone/Add"
    assert fused.milliseconds == 2.0
    # the graph's nodes were counted for one image, and two were run
    assert fused.cost == Cost(2 * (2e6 + 1e4), 8 * 16 * 24 * (2 + 4))
    assert alone.cost == Cost(8e6, 6e5)
