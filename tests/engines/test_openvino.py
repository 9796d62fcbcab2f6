import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ffnet_deploy.core.contract import InputKind, OutputKind
from ffnet_deploy.core.errors import ArtifactError, MissingPackageError, OptionError
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.engines.openvino import OpenVinoEngine, OpenVinoOptions
from tests.toy import contract, fixed, logits, weights, write_onnx

pytest.importorskip("openvino")


def image(batch: int = 1, height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_onnx(tmp_path / "toy.onnx", contract())


@pytest.mark.parametrize("shape", [(1, 64, 96), (4, 128, 32)])
def test_gives_what_the_graph_says(shape: tuple[int, int, int], path: Path) -> None:
    x = image(*shape)
    with OpenVinoEngine(path, OpenVinoOptions(threads=1)) as engine:
        np.testing.assert_allclose(engine.run(x), logits(x, weights(11)), rtol=1e-4, atol=1e-4)
        assert engine.contract == contract()
        assert engine.notes == ()
        assert engine.name.startswith("OpenVINO 20")
        assert engine.precision.precision.value == "fp32"


@pytest.mark.parametrize("kind", [InputKind.RGB, InputKind.BGR])
@pytest.mark.parametrize("output", list(OutputKind))
def test_every_boundary_gives_what_onnx_runtime_gives(kind: InputKind, output: OutputKind, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "toy.onnx", contract(input=kind, output=output, **fixed(64, 96)))
    x = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3)).astype(np.uint8)
    with OpenVinoEngine(path) as engine, OnnxRuntimeEngine(path) as reference:
        found, expected = engine.run(x), reference.run(x)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if output is OutputKind.LABELS:
        assert (found == expected).mean() > 0.999
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_an_output_outlives_the_next_call_and_the_engine(path: Path) -> None:
    with OpenVinoEngine(path) as engine:
        first = engine.run(image(seed=0))
        kept = first.copy()
        engine.run(image(seed=1))
    np.testing.assert_array_equal(first, kept)


def test_threads_may_call_at_the_same_time(path: Path) -> None:
    images = [image(seed=seed) for seed in range(8)]
    found: dict[int, np.ndarray] = {}
    with OpenVinoEngine(path, OpenVinoOptions(streams=2)) as engine:
        expected = [engine.run(x) for x in images]
        workers = [
            threading.Thread(target=lambda index=index: found.update({index: engine.run(images[index])}))
            for index in range(8)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    for index, result in enumerate(expected):
        np.testing.assert_array_equal(found[index], result)


@pytest.mark.parametrize("shape", [(5, 64, 96), (1, 64, 100), (1, 512, 96)])
def test_other_shapes_are_refused(shape: tuple[int, int, int], path: Path) -> None:
    with OpenVinoEngine(path) as engine, pytest.raises(OptionError):
        engine.run(image(*shape))


def test_a_closed_engine_says_so(path: Path) -> None:
    engine = OpenVinoEngine(path)
    engine.close()
    engine.close()
    with pytest.raises(OptionError, match="is closed"):
        engine.run(image())


def test_broken_files_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no artefact"):
        OpenVinoEngine(tmp_path / "gone.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ArtifactError, match="is empty"):
        OpenVinoEngine(tmp_path / "empty.onnx")
    (tmp_path / "text.onnx").write_text("this is no graph")
    with pytest.raises(ArtifactError, match=r"text\.onnx"):
        OpenVinoEngine(tmp_path / "text.onnx", OpenVinoOptions(check_manifest=False))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="has changed since its manifest"):
        OpenVinoEngine(path)
    with pytest.raises(ArtifactError, match=r"damaged|cannot be read|no ONNX graph"):
        OpenVinoEngine(path, OpenVinoOptions(check_manifest=False))
    foreign = write_onnx(tmp_path / "foreign.onnx", contract(), metadata=False)
    with pytest.raises(ArtifactError, match="was not exported by ffnet-export"):
        OpenVinoEngine(foreign)


def test_options_that_cannot_be(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="threads"):
        OpenVinoOptions(threads=-1)
    with pytest.raises(OptionError, match="stream"):
        OpenVinoOptions(streams=0)
    with pytest.raises(OptionError, match="no device NPU here; it offers"):
        OpenVinoEngine(path, OpenVinoOptions(device="NPU"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"\[openvino\]"):
        OpenVinoEngine(path)


def test_a_file_without_manifest_is_noted(path: Path) -> None:
    path.with_name("toy.onnx.json").unlink()
    with OpenVinoEngine(path) as engine:
        assert "no manifest" in engine.notes[0]


def test_ffnet_eval_runs_graphs_with_it(path: Path) -> None:
    from ffnet_deploy.engines.source import Backend, Source

    source = Source(backend=Backend.OPENVINO, artifact=path, threads=1)
    assert source.fitting_backend is Backend.OPENVINO
    with source.open() as engine:
        assert engine.name.startswith("OpenVINO")
    with pytest.raises(OptionError, match=r"--backend openvino needs --artifact FILE\.onnx"):
        Source(backend=Backend.OPENVINO, artifact=path.with_suffix(".engine"))


@pytest.mark.parametrize("hardware", ["trt", "cpu"])
def test_quantised_graphs_for_tensorrt_come_with_a_warning(path: Path, hardware: str) -> None:
    import onnx

    from ffnet_deploy.core.precision import PRECISION_KEY, Hardware, Precision, PrecisionRecord

    model = onnx.load(path)
    entry = model.metadata_props.add()
    record = PrecisionRecord(Precision.INT8, quantized=("conv",), hardware=Hardware(hardware))
    entry.key, entry.value = PRECISION_KEY, record.to_json()
    onnx.save(model, path)
    with OpenVinoEngine(path, OpenVinoOptions(check_manifest=False)) as engine:
        assert any("--target cpu" in note for note in engine.notes) is (hardware == "trt")
