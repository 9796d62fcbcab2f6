"""Configurations of DeepStream's Gst-nvinfer, key by key."""

import configparser
import json
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.core.contract import Contract, DimensionRange, InputKind, IOType, OutputKind
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.serving.deepstream import scale_error, write_deepstream
from tests.engines.bundles import write_bundle
from tests.engines.test_bundle import PLAN, content
from tests.serving.test_triton import write_onnx
from tests.toy import CAMVID, contract, fixed, picture

KEYS = {
    "gpu-id", "gie-unique-id", "process-mode", "interval", "labelfile-path", "batch-size", "network-mode",
    "model-engine-file", "onnx-file", "output-blob-names", "network-type", "infer-dims", "num-detected-classes",
    "model-color-format", "net-scale-factor", "offsets", "maintain-aspect-ratio", "symmetric-padding", "scaling-filter",
    "network-input-order", "segmentation-threshold", "segmentation-output-order", "output-tensor-meta",
    "workspace-size", "enable-dla", "use-dla-core", "int8-calib-file", "force-implicit-batch-dim", "output-io-formats",
}  # fmt: skip
"""Keys of the group [property] that concern any network or segmentation.

Source: gstnvinfer_property_parser.h of DeepStream 6.4 to 9.1, docs.nvidia.com/metropolis/deepstream/dev-guide/sdk-api.
"""
WHOLE = {"output": OutputKind.PROBABILITIES, **fixed(64, 96, 2)}


def properties(config: Path) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string(config.read_text(encoding="utf-8"))
    assert parser.sections() == ["property"]
    return dict(parser["property"])


def engine(folder: Path, described: Contract) -> Path:
    path = folder / "toy.fp16.engine"
    tensors = {"input": [2, 3, 64, 96], "output": [2, 11, 64, 96]}
    write_bundle(path, PLAN, {**content(), "contract": json.loads(described.to_json()), "tensors": tensors})
    return path


def test_an_engine_is_configured_with_documented_keys_alone(tmp_path: Path) -> None:
    config = write_deepstream(engine(tmp_path, contract(**WHOLE)), tmp_path / "deepstream")
    found = properties(config)
    assert set(found) <= KEYS
    assert (found["network-type"], found["segmentation-output-order"], found["segmentation-threshold"]) == (
        "2",
        "0",
        "0.0",
    )
    assert (found["batch-size"], found["infer-dims"]) == ("2", "3;64;96")
    assert (found["num-detected-classes"], found["output-blob-names"]) == ("11", "probabilities")
    assert (found["model-color-format"], found["maintain-aspect-ratio"]) == ("0", "0")
    assert found["network-mode"] == "1" and found["model-engine-file"] == "toy.fp16.engine" and "onnx-file" not in found
    assert (config.parent / "toy.fp16.engine").read_bytes() == PLAN
    assert (config.parent / found["labelfile-path"]).read_text().splitlines() == list(CAMVID.classes)


def test_scale_and_offsets_are_the_normalisation_as_far_as_one_scale_allows(tmp_path: Path) -> None:
    described = contract(**WHOLE)
    found = properties(write_deepstream(write_onnx(tmp_path / "toy.onnx", described), tmp_path / "deepstream"))
    assert found["onnx-file"] == "toy.onnx" and found["network-mode"] == "0"
    image = picture(64, 96)[None]
    offsets = np.array([float(value) for value in found["offsets"].split(";")])[:, None, None]
    fed = float(found["net-scale-factor"]) * (image[..., ::-1].transpose(0, 3, 1, 2) - offsets)
    expected = network_input(image, described)
    assert scale_error(described) == pytest.approx(0.0113, abs=1e-3)
    np.testing.assert_allclose(fed, expected, rtol=1.01 * scale_error(described), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"input": InputKind.BGR}, "takes bgr bytes"),
        ({"output": OutputKind.LABELS}, "gives labels"),
        ({"output": OutputKind.LOGITS}, "gives logits"),
        ({"io": IOType.FP16}, "gives float16"),
    ],
)
def test_what_the_element_cannot_feed_or_read_is_refused(changes: dict[str, object], told: str, tmp_path: Path) -> None:
    made = engine(tmp_path, contract(**{**WHOLE, **changes}))
    with pytest.raises(OptionError, match=f"{told}[\\s\\S]*--output probabilities"):
        write_deepstream(made, tmp_path / "deepstream")
    assert not (tmp_path / "deepstream").exists()


def test_a_dynamic_engine_is_fed_its_typical_size_and_others_files_stay(tmp_path: Path) -> None:
    sides = DimensionRange(32, 64, 256)
    described = contract(output=OutputKind.PROBABILITIES, batch=DimensionRange(1, 2, 4), height=sides, width=sides)
    made = engine(tmp_path, described)
    config = write_deepstream(made, tmp_path / "deepstream")
    assert properties(config)["infer-dims"] == "3;64;64" and properties(config)["batch-size"] == "4"
    write_deepstream(made, config.parent)
    config.write_text("[property]\nnetwork-type=0\n")
    with pytest.raises(OptionError, match="was not written here"):
        write_deepstream(made, config.parent)
