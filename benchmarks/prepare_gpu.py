"""Makes, on the machine that has PyTorch, the folder that benchmarks/gpu.py and tests/gpu take to a GPU machine.

    python -m benchmarks.prepare_gpu --graph export/NET.onnx --graph export/NET.fp16.onnx --graph export/NET.int8.onnx \
        --checkpoint bundled --data DATA --images 16 --out gpu

The graphs are of one network; call it once for each. See gpu_reference.py for the layout.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import cycle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter

from benchmarks.gpu_reference import ARRAYS, DATA, FILE, FORMAT, GRAPHS, Case
from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest, tool_versions
from ffnet_deploy.cli.console import console, make_app, progress_bar, run_command
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import atomic_path, make_folder, write_json
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.evaluation.datasets import Dataset, Sample, open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.images import read_image
from ffnet_deploy.evaluation.preprocessing import network_input, resize_image
from ffnet_deploy.evaluation.verify import NamedImage, packaged_images, verification_sizes


@dataclass(frozen=True)
class Cases:
    """How much to take along.

    Attributes:
        images: labelled images to score on.
        outputs: outputs to keep; each has the size of the network's output in float32.
    """

    images: int = 16
    outputs: int = 6

    def __post_init__(self) -> None:
        if self.images < 1 or self.outputs < 1:
            raise OptionError(f"at least one image and one output: got {self.images} and {self.outputs}")


def describe(graphs: Sequence[Path]) -> Contract:
    """The contract that all `graphs` share, after checking them against their manifests.

    Raises:
        OptionError: there is none, or they are of different networks.
        ArtifactError: a graph is missing, damaged, or has changed.
    """
    if not graphs:
        raise OptionError("name the graphs to take along: --graph FILE.onnx, once for each")
    contracts = [read_description(path)[0] for path in graphs]
    for path in graphs:
        read_manifest(path)
    if any(replace(contract, sources={}) != replace(contracts[0], sources={}) for contract in contracts):
        raise OptionError(f"the graphs are not of one network and one shape: {', '.join(path.name for path in graphs)}")
    return contracts[0]


def prepare(
    graphs: Sequence[Path],
    reference: Engine,
    dataset: Dataset | None,
    cases: Cases,
    out: Path,
    progress: Progress = no_progress,
) -> Path:
    """Write the folder of one network below `out`.

    Args:
        graphs: of one contract; FP32 first.
        reference: PyTorch as published, with the graphs' contract.
        dataset: labelled images; None: outputs for generated scenes alone are kept.
        cases: how much to take along.
        out: folder of all networks.
        progress: told of the images scored.

    Returns:
        The network's folder.
    """
    contract = reference.contract
    folder = make_folder(out / contract.network)
    limited = None if dataset is None else dataset.limited(cases.images)
    recorded = list(_record(reference, _images(limited, cases.outputs)))
    arrays: dict[str, Any] = {f"images_{index}": case.images for index, case in enumerate(recorded)}
    arrays |= {f"output_{index}": case.output for index, case in enumerate(recorded)}
    with atomic_path(folder / ARRAYS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    for graph in graphs:
        _copy_graph(graph, make_folder(folder / GRAPHS))
    _copy_data(limited, folder / DATA)
    scores = None if limited is None else evaluate(reference, limited, progress=progress).scores
    about = {
        "format": FORMAT,
        "network": contract.network,
        "dataset": contract.dataset,
        "engine": reference.name,
        "graphs": [graph.name for graph in graphs],
        "cases": [case.name for case in recorded],
        "data": None if limited is None else {"dataset": limited.name, "split": limited.split, "images": len(limited)},
        "mIoU": None if scores is None else scores.mean_iou,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "tools": tool_versions(),
    }
    write_json(folder / FILE, about)
    return folder


def _images(dataset: Dataset | None, count: int) -> list[NamedImage]:
    if dataset is None:
        return packaged_images(count)
    return [NamedImage(sample.name, read_image(sample.image)) for sample in dataset.limited(count).samples]


def _record(reference: Engine, images: Sequence[NamedImage]) -> Iterator[Case]:
    """Each image at one of the sizes to verify at, taken in turn; and the largest batch where there is a range."""
    contract = reference.contract
    sizes = verification_sizes(contract)
    for image, size in zip(images, cycle(sizes)):
        yield _run(reference, [image] * contract.batch.min, size)
    if not contract.batch.is_fixed:
        several = [image for image, _ in zip(cycle(images), range(contract.batch.max))]
        yield _run(reference, several, sizes[0])


def _run(reference: Engine, images: Sequence[NamedImage], size: tuple[int, int]) -> Case:
    pixels = np.stack([resize_image(image.pixels, size) for image in images])
    output = reference.run(network_input(pixels, reference.contract))
    return Case(", ".join(dict.fromkeys(image.name for image in images)), pixels, output)


def _copy_graph(graph: Path, folder: Path) -> None:
    names = [graph.name, manifest_path(graph).name, *read_manifest(graph)["files"]]
    for name in names:
        shutil.copyfile(graph.with_name(name), folder / name)


def _copy_data(dataset: Dataset | None, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if dataset is None:
        return
    for file in (file for sample in dataset.samples for file in _files(sample)):
        target = folder / file.relative_to(dataset.root)
        make_folder(target.parent)
        shutil.copyfile(file, target)


def _files(sample: Sample) -> list[Path]:
    return [sample.image, *([] if sample.labels is None else [sample.labels])]


def open_reference(contract: Contract, checkpoint: str | None) -> Engine:
    """PyTorch as published, with `contract`, on the CPU.

    Raises:
        ConfigError, CheckpointError, MissingPackageError: see `open_segmentor`.
        OptionError: the graphs came from another checkpoint.
    """
    from ffnet_deploy.engines.torch import TorchEngine
    from ffnet_deploy.segmentor.load import open_segmentor
    from ffnet_deploy.segmentor.zoo import chosen_checkpoint

    segmentor = open_segmentor(contract.network, chosen_checkpoint(checkpoint, contract.network), None)
    check_source(contract.sources, segmentor.sources)
    return TorchEngine(segmentor.model, contract, "cpu", segmentor.notes)


def check_source(graphs: Mapping[str, str], checkpoint: Mapping[str, str]) -> None:
    """Raise `OptionError` unless both are of one checkpoint: else engines would be compared with another network."""
    if graphs.get("checkpoint") != checkpoint.get("checkpoint"):
        raise OptionError(
            f"the graphs came from a checkpoint with SHA-256 {str(graphs.get('checkpoint'))[:12]}..., and --checkpoint "
            f"has {str(checkpoint.get('checkpoint'))[:12]}...\n"
            "  to do    give the checkpoint they were exported from, or export them again"
        )


app = make_app("benchmarks/prepare_gpu.py", "Collect graphs, images and PyTorch's outputs for a GPU machine.")


@app.default
def command(
    *,
    graph: Annotated[list[Path], Parameter(help="Exported ONNX file; FP32 first, then its lower precisions.")],
    checkpoint: Annotated[str, Parameter(help="File, 'published' or 'bundled': what the graphs came from.")],
    out: Annotated[Path, Parameter(help="Folder for all networks.")],
    data: Annotated[Path | None, Parameter(help="Folder of a labelled data set.")] = None,
    dataset: Annotated[str | None, Parameter(help="Meaning of the labels: ade20k, cityscapes, camvid, ...")] = None,
    split: Annotated[str, Parameter(help="Part of the data set.")] = "val",
    images: Annotated[int, Parameter(help="Labelled images to take along.")] = 16,
    outputs: Annotated[int, Parameter(help="PyTorch's outputs to take along.")] = 6,
) -> None:
    """Collect graphs, images and PyTorch's outputs for a GPU machine."""
    contract = describe(graph)
    samples = None if data is None else open_dataset(data, contract.dataset, dataset, split)
    with progress_bar("scoring with PyTorch") as progress, open_reference(contract, checkpoint) as reference:
        folder = prepare(graph, reference, samples, Cases(images, outputs), out, progress)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    console.print(f"{folder}: {size / (1 << 20):.1f} MiB")


if __name__ == "__main__":
    run_command(app)
