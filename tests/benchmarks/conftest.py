import json
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu import PLAN
from benchmarks.gpu_reference import DATA, FILE, FORMAT, GRAPHS, write_arrays
from ffnet_deploy.core.contract import Contract, DimensionRange
from ffnet_deploy.core.files import make_folder, write_json
from ffnet_deploy.evaluation.datasets import open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.verify import images_of
from tests.toy import ToyEngine, contract, write_onnx, write_pairs


def toy_contract() -> Contract:
    """One size, batches of 1 to 8."""
    return replace(
        contract(), batch=DimensionRange(1, 1, 8), height=DimensionRange.fixed(64), width=DimensionRange.fixed(96)
    )


def write_toy_reference(folder: Path) -> Path:
    """The folder of the toy network, "trained" on three labelled images, among the networks in `folder`."""
    own, described = folder / "toy", toy_contract()
    dataset = open_dataset(write_pairs(folder / DATA, 3, (64, 96)), "camvid")
    graphs = [write_onnx(make_folder(own / GRAPHS) / name, described) for name in ("toy.onnx", "toy.fp16.onnx")]
    engine = ToyEngine(described)
    write_arrays(own, engine, images_of(dataset, 2))
    scores = evaluate(engine, dataset).scores
    assert scores is not None
    about = {
        "format": FORMAT,
        "commit": None,
        "network": "toy",
        "engine": "toy",
        "graphs": [graph.name for graph in graphs],
        "trained": True,
        "images": 2,
        "mIoU": scores.mean_iou,
        "data": {"network": "camvid", "dataset": "camvid", "split": "val"},
    }
    write_json(own / FILE, about)
    if not (folder / PLAN).exists():
        (folder / PLAN).write_text(json.dumps({"networks": []}))
    return own
