"""The way of an engine from an ONNX file to a bundle: parsed, proved, built, inspected, checked, published."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.manifest import manifest_path, read_manifest
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.files import check_target, locked, sha256
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.core.progress import NoteSink, Progress, no_notes, no_progress
from ffnet_deploy.core.version import __version__
from ffnet_deploy.engines.bundle import (
    Bundle,
    drafting,
    open_bundle,
    publish,
    reusable,
    write_bundle,
    write_content,
)
from ffnet_deploy.engines.cuda import NoDeviceError, find_device
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.build import Build, build_engine
from ffnet_deploy.engines.tensorrt.build_progress import run_stoppable
from ffnet_deploy.engines.tensorrt.inspector import EngineCheck, check_engine, inspect_engine
from ffnet_deploy.engines.tensorrt.network import NetworkLayer, parse_onnx, read_layers, tensor_shapes
from ffnet_deploy.engines.tensorrt.options import BuildOptions, BuildTarget, find_target
from ffnet_deploy.engines.tensorrt.precision_check import CONVOLUTIONS, NetworkCheck, check_network, require_precision
from ffnet_deploy.engines.tensorrt.variant import is_strongly_typed, load

NOT_RUN = "not run"
"""State of a verification that has not taken place."""
STRONGLY_TYPED = "strongly typed"
"""How types bind from TensorRT 10 on."""


@dataclass(frozen=True)
class Verification:
    """How an engine is compared with the network it came from.

    Attributes:
        command: the command line that does it.
        check: called with an engine file that is not published yet; gives the manifest's section "verification", or
            raises. None: there is nothing to compare with here.
    """

    command: str
    check: Callable[[Path], Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class BuildResult:
    """An engine on disk.

    Attributes:
        bundle: the engine with its manifest.
        reused: whether it was there already, built from the same things.
    """

    bundle: Bundle
    reused: bool


@dataclass(frozen=True)
class _Work:
    """What an engine is made from: file, contract and precision of the graph, options, GPUs, TensorRT's version."""

    graph: Path
    contract: Contract
    record: PrecisionRecord
    options: BuildOptions
    target: BuildTarget
    version: str
    digest: str
    out: Path
    verification: Verification
    progress: Progress
    notes: NoteSink

    @property
    def key(self) -> str:
        """SHA-256 of all that decides what the engine is."""
        target = replace(self.target, driver=None)  # engines outlive drivers
        parts = [self.digest, self.options.to_dict(), asdict(target), self.version, __version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def make_engine(
    graph: Path,
    out: Path,
    options: BuildOptions,
    verification: Verification | None = None,
    progress: Progress = no_progress,
    notes: NoteSink = no_notes,
) -> BuildResult:
    """Build the engine of an exported graph, or reuse the one in `out` that was built from the same things.

    Two processes that make the same engine: one builds, the other waits and reuses.

    Args:
        graph: written by ffnet-export.
        out: the engine's file.
        options: how to build.
        verification: of the engine before it is published, where it can run.
        progress: told of steps, and of how far the build is.
        notes: told what the user should know.

    Raises:
        NoDeviceError: there is no GPU to build on, and none was named.
        ArtifactError: the graph is damaged, or TensorRT does not take it.
        VerificationError: the network or the engine is not in the precision that was asked for.
        StorageError: there is no room, or the folder cannot be written.
    """
    contract, record = read_description(graph)
    digest = _graph_digest(graph, notes)
    check_target(out)
    contract = options.narrowed(contract)
    target = find_target(options)
    version = str(load(options.variant).__version__)
    verification = verification or Verification(options.command(graph, out, contract.network))
    work = _Work(graph, contract, record, options, target, version, digest, out, verification, progress, notes)
    with locked(out, lambda: progress("waiting for another process that builds this engine")):
        found = reusable(out, work.key, lambda error: notes(f"building anew: {error}"))
        if found is not None:
            return BuildResult(_checked_again(found, work), reused=True)
        with drafting(out) as draft:
            _build(work, draft)
            progress("writing")
            publish(draft, out)
    return BuildResult(open_bundle(out), reused=False)


def _graph_digest(graph: Path, notes: NoteSink) -> str:
    """SHA-256 of the graph and its external weights, after a look at its manifest."""
    if not manifest_path(graph).is_file():
        notes(f"{graph.name} has no manifest beside it: nothing vouches for the file")
        return sha256(graph)
    manifest = read_manifest(graph)
    return hashlib.sha256(json.dumps([manifest["sha256"], manifest["files"]]).encode()).hexdigest()


@dataclass(frozen=True)
class _Planned:
    """What came of a build: the engine's bytes, and what the parsed network said.

    Its layers, their proof, how types bind, and the shapes of input and output.
    """

    plan: bytes
    layers: list[NetworkLayer]
    proof: NetworkCheck
    typing: str
    tensors: dict[str, list[int]]


def _build(work: _Work, draft: Path) -> None:
    began = time.monotonic()
    planned = _plan(work)
    seconds = round(time.monotonic() - began, 1)
    content = _content(work, planned, _inspect(work, planned), seconds)
    write_bundle(draft, planned.plan, content)
    check = work.verification.check
    if check is not None and _obstacle(work) is None:
        work.progress("verifying")
        write_content(draft, {**content, "verification": dict(check(draft))})


def _plan(work: _Work) -> _Planned:
    stop, options = threading.Event(), work.options
    named = bool(options.compute_capabilities)

    def run() -> _Planned:
        work.progress("parsing")
        parsed = parse_onnx(options.variant, work.graph, None if named else options.device)
        typed = is_strongly_typed(parsed.trt)
        layers = read_layers(parsed.trt, parsed.network)
        proof = check_network(layers, work.record, typed)
        require_precision(proof.violations, work.record, f"the graph {work.graph}, as TensorRT reads it,")
        work.progress("building")
        build = Build(
            name=str(work.graph),
            contract=work.contract,
            record=work.record,
            options=options,
            target=work.target,
            progress=work.progress,
            notes=work.notes,
            stop=stop,
        )
        plan = build_engine(parsed, build)
        typing = STRONGLY_TYPED if typed else "permission flags"
        return _Planned(plan, layers, proof, typing, tensor_shapes(parsed.network))

    return run_stoppable(run, stop)


def _inspect(work: _Work, planned: _Planned) -> EngineCheck | None:
    """Proof on the built engine; None where no GPU at hand takes it, or it holds no weights yet."""
    if work.options.strip_weights or work.target.gpu is None:
        return None
    work.progress("inspecting")
    described = inspect_engine(work.options.variant, planned.plan, work.contract, work.options.device)
    names = [layer.name for layer in planned.layers if layer.kind in CONVOLUTIONS]
    proof = check_engine(described, names, work.record)
    require_precision(proof.violations, work.record, "the engine that TensorRT built")
    return proof


def _content(work: _Work, planned: _Planned, inspected: EngineCheck | None, seconds: float) -> dict[str, Any]:
    """What the manifest says beyond the description of the file."""
    return {
        "contract": json.loads(work.contract.to_json()),
        "precision": json.loads(work.record.to_json()),
        "key": work.key,
        "graph": {"file": work.graph.name, "sha256": work.digest},
        "build": {
            "flavour": work.options.variant.value,
            "version": work.version,
            "typing": planned.typing,
            "options": work.options.to_dict(),
            "target": asdict(work.target),
            "seconds": seconds,
        },
        "tensors": planned.tensors,
        "proof": {
            "rests on": _grounds(planned, inspected),
            "network": planned.proof.to_dict(),
            "engine": inspected.to_dict() if inspected is not None else None,
        },
        "verification": {
            "state": NOT_RUN,
            "reason": _obstacle(work) or "there is nothing to compare it with here",
            "command": work.verification.command,
        },
        "rebuild": work.options.command(work.graph, work.out),
    }


def _grounds(planned: _Planned, inspected: EngineCheck | None) -> str:
    """What the proof of precision rests on: types that bind, or what the inspector has seen."""
    seen, unseen = (inspected.seen, inspected.unseen) if inspected is not None else (0, 0)
    if seen and not unseen:
        return "the engine inspector's layer list"
    if planned.typing == STRONGLY_TYPED:
        return "the types of the parsed network"
    total = sum(layer.kind in CONVOLUTIONS for layer in planned.layers)
    return f"the engine inspector's layer list for {seen} of {total} convolutions; for the others on nothing"


def _checked_again(found: Bundle, work: _Work) -> Bundle:
    """An engine that was there already, verified now if it has not been and can be."""
    state, check = found.manifest["verification"].get("state"), work.verification.check
    if check is None or state != NOT_RUN or _obstacle(work) is not None:
        return found
    work.progress("verifying")
    write_content(work.out, {**found.manifest, "verification": dict(check(work.out))})
    return open_bundle(work.out)


def _obstacle(work: _Work) -> str | None:
    """Why the engine cannot run here, in words."""
    if work.options.strip_weights:
        return "its weights were left out of the file"
    try:
        device = find_device(work.options.device)
    except NoDeviceError as error:
        return str(error).partition("\n")[0].rstrip(".")
    here = ".".join(map(str, device.compute_capability))
    return None if here in work.target.capabilities else f"{device.name} has compute capability {here}"
