"""Every kind of file that comes from outside: one of it, and who reads it."""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest
from ffnet_deploy.core.contract import Contract, OutputKind
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from tests.hostile.mutations import BYTES, DOCUMENTS, Mutation
from tests.toy import contract, label_map, picture, write_onnx

MARKER = "code-has-run"


@dataclass(frozen=True)
class Seeded:
    """One kind of file in a folder.

    Attributes:
        file: that is changed.
        read: reads it; the value tells whether it was read as something else.
        mutations: how it is changed.
        covered: whether a hash covers it, so that changed content must never be accepted.
    """

    file: Path
    read: Callable[[], Any]
    mutations: tuple[Mutation, ...] = DOCUMENTS
    covered: bool = False


class Hostile:
    """Unpickles as a call that leaves a marker."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


def onnx_metadata(folder: Path) -> Seeded:
    from ffnet_deploy.engines.onnx_metadata import read_description, tensor_shape, with_int32_labels

    path = write_onnx(folder / "toy.onnx", contract(output=OutputKind.LABELS))

    def read() -> Any:
        description = read_description(path)
        return description, tensor_shape(path, "image"), with_int32_labels(path)

    return Seeded(path, read, BYTES)


def onnx_file(folder: Path) -> Seeded:
    from ffnet_deploy.engines.onnx_file import check_against_manifest

    path = write_onnx(folder / "toy.onnx", contract())
    return Seeded(path, lambda: (check_against_manifest(path), path.read_bytes()), BYTES, covered=True)


def manifest(folder: Path) -> Seeded:
    path = write_onnx(folder / "toy.onnx", contract())
    return Seeded(manifest_path(path), lambda: {k: v for k, v in read_manifest(path).items() if k != "digest"})


def engine_manifest(folder: Path) -> Seeded:
    from ffnet_deploy.engines.bundle import open_bundle
    from tests.engines.test_bundle import PLAN, content, write_bundle

    path = folder / "toy.engine"
    write_bundle(path, PLAN, content())
    return Seeded(manifest_path(path), lambda: open_bundle(path), covered=True)


def engine(folder: Path) -> Seeded:
    from ffnet_deploy.engines.bundle import open_bundle
    from tests.engines.test_bundle import PLAN, content, write_bundle

    path = folder / "toy.engine"
    write_bundle(path, PLAN, content())
    return Seeded(path, lambda: open_bundle(path), BYTES, covered=True)


def contract_text(folder: Path) -> Seeded:
    path = folder / "contract.json"
    path.write_text(contract().to_json())
    return Seeded(path, lambda: Contract.from_json(path.read_text(encoding="utf-8", errors="surrogateescape")))


def precision_record(folder: Path) -> Seeded:
    path = folder / "precision.json"
    path.write_text(PrecisionRecord(Precision.INT8, Precision.FP16, ("a", "b"), ("c",)).to_json())
    return Seeded(path, lambda: PrecisionRecord.from_json(path.read_text(encoding="utf-8", errors="surrogateescape")))


def ranges(folder: Path) -> Seeded:
    from ffnet_deploy.calib.equalize import Factors
    from ffnet_deploy.calib.ranges import Calibration, CalibrationKey, read_calibration, write_calibration

    path, key = folder / "ranges.json", CalibrationKey("0" * 64, "1" * 64, "2" * 64, "minmax, int8")
    values = {"x": 1.5, "y": 0.25}
    factors = Factors({"x": np.ones(4)}, {"y": np.full(2, 0.5)}, ("z",))
    shapes = {"x": (1, 4, 8, 8), "y": (1, 2, 4, 4)}
    write_calibration(path, Calibration(key, 3, values, values, shapes, factors, {"conv": np.zeros(3)}))
    return Seeded(path, lambda: str(read_calibration(path, key)))


def search_state(folder: Path) -> Seeded:
    from ffnet_deploy.calib.search import Sensitivity, TrialScore, _State

    path = folder / "state.json"
    state = _State(path, "0" * 64)
    state.rows = [Sensitivity("a", ("a.conv",), 50.0, 20.0, 1.0, 0.1)]
    state.scores = {"": TrialScore(21.5, 0.5, 0.9), "a": TrialScore(30.0, 0.0, 0.1)}
    state.save()
    return Seeded(path, lambda: vars(_State(path, "0" * 64)))


def evaluation_state(folder: Path) -> Seeded:
    from ffnet_deploy.evaluation.image_scores import ImageScore, StateFile

    path, key = folder / "scores.state", {"artifact": "0" * 64, "protocol": {"scale": [96, 64]}, "dataset": "camvid"}

    def read() -> Any:
        state = StateFile(path, key, 11)
        state.close()
        return {name: one.confusion(11).tolist() for name, one in state.done.items()}

    first = StateFile(path, key, 11)
    confusion = np.arange(121, dtype=np.int64).reshape(11, 11)
    first.add(ImageScore.of("a.png", confusion))
    first.add(ImageScore.of("b.png", confusion.T * 1000, ("scored whole",)))
    first.close()
    return Seeded(path, read, BYTES)


def bench_record(folder: Path) -> Seeded:
    from ffnet_deploy.benchmark.files import read_run, write_run
    from tests.benchmark.runs import make_run

    write_run(folder / "run.json", make_run())
    return Seeded(folder / "run.json", lambda: read_run(folder / "run.json"))


def checkpoint(folder: Path) -> Seeded:
    import torch

    path = folder / "a.pth"
    state = {"backbone.w": torch.arange(12.0).reshape(3, 4), "decode_head.b": torch.ones(5)}
    torch.save({"state_dict": state, "meta": {"CLASSES": ("a", "b"), "epoch": 3}}, path)
    return Seeded(path, lambda: _weights(path), BYTES)


def hostile_checkpoint(folder: Path) -> Seeded:
    import torch

    path = folder / "a.pth"
    torch.save({"state_dict": {"w": torch.ones(3)}, "extra": Hostile(folder / MARKER)}, path)
    return Seeded(path, lambda: _weights(path), BYTES)


def bare_pickle(folder: Path) -> Seeded:
    path = folder / "a.pth"
    path.write_bytes(pickle.dumps({"state_dict": {"w": Hostile(folder / MARKER)}}, 2))
    return Seeded(path, lambda: _weights(path), BYTES)


def safetensors(folder: Path) -> Seeded:
    import torch
    from safetensors.torch import save_file

    path = folder / "a.safetensors"
    save_file({"backbone.w": torch.arange(12.0).reshape(3, 4), "decode_head.b": torch.ones(5)}, path, {"epoch": "3"})
    return Seeded(path, lambda: _weights(path), BYTES)


def _weights(path: Path) -> Any:
    from ffnet_deploy.segmentor.checkpoint import read_checkpoint

    found = read_checkpoint(path)
    return {name: value.tolist() for name, value in found.tensors.items()}, str(found.meta)


def png_labels(folder: Path) -> Seeded:
    from ffnet_deploy.evaluation.images import read_label_map

    path = folder / "labels.png"
    cv2.imwrite(str(path), label_map(24, 32))
    return Seeded(path, lambda: read_label_map(path).tolist(), BYTES)


def sixteen_bit_labels(folder: Path) -> Seeded:
    from ffnet_deploy.evaluation.images import read_label_map

    path = folder / "labels.png"
    cv2.imwrite(str(path), np.arange(768, dtype=np.uint16).reshape(24, 32))
    return Seeded(path, lambda: read_label_map(path).tolist(), BYTES)


def jpeg_labels(folder: Path) -> Seeded:
    from ffnet_deploy.evaluation.images import read_label_map

    path = folder / "labels.jpg"
    cv2.imwrite(str(path), label_map(24, 32))
    return Seeded(path, lambda: read_label_map(path).tolist(), BYTES)


def jpeg_image(folder: Path) -> Seeded:
    from ffnet_deploy.evaluation.images import read_image

    path = folder / "image.jpg"
    cv2.imwrite(str(path), picture(24, 32))
    return Seeded(path, lambda: read_image(path).tolist(), BYTES)


def webp_image(folder: Path) -> Seeded:
    from ffnet_deploy.evaluation.images import read_image

    path = folder / "image.webp"
    cv2.imwrite(str(path), picture(24, 32))
    return Seeded(path, lambda: read_image(path).tolist(), BYTES)


def tiff_labels(folder: Path) -> Seeded:
    from ffnet_deploy.evaluation.images import read_label_map

    path = folder / "labels.tif"
    cv2.imwrite(str(path), label_map(24, 32))
    return Seeded(path, lambda: read_label_map(path).tolist(), BYTES)


def class_list(folder: Path) -> Seeded:
    from ffnet_deploy.core.label_sets import read_label_set

    path = folder / "classes.txt"
    path.write_text("road 128 64 128\ntraffic light 250 170 30\nsky 70 130 180\n")
    return Seeded(path, lambda: read_label_set(path), BYTES)


KINDS: dict[str, Callable[[Path], Seeded]] = {
    maker.__name__: maker
    for maker in (
        onnx_metadata,
        onnx_file,
        manifest,
        engine_manifest,
        engine,
        contract_text,
        precision_record,
        ranges,
        search_state,
        evaluation_state,
        bench_record,
        checkpoint,
        hostile_checkpoint,
        bare_pickle,
        safetensors,
        png_labels,
        sixteen_bit_labels,
        jpeg_labels,
        jpeg_image,
        webp_image,
        tiff_labels,
        class_list,
    )
}
