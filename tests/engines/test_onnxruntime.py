from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.artifacts.manifest import manifest_path, write_manifest
from ffnet_deploy.core.contract import METADATA_KEY, DimensionRange, InputKind, OutputKind
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import PRECISION_KEY, Precision, PrecisionRecord
from ffnet_deploy.engines.engine import check_batch
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.evaluation.preprocessing import network_input
from ffnet_deploy.evaluation.resampling import bilinear
from tests.toy import contract, fixed, logits, picture, weights, write_onnx

onnx = pytest.importorskip("onnx")
IMAGES = np.stack([picture(64, 96, seed) for seed in (0, 1)])


def expected_logits() -> np.ndarray:
    return logits(network_input(IMAGES, contract()), weights(11))


@pytest.mark.parametrize("kind", list(InputKind))
def test_logits_are_the_networks(tmp_path: Path, kind: InputKind) -> None:
    described = contract(input=kind)
    with OnnxRuntimeEngine(write_onnx(tmp_path / "toy.onnx", described), OnnxRuntimeOptions(threads=1)) as engine:
        assert engine.contract == described
        found = engine.run(network_input(IMAGES, described))
    error = np.abs(found - expected_logits()).max() / np.abs(found).max()
    assert found.dtype == np.float32 and error < 1e-5, f"{error:.1e}"


def test_labels_and_probabilities_come_at_the_input_size(tmp_path: Path) -> None:
    full = np.stack([bilinear(one.transpose(1, 2, 0), (64, 96)) for one in expected_logits()])
    for kind in (OutputKind.LABELS, OutputKind.PROBABILITIES):
        described = contract(output=kind)
        engine = OnnxRuntimeEngine(write_onnx(tmp_path / f"{kind.value}.onnx", described))
        found = engine.run(network_input(IMAGES, described))
        best = found if kind is OutputKind.LABELS else found.argmax(axis=1)
        assert (best == full.argmax(axis=-1)).mean() > 0.999
        assert found.dtype == (np.uint8 if kind is OutputKind.LABELS else np.float32)


def test_the_name_tells_runtime_and_device(tmp_path: Path) -> None:
    assert OnnxRuntimeEngine(write_onnx(tmp_path / "toy.onnx", contract())).name.startswith("ONNX Runtime ")


def test_optimisation_can_be_left_out(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    batch = network_input(IMAGES, contract())
    plain = OnnxRuntimeEngine(path, OnnxRuntimeOptions(optimize=False)).run(batch)
    np.testing.assert_allclose(plain, OnnxRuntimeEngine(path).run(batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (b"not a graph at all", "is no ONNX graph"), (None, "there is no artefact")],
)
def test_what_is_no_graph_is_one_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        OnnxRuntimeEngine(path)
    assert str(path) in str(caught.value) and "ffnet-export" in str(caught.value)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_graph_is_one_error(tmp_path: Path, kept: float, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(ArtifactError):
        OnnxRuntimeEngine(path)
    assert capfd.readouterr() == ("", "")


def test_missing_external_data_is_one_error(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="toy.data", size_threshold=0)
    write_manifest(path, "onnx", {})
    assert OnnxRuntimeEngine(path).contract == contract()
    (tmp_path / "toy.data").unlink()
    with pytest.raises(ArtifactError, match="external data"):
        OnnxRuntimeEngine(path)


def test_a_graph_of_another_origin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not exported by ffnet-export"):
        OnnxRuntimeEngine(write_onnx(tmp_path / "toy.onnx", contract(), metadata=False))


def test_damaged_metadata_and_other_tensor_names_are_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: "{}"})
    onnx.save(model, path)
    write_manifest(path, "onnx", {})
    with pytest.raises(ArtifactError, match=r"toy\.onnx.*damaged"):
        OnnxRuntimeEngine(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract(output=OutputKind.LABELS).to_json()})
    onnx.save(model, path)
    write_manifest(path, "onnx", {})
    with pytest.raises(ArtifactError, match=r"expected \['image'\] and \['labels'\]"):
        OnnxRuntimeEngine(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 3, 64, 96), r"batch of 1\.\.4, not 5"),
        ((1, 1, 64, 96), "channels of 3, not 1"),
        ((1, 3, 288, 96), r"height of 32\.\.256, not 288"),
        ((1, 3, 64, 16), r"width of 32\.\.256, not 16"),
        ((3, 64, 96), r"\(batch, channels, height, width\), not shape \(3, 64, 96\)"),
    ],
)
def test_wrong_shapes_name_the_dimension(tmp_path: Path, shape: tuple[int, ...], message: str) -> None:
    engine = OnnxRuntimeEngine(write_onnx(tmp_path / "toy.onnx", contract()))
    with pytest.raises(OptionError, match=message):
        engine.run(np.zeros(shape, np.float32))


def test_fixed_sizes_and_types_are_checked() -> None:
    with pytest.raises(OptionError, match="height of 64, not 96"):
        check_batch(np.zeros((1, 3, 96, 96), np.float32), contract(**fixed(64, 96)))
    with pytest.raises(OptionError, match=r"float32 images \(float\), not float64"):
        check_batch(np.zeros((1, 3, 64, 96)), contract())
    with pytest.raises(OptionError, match=r"uint8 images \(rgb\), not float32"):
        check_batch(np.zeros((1, 64, 96, 3), np.float32), contract(input=InputKind.RGB))
    check_batch(np.zeros((1, 64, 96, 3), np.uint8), contract(input=InputKind.RGB))


@pytest.mark.parametrize(
    ("record", "entry"),
    [
        (PrecisionRecord(), None),
        (PrecisionRecord(Precision.INT8, Precision.FP32), "session.disable_quant_qdq"),
        (PrecisionRecord(Precision.INT8, Precision.FP16), "session.disable_quant_qdq"),
    ],
)
@pytest.mark.parametrize("optimize", [None, False])
def test_quantised_graphs_get_the_settings_that_make_them_right(
    tmp_path: Path, record: PrecisionRecord, entry: str | None, optimize: bool | None
) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract().to_json(), PRECISION_KEY: record.to_json()})
    onnx.save(model, path)
    with OnnxRuntimeEngine(path, OnnxRuntimeOptions(optimize=optimize, check_manifest=False)) as engine:
        assert engine.precision == record
        settings = engine._session.get_session_options()
        level = "ORT_DISABLE_ALL" if optimize is False else "ORT_ENABLE_ALL"
        assert settings.graph_optimization_level.name == level
        if entry is not None:
            assert settings.get_session_config_entry(entry) == "1"


def test_a_graph_that_fails_is_one_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract(**fixed(64, 96)))
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract(height=DimensionRange(32, 64, 128)).to_json()})
    onnx.save(model, path)
    write_manifest(path, "onnx", {})
    with pytest.raises(ArtifactError, match=r"failed on an input of shape \(1, 3, 128, 96\)"):
        OnnxRuntimeEngine(path).run(np.zeros((1, 3, 128, 96), np.float32))
    assert capfd.readouterr() == ("", "")


def test_closing_twice_is_harmless_and_running_after_is_not(tmp_path: Path) -> None:
    engine = OnnxRuntimeEngine(write_onnx(tmp_path / "toy.onnx", contract()))
    engine.close()
    engine.close()
    with pytest.raises(OptionError, match="closed"):
        engine.run(network_input(IMAGES, contract()))


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(OptionError, match="threads"):
        OnnxRuntimeOptions(threads=-1)
    with pytest.raises(OptionError, match="has no AbsentProvider; it offers"):
        OnnxRuntimeOptions(providers=("AbsentProvider",))


def test_a_file_that_is_not_the_verified_one_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="has changed since its manifest was written"):
        OnnxRuntimeEngine(path)


def test_a_file_without_manifest_runs_and_says_so(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract())
    manifest_path(path).unlink()
    with OnnxRuntimeEngine(path) as engine:
        assert "no manifest" in engine.notes[0]
