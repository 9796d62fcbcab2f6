"""The export from end to end: re-parameterise, write, verify, and only then publish the file with its manifest."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ffnet_deploy.artifacts.manifest import manifest_path, write_manifest
from ffnet_deploy.artifacts.staging import move, reject, workshop
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.files import make_folder
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.engines.torch import TorchEngine
from ffnet_deploy.evaluation.datasets import Dataset
from ffnet_deploy.evaluation.preprocessing import normalized, resize_image
from ffnet_deploy.export.equivalence import BlockError, compare_blocks
from ffnet_deploy.export.onnx import ExportOptions, build_graph, write_graph
from ffnet_deploy.export.reparameterize import reparameterize
from ffnet_deploy.export.verify import NamedImage, Tolerance, Verification, verify
from ffnet_deploy.segmentor.load import Segmentor

_BLOCKS_SIZE = (128, 160)
"""Input (height, width) in pixels of the block-by-block comparison."""

Stage = Callable[[str], None]
"""Called with the name of each step as it begins."""


@dataclass(frozen=True)
class VerifyOptions:
    """What the export is verified on.

    Attributes:
        images: at least one.
        source: where they come from, in words.
        labelled: data whose mIoU is compared too; None: no comparison of mIoU.
        tolerance: the gate.
        reference_miou: mIoU of the segmentor as published on `labelled`, percent, where it was scored before.
    """

    images: Sequence[NamedImage]
    source: str
    labelled: Dataset | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    reference_miou: float | None = None


@dataclass(frozen=True)
class Exported:
    """A verified graph on disk.

    Attributes:
        path: of the ONNX file.
        manifest: of the JSON file beside it.
        contract: what the graph takes and gives.
        blocks: difference that re-parameterisation made, block by block.
        verification: of the written file against the segmentor as published.
    """

    path: Path
    manifest: Path
    contract: Contract
    blocks: tuple[BlockError, ...]
    verification: Verification


def target_path(out: Path, network: str) -> Path:
    """The ONNX file meant by `out`: itself when it ends in ``.onnx``, else ``<network>.onnx`` in that folder."""
    return out if out.suffix == ".onnx" else out / f"{network}.onnx"


def export_onnx(
    segmentor: Segmentor,
    options: ExportOptions,
    out: Path,
    verification: VerifyOptions,
    progress: Progress = no_progress,
) -> Exported:
    """Write `segmentor` as a verified ONNX graph with its manifest.

    Args:
        segmentor: with its weights.
        options: boundary and form of the graph.
        out: file ending in ``.onnx``, or folder.
        verification: images and tolerance.
        progress: told of steps, and of the images scored.

    Raises:
        VerificationError: the file differs by more than the tolerance; it is kept beside `out` as evidence.
        StorageError: there is no room, or the folder cannot be written.
    """
    path = target_path(out, segmentor.config.name)
    make_folder(path.parent)
    progress("re-parameterising")
    blocks = _block_errors(segmentor, verification.images[0])
    with workshop(path) as draft:
        progress("tracing and simplifying")
        files = write_graph(build_graph(segmentor, options), draft)
        progress("verifying")
        unsealed = OnnxRuntimeOptions(check_manifest=False)
        with (
            OnnxRuntimeEngine(draft, unsealed) as candidate,
            TorchEngine(segmentor.model, candidate.contract) as reference,
        ):
            contract = candidate.contract
            tolerance = verification.tolerance
            result = verify(reference, candidate, verification.images, tolerance, verification.labelled, progress)
        failures = [*_block_failures(blocks, tolerance), *result.failures]
        content = _manifest_content(contract, options, blocks, result, verification)
        if failures:
            remedy = "report it with that folder; to accept the difference, raise --tolerance"
            reject(draft, files, path, content, failures, remedy)
        progress("writing")
        manifest = write_manifest(draft, "onnx", content, files)
        move((*files, draft.name, manifest.name), draft.parent, path.parent)
        if not files:
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)  # of an export that needed it
    return Exported(path, manifest_path(path), contract, tuple(blocks), result)


def _block_errors(segmentor: Segmentor, image: NamedImage) -> list[BlockError]:
    x = torch.from_numpy(normalized(resize_image(image.pixels, _BLOCKS_SIZE)[None], segmentor.config.normalization))
    return compare_blocks(segmentor.model, reparameterize(segmentor.model), x)


def _block_failures(blocks: Sequence[BlockError], tolerance: Tolerance) -> list[str]:
    return [
        f"re-parameterised {block.name}: relative error {block.relative:.1e} > {tolerance.relative:.1e}"
        for block in blocks
        if not block.relative <= tolerance.relative
    ]


def _manifest_content(
    contract: Contract,
    options: ExportOptions,
    blocks: Sequence[BlockError],
    result: Verification,
    verification: VerifyOptions,
) -> dict[str, Any]:
    worst = max(blocks, key=lambda block: block.relative)
    return {
        "contract": asdict(contract),
        "opset": options.opset,
        "reparameterisation": {
            "blocks": [{**asdict(block), "relative": block.relative} for block in blocks],
            "worst": worst.name,
            "worst_relative": worst.relative,
        },
        "verification": {"images": verification.source, **result.to_dict()},
    }
