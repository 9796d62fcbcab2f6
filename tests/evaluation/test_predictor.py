"""From an image to its label map in two lines, on whatever runs the network, from any thread."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ffnet_deploy
from ffnet_deploy.core.contract import OutputKind
from ffnet_deploy.core.errors import DataError, OptionError
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine
from ffnet_deploy.evaluation.predictor import Predictor
from ffnet_deploy.evaluation.protocol import MULTI_SCALE, PredictOptions, predict
from tests.toy import ToyEngine, contract, many_classes, picture, write_onnx

SIZES = [(90, 140), (61, 200), (128, 192), (128, 192), (50, 70)]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("predictor") / "toy.onnx", contract())


@pytest.mark.parametrize("backend", [None, "openvino"])
def test_labels_come_at_the_images_own_size_by_the_artefacts_own_protocol(artifact: Path, backend: str | None) -> None:
    if backend:
        pytest.importorskip("openvino")
    with OnnxRuntimeEngine(artifact) as reference, ffnet_deploy.open_engine(artifact, backend=backend) as engine:
        for number, size in enumerate(SIZES):
            image = picture(*size, seed=number)
            labels = engine.predict(image)
            assert labels.shape == size and labels.dtype == np.uint8
            assert (labels == predict(reference, image).labels).mean() >= 0.999


def test_a_config_and_its_checkpoint_are_opened_alike() -> None:
    pytest.importorskip("mmseg")
    with ffnet_deploy.open_engine("ffnet_seg_nano_camvid") as engine:
        assert engine.name.startswith("PyTorch") and engine.contract.dataset == "camvid"
        assert engine.predict(picture(64, 96)).shape == (64, 96)


def test_a_stream_keeps_its_order_and_is_read_only_a_few_images_ahead(artifact: Path) -> None:
    images = [picture(*SIZES[number % len(SIZES)], seed=number) for number in range(30)]
    taken = 0

    def endless() -> object:
        nonlocal taken
        while True:
            yield images[taken % len(images)]
            taken += 1

    with ffnet_deploy.open_engine(artifact) as engine:
        found = engine.predict_many(endless())
        for number in range(12):
            assert (next(found) == engine.predict(images[number])).all()
        assert taken < 30
        found.close()


def test_threads_share_an_engine(artifact: Path) -> None:
    images = [picture(*SIZES[number % len(SIZES)], seed=number) for number in range(24)]
    with ffnet_deploy.open_engine(artifact, threads=1) as engine, ThreadPoolExecutor(4) as threads:
        found = list(threads.map(engine.predict, images))
        assert all((labels == engine.predict(image)).all() for labels, image in zip(found, images, strict=True))


@pytest.mark.parametrize("options", [PredictOptions(), PredictOptions(MULTI_SCALE, flip=True)], ids=["once", "scales"])
def test_scores_are_the_probabilities_that_the_labels_come_from(options: PredictOptions) -> None:
    engine = Predictor(ToyEngine(contract()), options=options)
    image = picture(90, 140)
    found = engine.predict_scores(image)
    assert found.scores is not None and found.scores.shape == (11, 90, 140) and found.scores.dtype == np.float32
    assert np.abs(found.scores.sum(axis=0) - 1).max() < 1e-5
    assert (found.scores.argmax(axis=0) == found.labels).mean() >= 0.99999
    assert (found.labels == engine.predict(image)).all()


def test_pixels_below_the_threshold_of_their_class_are_ignored() -> None:
    toy, image = ToyEngine(contract()), picture(90, 140)
    plain = Predictor(toy).predict_scores(image)
    assert plain.scores is not None
    best = plain.scores.max(axis=0)
    middle = float(np.median(best))
    labels = Predictor(toy, options=PredictOptions(thresholds=middle)).predict(image)
    assert ((labels == 255) == (best < np.float32(middle))).all()
    assert (labels[labels != 255] == plain.labels[labels != 255]).all()
    commonest = int(np.bincount(plain.labels.ravel()).argmax())
    (some,) = Predictor(toy, options=PredictOptions(thresholds={toy.contract.classes[commonest]: 1.0})).predict_many(
        [image]
    )
    assert ((some == 255) == ((plain.labels == commonest) & (best < 1))).all()


def test_more_than_255_classes_ignore_65535() -> None:
    labels = Predictor(ToyEngine(many_classes(300)), options=PredictOptions(thresholds=1.0)).predict(picture(64, 96))
    assert labels.dtype == np.uint16 and (labels == 65535).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": PredictOptions(thresholds={"unicorn": 0.5})}, "the network's classes are"),
        ({"options": PredictOptions(thresholds=1.5)}, "a probability, 0 to 1"),
        ({"backend": "tensorflow"}, "expected one of torch, onnxruntime"),
        ({"backend": "torch"}, "--backend torch needs --config"),
        ({"checkpoint": "x.pth"}, "--checkpoint goes with --config"),
    ],
)
def test_what_does_not_go_together_is_refused(artifact: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ffnet_deploy.open_engine(artifact, **arguments)


def test_labels_alone_have_no_scores() -> None:
    engine = Predictor(ToyEngine(contract(output=OutputKind.LABELS), lambda batch: batch[:, 0].astype(np.uint8)))
    with pytest.raises(OptionError, match="labels only"):
        engine.predict_scores(picture(64, 96))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), "street.jpg"])
def test_what_is_no_image_is_refused(artifact: Path, image: object) -> None:
    with ffnet_deploy.open_engine(artifact) as engine:
        with pytest.raises(DataError, match=r"uint8 \(height, width, 3\)"):
            engine.predict(image)
        with pytest.raises(DataError, match=r"uint8 \(height, width, 3\)"):
            list(engine.predict_many([picture(64, 96), image]))


def test_an_artefact_is_opened_where_torch_is_not_installed(artifact: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['mmseg'] = sys.modules['onnx'] = None\n"
        "import numpy, ffnet_deploy\n"
        f"with ffnet_deploy.open_engine({str(artifact)!r}) as engine:\n"
        "    print(engine.predict(numpy.zeros((70, 50, 3), numpy.uint8)).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "(70, 50)", done.stderr
