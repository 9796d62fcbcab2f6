"""Every kind of file that comes from outside: one of it, and who reads it."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest
from ffnet_deploy.core.contract import Contract, OutputKind
from ffnet_deploy.core.label_sets import read_label_set
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.tensorrt.timing_cache import read_timing_cache, write_timing_cache
from ffnet_deploy.evaluation.datasets import open_dataset
from ffnet_deploy.evaluation.images import read_image, read_label_map
from tests.evaluation import layout_examples
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


def _bundle(folder: Path, changed: Callable[[Path], Path], mutations: tuple[Mutation, ...]) -> Seeded:
    """An engine with its manifest, of which the file `changed` is changed."""
    from ffnet_deploy.engines.bundle import open_bundle
    from tests.engines.bundles import write_bundle
    from tests.engines.test_bundle import PLAN, content

    path = folder / "toy.engine"
    write_bundle(path, PLAN, content())
    return Seeded(changed(path), lambda: open_bundle(path), mutations, covered=True)


def _text(folder: Path, text: str, read: Callable[[Path], Any], mutations: tuple[Mutation, ...] = BYTES) -> Seeded:
    """A text file that `read` reads by its path."""
    path = folder / "file.txt"
    path.write_text(text)
    return Seeded(path, lambda: read(path), mutations)


def _foreign_text(path: Path) -> str:
    """The text of a document as an artefact may hold it: bytes that are no UTF-8 included."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


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


def training_state(folder: Path) -> Seeded:
    import torch

    from ffnet_deploy.training.saving import iterations_of, load_state

    path = folder / "iter_2.pth"
    hub = {"runtime_info": {"max_iters": 4, "last_ckpt": "iter_2.pth"}, "log_scalars": {}, "resumed_keys": {}}
    torch.save({"state_dict": {"w": torch.ones(3)}, "meta": {"iter": 2}, "message_hub": hub}, path)
    return Seeded(path, lambda: (str(load_state(str(path))), iterations_of(path)), BYTES)


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


def _image(folder: Path, name: str, pixels: np.ndarray, read: Callable[[Path], np.ndarray]) -> Seeded:
    """The image `pixels`, in the format of its `name`."""
    path = folder / name
    cv2.imwrite(str(path), pixels)
    return Seeded(path, lambda: read(path).tolist(), BYTES)


def _dataset(folder: Path, layout: Callable[[Path], None], changed: str, opened: str = "") -> Seeded:
    """A data set of a published layout, of which the file `changed` is changed; `opened` is what a user names."""
    layout(folder)

    def read() -> Any:
        dataset = open_dataset(folder / opened, "custom")
        return dataset.label_set, [dataset.read(sample, 3)[1].tolist() for sample in dataset.samples[:2]]

    return Seeded(folder / changed, read, DOCUMENTS if changed.endswith(".json") else BYTES)


def timing_cache(folder: Path) -> Seeded:
    path, machine = folder / "timing.cache", ("11.4.0", "NVIDIA H100")
    write_timing_cache(path, bytes(range(256)), *machine)
    # one that does not fit is not used, and nothing is said
    return Seeded(path, lambda: read_timing_cache(path, *machine) or bytes(range(256)), BYTES, covered=True)


def calibration_list(folder: Path) -> Seeded:
    from ffnet_deploy.calib.images import read_image_list

    return _text(folder, "street_* 20\n# at night\nnight/*.png\n", read_image_list)


def layer_timings(folder: Path) -> Seeded:
    from ffnet_deploy.calib.search import read_timings

    layers = [{"name": "/b/Conv", "milliseconds": 1.5}, {"name": "/c/Conv", "milliseconds": 0.5}]
    run = {
        "format": 2,
        "candidates": [{"name": name, "precision": name} for name in ("fp16", "int8")],
        "measurements": [{"candidate": name, "profile": {"layers": layers}} for name in ("fp16", "int8")],
    }
    return _text(folder, json.dumps(run), lambda path: str(read_timings(path)), DOCUMENTS)


KINDS: dict[str, Callable[[Path], Seeded]] = {
    "onnx_metadata": onnx_metadata,
    "onnx_file": onnx_file,
    "manifest": manifest,
    "engine": partial(_bundle, changed=lambda path: path, mutations=BYTES),
    "engine_manifest": partial(_bundle, changed=manifest_path, mutations=DOCUMENTS),
    "timing_cache": timing_cache,
    "contract_text": partial(
        _text,
        text=contract().to_json(),
        read=lambda path: Contract.from_json(_foreign_text(path)),
        mutations=DOCUMENTS,
    ),
    "precision_record": partial(
        _text,
        text=PrecisionRecord(Precision.INT8, Precision.FP16, ("a", "b"), ("c",)).to_json(),
        read=lambda path: PrecisionRecord.from_json(_foreign_text(path)),
        mutations=DOCUMENTS,
    ),
    "ranges": ranges,
    "search_state": search_state,
    "calibration_list": calibration_list,
    "layer_timings": layer_timings,
    "evaluation_state": evaluation_state,
    "bench_record": bench_record,
    "checkpoint": checkpoint,
    "hostile_checkpoint": hostile_checkpoint,
    "bare_pickle": bare_pickle,
    "training_state": training_state,
    "safetensors": safetensors,
    "png_labels": partial(_image, name="labels.png", pixels=label_map(24, 32), read=read_label_map),
    "sixteen_bit_labels": partial(
        _image, name="labels.png", pixels=np.arange(768, dtype=np.uint16).reshape(24, 32), read=read_label_map
    ),
    "jpeg_labels": partial(_image, name="labels.jpg", pixels=label_map(24, 32), read=read_label_map),
    "tiff_labels": partial(_image, name="labels.tif", pixels=label_map(24, 32), read=read_label_map),
    "jpeg_image": partial(_image, name="image.jpg", pixels=picture(24, 32), read=read_image),
    "webp_image": partial(_image, name="image.webp", pixels=picture(24, 32), read=read_image),
    "class_list": partial(
        _text, text="road 128 64 128\ntraffic light 250 170 30\nsky 70 130 180\n", read=read_label_set
    ),
    "yolo_data": partial(_dataset, layout=layout_examples.yolo, changed="data.yaml", opened="data.yaml"),
    "yolo_masks": partial(_dataset, layout=layout_examples.yolo_masks, changed="data.yaml", opened="data.yaml"),
    "yolo_polygons": partial(_dataset, layout=layout_examples.yolo, changed="labels/val/10.txt", opened="data.yaml"),
    "coco_objects": partial(_dataset, layout=layout_examples.coco, changed="annotations/instances_val2017.json"),
    "coco_panoptic": partial(_dataset, layout=layout_examples.coco_panoptic, changed="annotations/panoptic_val.json"),
    "split_list": partial(_dataset, layout=layout_examples.voc, changed="ImageSets/Segmentation/val.txt"),
    "roboflow_classes": partial(_dataset, layout=layout_examples.roboflow, changed="valid/_classes.csv"),
}
