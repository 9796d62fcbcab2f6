"""An engine and the manifest that speaks for it: written together, and refused when anything does not fit.

An engine is executable code for one GPU and one TensorRT. It is loaded only when its manifest is untouched, names these
very bytes, and was made for this machine; one that has no manifest needs the user's word.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.manifest import check_format, manifest_path, seal, upgraded
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.decoding import ADDED, DecodingError, converted, decode, document_bytes
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import json_bytes
from ffnet_deploy.core.precision import PrecisionRecord
from ffnet_deploy.engines.cuda import CudaDevice, find_device
from ffnet_deploy.engines.onnx_file import check_name
from ffnet_deploy.engines.onnx_metadata import read_description
from ffnet_deploy.engines.tensorrt.options import HardwareCompatibility
from ffnet_deploy.engines.tensorrt.variant import Variant, load

KIND = "engine"


@dataclass(frozen=True)
class EngineBuildOptions:
    """The options of a build that decide where an engine runs; see `BuildOptions`."""

    strip_weights: bool
    version_compatible: bool
    hardware_compatibility: HardwareCompatibility


@dataclass(frozen=True)
class EngineTarget:
    """The GPUs an engine was built for: their compute capabilities, and the name of the one it was built on."""

    capabilities: tuple[str, ...]
    gpu: str | None


@dataclass(frozen=True)
class EngineBuild:
    """How an engine was built, as its manifest says: variant and version of TensorRT, options, GPUs."""

    variant: Variant
    version: str
    options: EngineBuildOptions
    target: EngineTarget


@dataclass(frozen=True)
class Bundle:
    """A loaded engine file with what is known of it.

    Attributes:
        path: Path of the engine.
        plan: The engine's bytes, as TensorRT serialised them.
        contract: What the network takes and gives.
        record: The precision that was asked for.
        variant: TensorRT variant that the engine belongs to.
        manifest: Content of the manifest; empty for an engine that was opened with --trust-engine.
    """

    path: Path
    plan: bytes
    contract: Contract
    record: PrecisionRecord
    variant: Variant
    manifest: Mapping[str, Any]

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of it, in words."""
        if self.manifest:
            return ()
        return (f"{self.path.name} has no manifest: it runs because of --trust-engine alone",)


@dataclass(frozen=True)
class EngineManifest:
    """The parts of an engine's manifest that decide whether and how it runs.

    Attributes:
        format: Version of the manifest.
        kind: `KIND`.
        bytes: Size of the engine.
        sha256: SHA-256 of the engine.
        contract: What the network takes and gives.
        precision: The precision that was asked for.
        build: How it was built.
        verification: How the engine compares with its network.
        precision_check: What is known of the precision of its layers.
        tensors: Shapes of ``"input"`` and ``"output"``.
        graph: Name and SHA-256 of the graph that it was built from.
        rebuild: Command that builds it again.
    """

    format: int
    kind: str
    bytes: int
    sha256: str
    contract: Contract
    precision: PrecisionRecord
    build: EngineBuild
    verification: dict[str, Any] = field(default_factory=dict, metadata=ADDED)
    precision_check: dict[str, Any] = field(default_factory=dict, metadata=ADDED)
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict, metadata=ADDED)
    graph: dict[str, str] = field(default_factory=dict, metadata=ADDED)
    rebuild: str = field(default="", metadata=ADDED)


def read_bundle(path: Path, trust: bool = False, device: int = 0) -> Bundle:
    """The engine in `path`, after checking that it may run on this machine.

    Args:
        path: of the engine.
        trust: accept one without a manifest; its contract is then read from the ONNX file of the same name beside it.
        device: number of the CUDA device that it will run on.

    Raises:
        ArtifactError: it is missing, damaged, or made for another GPU or version; with the command that builds it anew.
        NoDeviceError: there is no GPU here.
        MissingPackageError: its TensorRT is not installed.
    """
    bundle = open_bundle(path, trust)
    check_host(bundle, str(load(bundle.variant).__version__), find_device(device))
    return bundle


def open_bundle(path: Path, trust: bool = False) -> Bundle:
    """The engine in `path`, after checking its bytes and manifest but not whether it fits this machine.

    Raises:
        ArtifactError: see `read_bundle`.
    """
    check_name(path)
    if not path.is_file():
        raise ArtifactError(f"there is no engine {path}.\n  {_remedy(path)}")
    plan = path.read_bytes()
    if not plan:
        raise ArtifactError(f"{path} is empty (0 bytes).\n  {_remedy(path)}")
    if not manifest_path(path).is_file():
        return _trusted(path, plan, trust)
    manifest = read_sealed(path)
    if len(plan) != manifest["bytes"]:
        raise ArtifactError(
            f"{path} has {len(plan)} bytes, its manifest says {manifest['bytes']}.\n  {_remedy(path, manifest)}"
        )
    if hashlib.sha256(plan).hexdigest() != manifest["sha256"]:
        raise ArtifactError(f"{path} has changed since its manifest was written.\n  {_remedy(path, manifest)}")
    known = converted(manifest, EngineManifest)
    return Bundle(path, plan, known.contract, known.precision, known.build.variant, manifest)


def _trusted(path: Path, plan: bytes, trust: bool) -> Bundle:
    """An engine without a manifest."""
    if not trust:
        raise ArtifactError(
            f"{path} has no manifest ({manifest_path(path).name}): an engine is code, and nothing says where this one "
            f"is from.\n  {_remedy(path)}; or, if you trust its origin, give --trust-engine"
        )
    variant = Variant.RTX if path.name.endswith(Variant.RTX.suffix) else Variant.TENSORRT
    graph = graph_of(path)
    if not graph.is_file():
        raise ArtifactError(
            f"{path} has no manifest, so that its classes and sizes are unknown.\n"
            f"  to do    put the graph that it was built from beside it, as {graph.name}"
        )
    contract, record = read_description(graph)
    return Bundle(path, plan, contract, record, variant, {})


def graph_of(engine: Path) -> Path:
    """The ONNX file that an engine of this name is built from: ``a.fp16.onnx`` of ``a.fp16.engine``."""
    stem = engine.name
    for variant in (Variant.RTX, Variant.TENSORRT):
        stem = stem.removesuffix(variant.suffix)
    return engine.with_name(f"{stem}.onnx")


def check_host(bundle: Bundle, version: str, device: CudaDevice) -> None:
    """Compare what an engine was made for with this machine; one without a manifest is TensorRT's to judge.

    Args:
        bundle: the engine.
        version: of the installed TensorRT.
        device: the GPU that it will run on.

    Raises:
        ArtifactError: it was made for something else.
    """
    if not bundle.manifest:
        return
    build, remedy = bundle.manifest["build"], _remedy(bundle.path, bundle.manifest)
    if build["options"]["strip_weights"]:
        raise ArtifactError(
            f"{bundle.path} was built without its weights (--strip-weights) and computes nothing before a refit.\n"
            f"  to do    give it weights: ffnet-export --onnx {graph_of(bundle.path)} --refit-engine {bundle.path}"
        )
    title, built = bundle.variant.label, str(build["version"])
    if not _version_fits(built, version, bool(build["options"]["version_compatible"])):
        raise ArtifactError(f"{bundle.path} was built with {title} {built}, here is {version}.\n  {remedy}")
    here, target = ".".join(map(str, device.compute_capability)), build["target"]
    if not _capability_fits(here, target["capabilities"], build["options"]["hardware_compatibility"]):
        raise ArtifactError(
            f"{bundle.path} was built for compute capability {', '.join(target['capabilities'])}; {device.name} has "
            f"{here}.\n  {remedy}"
        )
    anywhere = build["options"]["hardware_compatibility"] != HardwareCompatibility.NONE.value
    if bundle.variant is Variant.TENSORRT and not anywhere and target["gpu"] != device.name:
        raise ArtifactError(f"{bundle.path} was built on {target['gpu']}, here is {device.name}.\n  {remedy}")


def _version_fits(built: str, here: str, compatible: bool) -> bool:
    if not compatible:
        return built == here
    numbers = [[int(part) for part in text.split(".") if part.isdigit()] for text in (built, here)]
    return numbers[0][0] == numbers[1][0] and numbers[0] <= numbers[1]


def _capability_fits(here: str, built: list[str], compatibility: str) -> bool:
    if compatibility == HardwareCompatibility.AMPERE_PLUS.value:
        return float(here) >= 8.0
    return here in built


def _remedy(path: Path, manifest: Mapping[str, Any] | None = None) -> str:
    variant = Variant.RTX if path.name.endswith(Variant.RTX.suffix) else Variant.TENSORRT
    usual = f"ffnet-export --onnx {graph_of(path)} --backend {variant.value} --out {path}"
    return f"to do    build it again: {(manifest or {}).get('rebuild', usual)}"


def read_sealed(path: Path) -> dict[str, Any]:
    """The manifest of the engine `path`, as `upgraded` gives it, after checking that not one byte of it has changed.

    Raises:
        ArtifactError: it is damaged, has been changed, or is of a newer format.
    """
    file = manifest_path(path)
    try:
        text = document_bytes(file)
        content = decode(text, dict[str, Any])
        if content.get("kind") != KIND:
            raise DecodingError("it is none of an engine")
        check_format(file, content)
        if json_bytes(seal(content)) != text:  # the content, and how it is written
            raise ArtifactError(f"manifest {file} has changed since it was written.\n  {_remedy(path)}")
        content = upgraded(content)
        converted(content, EngineManifest)
    except (OSError, DecodingError) as error:
        raise ArtifactError(f"manifest {file} is damaged ({error}).\n  {_remedy(path)}") from error
    return content


def reusable(
    path: Path, graph: str, build: Mapping[str, Any], refuse: Callable[[ArtifactError], None] = lambda error: None
) -> Bundle | None:
    """The engine in `path` if it was built from the same graph in the same way.

    Args:
        path: of the engine.
        graph: SHA-256 of the graph and its external weights.
        build: what decides the engine's bytes, as its manifest's section ``build`` has it: variant and version of
            TensorRT, options, target and recipe. The driver is not compared: engines outlive drivers.
        refuse: called with the reason where there is an engine that cannot be used.
    """
    if not path.is_file() or not manifest_path(path).is_file():
        return None
    try:
        bundle = open_bundle(path)
    except ArtifactError as error:
        refuse(error)
        return None
    built = {"recipe": 1, **bundle.manifest["build"]}  # what the first engines were built by
    wanted: dict[str, Any] = decode(json_bytes(build), dict[str, Any])
    for description in (built, wanted):
        description["target"] = {**description["target"], "driver": None}
    same = all(built.get(name) == value for name, value in wanted.items())
    return bundle if same and bundle.manifest.get("graph", {}).get("sha256") == graph else None
