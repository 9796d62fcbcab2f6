"""What travels to a GPU machine of each network: its graphs, and the outputs that engines are compared with.

    FOLDER/NAME/graphs/*.onnx        with their manifests; of large networks as *.onnx.stripped, see gpu_weights.py
    FOLDER/NAME/reference.json       the network, where its outputs come from, mIoU where there are labels
    FOLDER/NAME/reference.npz        images (uint8, BGR, at the input size), and the network's output for each in FP32
    FOLDER/data/                     labelled images, laid out as they were

NAME is that of the config, with `REWRITTEN` after it where the graphs are rewritten. Images are kept at the input size
because OpenCV's versions resize differently in the last bit.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import Contract, DimensionRange
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import atomic_path
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.options import BuildOptions, ProfileShapes
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.preprocessing import network_input, resize_image
from ffnet_deploy.evaluation.verify import (
    NamedImage,
    Verification,
    compare,
    numerical_tolerance,
    packaged_images,
    usual_tolerance,
)

FILE, ARRAYS, GRAPHS, DATA = "reference.json", "reference.npz", "graphs", "data"
REWRITTEN = ".rewritten"
FORMAT = 2


@dataclass(frozen=True)
class Case:
    """A batch and the output that the network gives for it.

    Attributes:
        name: of the images.
        images: uint8 (batch, height, width, 3), BGR.
        output: as the contract says.
    """

    name: str
    images: NDArray[np.uint8]
    output: NDArray[np.generic]


@dataclass(frozen=True)
class Reference:
    """One network's folder.

    Attributes:
        folder: where it lies.
        about: content of its reference.json.
    """

    folder: Path
    about: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the folder: the config's, and whether its graphs are rewritten."""
        return self.folder.name

    @property
    def network(self) -> str:
        """Name of the config."""
        return str(self.about["network"])

    @property
    def graphs(self) -> list[Path]:
        """The ONNX files, FP32 first."""
        return [self.folder / GRAPHS / name for name in self.about["graphs"]]

    @property
    def is_trained(self) -> bool:
        """Whether its labels mean something; else its weights follow from the names of their tensors."""
        return bool(self.about["trained"])

    @property
    def has_outputs(self) -> bool:
        """Whether the outputs to compare with are there."""
        return (self.folder / ARRAYS).is_file()

    @property
    def dataset(self) -> Dataset | None:
        """The labelled images; None where there are none."""
        data = self.about["data"]
        if data is None:
            return None
        return open_dataset(self.folder.parent / DATA, data["network"], data["dataset"], data["split"])

    def images(self) -> list[NamedImage]:
        """Street scenes to run a network on that has no outputs yet."""
        return packaged_images(self.about["images"])

    def cases(self) -> Iterator[Case]:
        """Each image by itself, then the largest batch that the graphs accept; read one at a time."""
        with np.load(self.folder / ARRAYS, allow_pickle=False) as arrays:
            names = [str(name) for name in arrays["names"]]
            single = [Case(name, arrays[f"image_{at}"], arrays[f"output_{at}"]) for at, name in enumerate(names)]
        yield from single
        most = read_description(self.graphs[0])[0].batch.max
        if most > 1:
            several = list(islice(cycle(single), most))
            images, outputs = (np.concatenate([getattr(one, part) for one in several]) for part in ("images", "output"))
            yield Case(f"{most} images", images, outputs)


def write_arrays(folder: Path, engine: Engine, images: Sequence[NamedImage]) -> None:
    """Keep `images` at the typical size of `engine`, and its output for each, in `folder`."""
    contract = engine.contract
    arrays: dict[str, Any] = {"names": np.array([image.name for image in images])}
    for at, image in enumerate(images):
        pixels = resize_image(image.pixels, (contract.height.opt, contract.width.opt))[None]
        arrays |= {f"image_{at}": pixels, f"output_{at}": engine.run(network_input(pixels, contract))}
    with atomic_path(folder / ARRAYS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def find_references(folder: Path) -> list[Reference]:
    """The networks in `folder` by name, or the one that `folder` is.

    Raises:
        ArtifactError: there is none, or one is damaged.
    """
    files = sorted([*folder.glob(FILE), *folder.glob(f"*/{FILE}")])
    if not files:
        raise ArtifactError(
            f"{folder} holds no {FILE}.\n  to do    make it on the conversion machine: python -m benchmarks.prepare_gpu"
        )
    return [Reference(file.parent, _read(file)) for file in files]


def _read(file: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        missing = {"network", "graphs", "trained", "images", "mIoU", "data", "engine"} - set(about)
        if about.get("format") != FORMAT or missing:
            raise ValueError(f"lacks {', '.join(sorted(missing))}" if missing else "is of another format")
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged ({error}).\n  to do    make it again") from error
    return about


def build_options(graph: Path, variant: Variant = Variant.TENSORRT, device: int = 0) -> BuildOptions:
    """A profile whose kernels are chosen for single images, and one for the largest batch that `graph` accepts."""
    contract = read_description(graph)[0]
    one, most = contract.batch.min, contract.batch.max
    several = (
        [ProfileShapes(DimensionRange(one + 1, most, most), contract.height, contract.width)] if one < most else []
    )
    return BuildOptions(variant=variant, batch=DimensionRange.fixed(one), profiles=tuple(several), device=device)


@dataclass(frozen=True)
class _Recorded:
    """An engine that gives the output it was recorded with."""

    name: str
    contract: Contract
    output: NDArray[np.generic]
    notes: tuple[str, ...] = ()

    def run(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        return self.output

    def close(self) -> None: ...


def verify_engine(engine: Engine, reference: Reference, precision: Precision) -> Verification:
    """`engine` beside the outputs in `reference`, and its mIoU where there are labels; gates are those of the exporter.

    Args:
        engine: of one of the reference's graphs.
        reference: what it is compared with.
        precision: that the engine was asked for.

    Raises:
        ArtifactError: the engine accepts the shape of no case.
    """
    contract, name = engine.contract, str(reference.about["engine"])
    differences = []
    for case in reference.cases():
        batch, height, width = case.images.shape[:3]
        if batch in contract.batch and height in contract.height and width in contract.width:
            images = [NamedImage(case.name, image) for image in case.images]
            recorded = _Recorded(name, contract, case.output)
            differences.append(compare(recorded, engine, images, (height, width)))
    if not differences:
        raise ArtifactError(
            f"{engine.name} accepts the shape of no case in {reference.folder}.\n"
            "  to do    prepare the folder with the graphs that the engines are built from"
        )
    tolerance = usual_tolerance(precision, None, None) if reference.is_trained else numerical_tolerance(precision)
    found = Verification(name, engine.name, contract.output, tuple(differences), tolerance)
    dataset = reference.dataset
    if dataset is None or reference.about["mIoU"] is None:
        return found
    scored = evaluate(engine, dataset)
    miou = float("nan") if scored.scores is None else scored.scores.mean_iou
    return replace(found, miou=(reference.about["mIoU"], miou), scored_images=scored.images, notes=scored.notes)
