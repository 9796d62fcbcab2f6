"""From a typed graph to an engine, verified against PyTorch as published where the engine can run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnet_deploy.artifacts.manifest import manifest_path
from ffnet_deploy.artifacts.staging import reject
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.progress import NoteSink, Progress, no_notes, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.tensorrt import make
from ffnet_deploy.engines.tensorrt.make import BuildResult, make_engine
from ffnet_deploy.engines.tensorrt.options import BuildOptions
from ffnet_deploy.export.verify import Tolerance, Verification, verify

if TYPE_CHECKING:
    from ffnet_deploy.export.pipeline import VerifyOptions

PASSED = "passed"
"""State of a verification that has taken place; one that fails leaves no engine."""


@dataclass(frozen=True)
class EngineVerification:
    """What an engine is verified on.

    Attributes:
        images: and labelled data, where there are any.
        tolerance: the gate.
        reference: opens the segmentor as published, for a contract.
        command: the command line that does all this, for where the engine cannot run.
    """

    images: "VerifyOptions"
    tolerance: Tolerance
    reference: Callable[[Contract], Engine]
    command: str


def export_engine(
    graph: Path,
    out: Path,
    options: BuildOptions,
    verification: EngineVerification | None = None,
    progress: Progress = no_progress,
    notes: NoteSink = no_notes,
) -> BuildResult:
    """Build the engine of an exported graph, or reuse the one in `out`; verify it where it can run.

    Args:
        graph: written by ffnet-export.
        out: the engine's file.
        options: how to build.
        verification: what to verify it on; None: it is not verified.
        progress: told of steps, of how far the build is, and of the images scored.
        notes: told what the user should know.

    Raises:
        VerificationError: the engine differs by more than the tolerance; it is kept as evidence. Or it is not in the
            precision that was asked for.
        NoDeviceError, ArtifactError, OptionError, StorageError: as `make_engine`.
    """
    if verification is None:
        return make_engine(graph, out, options, progress=progress, notes=notes)

    def check(engine: Path) -> Mapping[str, Any]:
        result = _verified(engine, options.device, verification, progress)
        content = {"state": PASSED, "images": verification.images.source, **result.to_dict()}
        if result.failures:
            remedy = "to accept the difference, raise --max-drop or lower --min-agreement"
            claim = "the engine is not the network it came from"
            reject(engine, (manifest_path(engine).name,), out, content, result.failures, remedy, claim)
        return content

    return make_engine(graph, out, options, make.Verification(verification.command, check), progress, notes)


def _verified(engine: Path, device: int, verification: EngineVerification, progress: Progress) -> Verification:
    from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions  # needs a GPU's driver

    images = verification.images
    with (
        TensorRTEngine(engine, TensorRTOptions(device=device)) as candidate,
        verification.reference(candidate.contract) as reference,
    ):
        return verify(
            reference,
            candidate,
            images.images,
            verification.tolerance,
            images.labelled,
            progress,
            images.reference_miou,
        )
