"""What travels from the conversion machine to a GPU machine: graphs, images, and PyTorch's FP32 outputs for them.

    FOLDER/NETWORK/graphs/*.onnx     with their manifests
    FOLDER/NETWORK/reference.json    network, cases, mIoU of PyTorch on data/
    FOLDER/NETWORK/reference.npz     for each case the images (uint8, BGR, at the input size) and PyTorch's output
    FOLDER/NETWORK/data/             labelled images, laid out as they were

Images are kept at the input size because OpenCV's versions resize differently in the last bit.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import OutputKind
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.precision import Precision
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.evaluate import evaluate
from ffnet_deploy.evaluation.preprocessing import network_input

FILE, ARRAYS, GRAPHS, DATA = "reference.json", "reference.npz", "graphs", "data"
FORMAT = 1


@dataclass(frozen=True)
class Gate:
    """What an engine may differ by from PyTorch in FP32.

    Attributes:
        agreement: least share of positions with the same label over all cases, percent.
        miou: largest fall of mIoU, points.
        relative: largest error of an output value relative to the largest magnitude.
    """

    agreement: float
    miou: float
    relative: float = 1.0

    @classmethod
    def of(cls, precision: Precision) -> "Gate":
        """The gate that ffnet-export sets for an engine of `precision`."""
        if precision is Precision.FP32:
            return cls(99.9, 0.05, 1e-2)
        return cls(90.0, 0.3) if precision.is_quantized else cls(99.5, 0.05)


@dataclass(frozen=True)
class Difference:
    """An engine's output beside PyTorch's for one case.

    Attributes:
        name: of the case.
        shape: of the images, (batch, height, width).
        agreement: positions with the same label, percent.
        positions: number of labels compared.
        largest: largest absolute error; for label maps the share of differing labels, and so are the next two.
        mean: mean absolute error.
        relative: largest error relative to the largest magnitude.
    """

    name: str
    shape: tuple[int, ...]
    agreement: float
    positions: int
    largest: float
    mean: float
    relative: float


@dataclass(frozen=True)
class Outcome:
    """An engine beside PyTorch.

    Attributes:
        cases: one for each case that the engine takes; at least one.
        gate: what was allowed.
        miou: (PyTorch's, the engine's) in percent, where there are labels.
        images: number of images behind `miou`.
        notes: how the scoring deviated from the published protocol.
    """

    cases: tuple[Difference, ...]
    gate: Gate
    miou: tuple[float, float] | None = None
    images: int = 0
    notes: tuple[str, ...] = ()

    @property
    def agreement(self) -> float:
        """Positions of all cases together with the same label, percent."""
        return sum(one.agreement * one.positions for one in self.cases) / sum(one.positions for one in self.cases)

    @property
    def relative(self) -> float:
        """Largest error of all cases, relative to the largest magnitude of its output."""
        return max(one.relative for one in self.cases)

    @property
    def failures(self) -> list[str]:
        """What is out of the gate, in words; empty when everything holds."""
        out = []
        if not self.relative <= self.gate.relative:
            out.append(f"relative error {self.relative:.1e} > {self.gate.relative:.1e}")
        if not self.agreement >= self.gate.agreement:
            out.append(f"label agreement {self.agreement:.3f} % < {self.gate.agreement} %")
        if self.miou is not None and not self.miou[0] - self.miou[1] <= self.gate.miou:
            out.append(f"mIoU fell from {self.miou[0]:.3f} to {self.miou[1]:.3f}, more than {self.gate.miou} points")
        return out

    def to_dict(self) -> dict[str, Any]:
        """For the record."""
        found = {"agreement": self.agreement, "relative": self.relative, "failures": self.failures}
        return {**found, **asdict(self)}


@dataclass(frozen=True)
class Case:
    """A batch and the output that PyTorch gives for it.

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
    def network(self) -> str:
        """Name of the config."""
        return str(self.about["network"])

    @property
    def graphs(self) -> list[Path]:
        """The ONNX files, FP32 first."""
        return [self.folder / GRAPHS / name for name in self.about["graphs"]]

    @property
    def miou(self) -> float | None:
        """PyTorch's, on `dataset`, percent."""
        return None if self.about["mIoU"] is None else float(self.about["mIoU"])

    @property
    def dataset(self) -> Dataset | None:
        """The labelled images; None where there are none."""
        data = self.about["data"]
        if data is None:
            return None
        return open_dataset(self.folder / DATA, self.about["dataset"], data["dataset"], data["split"])

    def cases(self) -> Iterator[Case]:
        """All cases, read one at a time."""
        with np.load(self.folder / ARRAYS, allow_pickle=False) as arrays:
            for index, name in enumerate(self.about["cases"]):
                yield Case(name, arrays[f"images_{index}"], arrays[f"output_{index}"])


def find_references(folder: Path) -> list[Reference]:
    """The networks in `folder`, or the one that `folder` is, by name.

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
        missing = {"network", "graphs", "cases", "mIoU", "data", "dataset", "engine"} - set(about)
        if about.get("format") != FORMAT or missing:
            raise ValueError(f"lacks {', '.join(sorted(missing))}" if missing else "is of another format")
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged ({error}).\n  to do    make it again") from error
    return about


def verify_engine(engine: Engine, reference: Reference, gate: Gate) -> Outcome:
    """`engine` beside PyTorch: its outputs for the cases, and its mIoU where there are labels.

    Raises:
        ArtifactError: the engine accepts the shape of no case.
    """
    cases = tuple(_compare(engine, case) for case in reference.cases() if _fits(engine, case))
    if not cases:
        raise ArtifactError(
            f"{engine.name} accepts the shape of no case in {reference.folder}.\n"
            "  to do    prepare the folder with the graphs that the engines are built from"
        )
    dataset = reference.dataset
    scored = None if dataset is None else evaluate(engine, dataset)
    if scored is None or scored.scores is None or reference.miou is None:
        return Outcome(cases, gate)
    return Outcome(cases, gate, (reference.miou, scored.scores.mean_iou), scored.images, scored.notes)


def _fits(engine: Engine, case: Case) -> bool:
    """Whether the engine was built for the shape: it may accept fewer than its graph."""
    batch, height, width = case.images.shape[:3]
    contract = engine.contract
    return batch in contract.batch and height in contract.height and width in contract.width


def _compare(engine: Engine, case: Case) -> Difference:
    expected = case.output
    found = engine.run(network_input(case.images, engine.contract))
    if engine.contract.output is OutputKind.LABELS:
        same = found == expected
        error, magnitude = np.array([1.0 - same.mean()]), 1.0
    else:
        same = found.argmax(1) == expected.argmax(1)
        error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        magnitude = float(np.abs(expected).max()) or 1.0
    largest = float(error.max())
    return Difference(
        name=case.name,
        shape=case.images.shape[:3],
        agreement=float(same.mean() * 100),
        positions=same.size,
        largest=largest,
        mean=float(error.mean()),
        relative=largest / magnitude,
    )
