"""Build a TensorRT engine: parse, check precision, build, inspect, verify against PyTorch where it can run, publish."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ffnet_deploy import artifacts
from ffnet_deploy.artifacts import Draft, Gate, manifest_path, read_manifest, write_manifest
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import sha256, write_bytes, write_json
from ffnet_deploy.core.progress import NoteSink, Progress, no_notes, no_progress
from ffnet_deploy.engines.bundle import KIND, Bundle, open_bundle, reusable
from ffnet_deploy.engines.cuda import NoDeviceError, find_device
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.build import RECIPE, build_plan
from ffnet_deploy.engines.tensorrt.options import BuildOptions, BuildTarget, find_target
from ffnet_deploy.engines.tensorrt.refit import refit_plan
from ffnet_deploy.engines.tensorrt.variant import load
from ffnet_deploy.evaluation.verify import Verification, VerifyOptions, verify

NOT_RUN = "not run"
"""State of a verification that has not taken place."""
PASSED = "passed"
"""State of a verification that has taken place; one that fails leaves no engine."""

LAYERS_SUFFIX = ".layers.json"
"""Ends the name of the inspector's layer list beside an engine."""
_PRECISION_REMEDY = (
    "read the layer list that was kept; export the graph again, or in another precision: --fp16, --bf16, --int8"
)
_CLAIM = "the engine is not the network it came from"
_REMEDY = "to accept the difference, raise --max-drop or lower --min-agreement"


@dataclass(frozen=True)
class EngineVerification:
    """What an engine is verified on.

    Attributes:
        options: Images, labelled data where there are any, and the gate.
        reference: Opens the network as it should be, for a contract.
        command: The command line that does all this, for where the engine cannot run.
    """

    options: VerifyOptions
    reference: Callable[[Contract], Engine]
    command: str


@dataclass(frozen=True)
class BuildResult:
    """An engine on disk.

    Attributes:
        bundle: The engine with its manifest.
        reused: Whether it was there already, built from the same things.
    """

    bundle: Bundle
    reused: bool


def build_engine(
    graph: Path,
    out: Path,
    options: BuildOptions,
    verification: EngineVerification | None = None,
    progress: Progress = no_progress,
    notes: NoteSink = no_notes,
) -> BuildResult:
    """Build the engine of an exported graph, or reuse the one in `out` that was built from the same things.

    Where it can run on this machine it is verified before it is published. Two processes that make the same engine: one
    builds, the other waits and reuses.

    Args:
        graph: written by ffnet-export.
        out: the engine's file.
        options: how to build.
        verification: what to verify it on; None: it is not verified.
        progress: called with steps, of how far the build is, and of the images scored.
        notes: called with what the user should know.

    Raises:
        NoDeviceError: there is no GPU to build on, and none was named.
        ArtifactError: the graph is damaged, or TensorRT does not take it.
        OptionError: this TensorRT does not offer what the options ask for.
        VerificationError: the engine differs by more than the tolerance, and is kept as evidence; or the network or the
            engine is not in the precision that was asked for.
        StorageError: there is no room, or the folder cannot be written.
    """
    contract, record = read_description(graph)
    digest = _graph_digest(graph, notes)
    target = find_target(options)
    origin = _origin(options, target)
    obstacle = _obstacle(options, target)
    with artifacts.staged(out, lambda: progress("waiting for another process that builds this engine")) as draft:
        found = reusable(out, digest, origin, lambda error: notes(f"building anew: {error}"))
        if found is not None:
            verified = found.manifest["verification"].get("state") != NOT_RUN
            if verified or verification is None or obstacle is not None:
                return BuildResult(found, reused=True)
            content, files = dict(found.manifest), list(found.manifest["files"])
            write_bytes(draft.path, found.plan)
            for name in files:
                shutil.copyfile(out.with_name(name), draft.folder / name)
        else:
            built = build_plan(graph, contract, record, options, target, progress, notes)
            write_bytes(draft.path, built.plan)
            typing = "strongly typed" if built.precision_check.strongly_typed else "builder flags"
            content = {
                **built.to_dict(),
                "graph": {"file": graph.name, "sha256": digest},
                "build": {**origin, "typing": typing, "seconds": built.seconds},
                "verification": {
                    "state": NOT_RUN,
                    "reason": obstacle or "there is nothing to compare it with here",
                    "command": verification.command if verification else options.command(graph, out, contract.network),
                },
                "rebuild": options.command(graph, out),
            }
            files = [] if built.layers is None else [f"{out.name}{LAYERS_SUFFIX}"]
            for name in files:
                write_json(draft.folder / name, built.layers)
            if built.violations:
                claim = f"the engine that TensorRT built is not the {record.precision.value} network that was asked for"
                artifacts.publish(draft, KIND, content, Gate(built.violations, claim, _PRECISION_REMEDY), files)
        failures: list[str] = []
        if verification is not None and obstacle is None:
            progress("verifying")
            result = _verify(draft, content, verification, options.device, progress)
            failures = result.failures
            content["verification"] = {"state": PASSED, "images": verification.options.source, **result.to_dict()}
            if failures and found is not None:  # what was published without having been verified
                for stale in (out, manifest_path(out), *(out.with_name(name) for name in files)):
                    stale.unlink()
        progress("writing")
        artifacts.publish(draft, KIND, content, Gate(failures, _CLAIM, _REMEDY), files)
    return BuildResult(open_bundle(out), reused=found is not None)


def refit_engine(
    source: Path,
    graph: Path,
    out: Path,
    device: int = 0,
    verification: EngineVerification | None = None,
    progress: Progress = no_progress,
    notes: NoteSink = no_notes,
) -> Bundle:
    """Give the engine `source` the weights of `graph`, and verify and publish what comes out as `out`.

    Args:
        source: an engine that was built without its weights, or to be refitted.
        graph: the graph that it was built from, with the same or other weights.
        out: the file of the refitted engine.
        device: number of the CUDA device to refit on.
        verification: what to verify it on; None: it is not verified.
        progress: called with steps.
        notes: called with what the user should know.

    Raises:
        NoDeviceError: there is no GPU.
        OptionError: the engine was built for neither, the graph is of another network, or this TensorRT refits nothing.
        ArtifactError: a file is damaged, or the graph does not give all weights.
        VerificationError: the engine differs from its network by more than the tolerance, and is kept as evidence.
        StorageError: there is no room, or the folder cannot be written.
    """
    bundle = open_bundle(source)
    build = bundle.manifest["build"]
    if not (build["options"]["strip_weights"] or build["options"]["refit"]):
        raise OptionError(
            f"{source} was built to keep its weights.\n  to do    build it again with --strip-weights or --refit"
        )
    described, _ = read_description(graph)
    same = replace(described, batch=bundle.contract.batch, height=bundle.contract.height, width=bundle.contract.width)
    if replace(same, sources=bundle.contract.sources) != bundle.contract:
        raise OptionError(f"{graph} is of another network than {source}, or takes and gives something else")
    digest = _graph_digest(graph, notes)
    with artifacts.staged(out, lambda: progress("waiting for another process that writes this engine")) as draft:
        progress("refitting")
        write_bytes(draft.path, refit_plan(bundle, graph, device))
        kept = ("precision", "tensors", "profiles", "precision_check", "costs")
        content = {
            **{key: bundle.manifest[key] for key in kept if key in bundle.manifest},
            "contract": json.loads(same.to_json()),
            "graph": {"file": graph.name, "sha256": digest},
            "build": {**build, "options": {**build["options"], "strip_weights": False}},
            "refitted_from": {"file": source.name, "sha256": bundle.manifest["sha256"]},
            "verification": {"state": NOT_RUN, "reason": "there is nothing to compare it with here"},
            "rebuild": f"ffnet-export --onnx {graph} --refit-engine {source} --out {out}",
        }
        failures: list[str] = []
        if verification is not None:
            progress("verifying")
            result = _verify(draft, content, verification, device, progress)
            failures = result.failures
            content["verification"] = {"state": PASSED, "images": verification.options.source, **result.to_dict()}
        progress("writing")
        artifacts.publish(draft, KIND, content, Gate(failures, _CLAIM, _REMEDY))
    return open_bundle(out)


def export_layers(bundle: Bundle, path: Path) -> bool:
    """Write the engine inspector's list of layers, as JSON, to `path`; False where no GPU at hand took the engine.

    Raises:
        StorageError: there is no room, or the folder cannot be written.
    """
    listed = bundle.path.with_name(f"{bundle.path.name}{LAYERS_SUFFIX}")
    if listed.name not in bundle.manifest["files"]:
        return False
    write_bytes(path, listed.read_bytes())
    return True


def _origin(options: BuildOptions, target: BuildTarget) -> dict[str, Any]:
    """What decides the bytes of an engine beside its graph, for the manifest's section ``build``."""
    return {
        "variant": options.variant.value,
        "version": str(load(options.variant).__version__),
        "recipe": RECIPE,
        "options": options.to_dict(),
        "target": asdict(target),
    }


def _verify(
    draft: Draft, content: Mapping[str, Any], verification: EngineVerification, device: int, progress: Progress
) -> Verification:
    """The comparison of a drafted engine, whose manifest has this `content`, with its network, on a CUDA device."""
    from ffnet_deploy.engines.tensorrt.runner import TensorRTEngine, TensorRTOptions  # needs a GPU's driver

    write_manifest(draft.path, KIND, content)  # without it nothing loads an engine
    with (
        TensorRTEngine(draft.path, TensorRTOptions(device=device)) as candidate,
        verification.reference(candidate.contract) as reference,
    ):
        return verify(reference, candidate, verification.options, progress)


def _graph_digest(graph: Path, notes: NoteSink) -> str:
    """SHA-256 of the graph and its external weights, after a look at its manifest."""
    if not manifest_path(graph).is_file():
        notes(f"{graph.name} has no manifest beside it: the file was not checked")
        return sha256(graph)
    manifest = read_manifest(graph)
    return hashlib.sha256(json.dumps([manifest["sha256"], manifest["files"]]).encode()).hexdigest()


def _obstacle(options: BuildOptions, target: BuildTarget) -> str | None:
    """Why the engine cannot run here, in words."""
    if options.strip_weights:
        return "its weights were left out of the file"
    try:
        device = find_device(options.device)
    except NoDeviceError as error:
        return str(error).partition("\n")[0].rstrip(".")
    here = ".".join(map(str, device.compute_capability))
    return None if here in target.capabilities else f"{device.name} has compute capability {here}"
