"""TensorRT's builder: from a graph to the bytes of an engine and the check of its precision."""

import ctypes
import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import sqrt
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import MAX_ELEMENTS, STRIDE, Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError, StorageError
from ffnet_deploy.core.files import check_target
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.core.progress import NoteSink, Progress, no_notes, no_progress
from ffnet_deploy.engines.cuda import find_device
from ffnet_deploy.engines.tensorrt.build_progress import progress_monitor, run_stoppable
from ffnet_deploy.engines.tensorrt.diagnostics import explain_build, listen
from ffnet_deploy.engines.tensorrt.inspector import EngineCheck, check_engine, inspect_engine
from ffnet_deploy.engines.tensorrt.network import (
    ParsedNetwork,
    input_shape,
    largest_tensor,
    node_costs,
    node_name,
    parse_onnx,
    read_layers,
    tensor_shapes,
)
from ffnet_deploy.engines.tensorrt.options import (
    BuildOptions,
    BuildTarget,
    HardwareCompatibility,
    ProfileShapes,
    TacticSource,
    capability_value,
    covering,
)
from ffnet_deploy.engines.tensorrt.precision_check import (
    CONVOLUTIONS,
    NetworkCheck,
    check_network,
    conv_precision,
    require_precision,
)
from ffnet_deploy.engines.tensorrt.timing_cache import keep_timing_cache, use_timing_cache
from ffnet_deploy.engines.tensorrt.variant import Variant, feature, has, is_strongly_typed

RECIPE = 1
"""Version of how `build_plan` sets up the builder; raised whenever the same graph and options give another engine."""
_MIB = 1 << 20
_SHOWN = 8
_TACTIC_LIBRARIES = {
    TacticSource.CUBLAS: ("CUBLAS", ("libcublas.so.12", "libcublas.so.11"), "cublasCreate_v2"),
    TacticSource.CUBLAS_LT: ("CUBLAS_LT", ("libcublasLt.so.12", "libcublasLt.so.11"), "cublasLtCreate"),
    TacticSource.CUDNN: ("CUDNN", ("libcudnn.so.9", "libcudnn.so.8"), "cudnnCreate"),
}
"""TensorRT's name of each source, the files that it may be loaded from, and a function that only the real one has."""
_FLAGS = {Precision.FP16: "FP16", Precision.BF16: "BF16", Precision.INT8: "INT8", Precision.FP8: "FP8"}
_DATA_TYPES = {Precision.FP32: "FLOAT", Precision.FP16: "HALF", Precision.BF16: "BF16"}
_MOST_MEMORY = 0.5
"""Share of the GPU's memory that a layer's largest input and output may take together in a default profile."""
_COMPATIBILITY = {
    HardwareCompatibility.AMPERE_PLUS: "AMPERE_PLUS",
    HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "SAME_COMPUTE_CAPABILITY",
}


@dataclass(frozen=True)
class Build:
    """One build: of what, for what, and who watches it.

    Attributes:
        name: Name of the graph, for messages.
        contract: Contract of the graph.
        profiles: Optimisation profiles, where the graph's input is dynamic.
        record: The precision that the graph asks for.
        options: How to build the engine.
        target: The GPUs to build for.
        progress: Called with the progress of the build.
        notes: Called with what else to know.
        stop: Event that calls the build off when it is set.
    """

    name: str
    contract: Contract
    record: PrecisionRecord
    options: BuildOptions
    target: BuildTarget
    profiles: tuple[ProfileShapes, ...]
    progress: Progress = no_progress
    notes: NoteSink = no_notes
    stop: threading.Event = field(default_factory=threading.Event)


def build_engine(parsed: ParsedNetwork, build: Build) -> bytes:
    """The engine of a parsed network, as TensorRT serialises it.

    Raises:
        ArtifactError: TensorRT cannot build it; the message says why and what to do.
        OptionError: this version does not offer what the options ask for.
        KeyboardInterrupt: it was called off.
    """
    config = _configure(parsed, build)
    monitor = progress_monitor(parsed.trt, build.progress, build.stop)
    if monitor is not None and has(config, "progress_monitor"):
        config.progress_monitor = monitor
    else:
        build.notes(f"TensorRT {parsed.trt.__version__} reports no progress: Ctrl-C takes effect after the build")
    cache, gpu = build.options.timing_cache, build.target.gpu
    if cache is not None and gpu is not None:
        check_target(cache)
        use_timing_cache(config, cache, parsed.trt.__version__, gpu)
    with listen(parsed.trt) as messages:
        plan = parsed.builder.build_serialized_network(parsed.network, config)
    if build.stop.is_set():
        raise KeyboardInterrupt
    if plan is None:
        raise ArtifactError(explain_build(build.options.variant.label, build.name, messages))
    if cache is not None and gpu is not None:
        try:
            keep_timing_cache(config, cache, parsed.trt.__version__, gpu)
        except StorageError as error:  # it only saves time
            build.notes(f"the timing cache is not kept: {error}")
    return bytes(plan)


def _configure(parsed: ParsedNetwork, build: Build) -> Any:
    trt, options = parsed.trt, build.options
    config = parsed.builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the precision check reads every layer's types
    config.clear_flag(trt.BuilderFlag.TF32)  # FP32 means FP32, not its ten-bit mantissa
    if options.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace * _MIB)
    if options.optimization_level is not None:
        _set(config, "builder_optimization_level", options.optimization_level, trt)
    if options.aux_streams is not None:
        _set(config, "max_aux_streams", options.aux_streams, trt)
    _set_flags(trt, config, options)
    sharing = feature(trt, "PreviewFeature.PROFILE_SHARING_0806")
    if sharing is not None:  # 8.6: several contexts over one profile; from 10 on they always can
        config.set_preview_feature(sharing, True)
    if not parsed.typed:
        set_precision_flags(trt, config, parsed.network, build.record)
    if options.variant is Variant.RTX:
        if has(config, "num_compute_capabilities") and has(config, "set_compute_capability"):
            config.num_compute_capabilities = len(build.target.capabilities)
            for index, capability in enumerate(build.target.capabilities):
                if not config.set_compute_capability(capability_value(trt, capability), index):
                    raise OptionError(f"TensorRT for RTX {trt.__version__} refuses the compute capability {capability}")
    else:
        _choose_tactic_sources(trt, config, options)
    if options.dla is not None:
        _use_dla(parsed, config, options.dla, build.notes)
    _add_profiles(parsed, config, build)
    return config


def _set(config: Any, name: str, value: object, trt: Any) -> None:
    if not has(config, name):
        raise OptionError(f"this TensorRT ({trt.__version__}) has no {name}.\n  to do    leave that option out")
    setattr(config, name, value)


def _set_flags(trt: Any, config: Any, options: BuildOptions) -> None:
    wanted = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "REFIT": options.refit or options.strip_weights,
        "STRIP_PLAN": options.strip_weights,
        "SPARSE_WEIGHTS": options.sparsity,
    }
    for name in (name for name, chosen in wanted.items() if chosen):
        flag = feature(trt, f"BuilderFlag.{name}")
        if flag is None:
            raise OptionError(f"this TensorRT ({trt.__version__}) has no {name}.\n  to do    leave that option out")
        config.set_flag(flag)
    level = _COMPATIBILITY.get(options.hardware_compatibility)
    if level is not None:
        value = feature(trt, f"HardwareCompatibilityLevel.{level}")
        if value is None:
            raise OptionError(
                f"this TensorRT ({trt.__version__}) builds no engines for other GPUs ({level}).\n"
                "  to do    leave --hardware-compatible out"
            )
        _set(config, "hardware_compatibility_level", value, trt)


def _choose_tactic_sources(trt: Any, config: Any, options: BuildOptions) -> None:
    """Offer cuBLAS and cuDNN beside TensorRT's own kernels where this version still can and they are there."""
    before = sources = config.get_tactic_sources()
    chosen = False
    for source, (name, files, function) in _TACTIC_LIBRARIES.items():
        value = feature(trt, f"TacticSource.{name}")
        wanted = source in options.tactic_sources if options.tactic_sources is not None else _is_there(files, function)
        if value is None and options.tactic_sources is not None and wanted:
            raise OptionError(
                f"this TensorRT ({trt.__version__}) uses no kernels of {source.value}.\n"
                "  to do    leave that one out of --tactic-sources"
            )
        if value is not None:
            sources = sources | 1 << int(value) if wanted else sources & ~(1 << int(value))
            chosen = chosen or wanted
    if sources != before and not config.set_tactic_sources(sources):
        raise ArtifactError(f"TensorRT {trt.__version__} refused its tactic sources; leave --tactic-sources out")
    core = feature(trt, "PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805")
    if core is not None:
        config.set_preview_feature(core, not chosen)


def _is_there(files: Sequence[str], function: str) -> bool:
    for file in files:
        with suppress(OSError):
            if hasattr(ctypes.CDLL(file), function):
                return True
    return False


def _use_dla(parsed: ParsedNetwork, config: Any, core: int, notes: NoteSink) -> None:
    """Run on a DLA core what it can, on the GPU the rest, and say what that is."""
    trt = parsed.trt
    cores = int(parsed.builder.num_DLA_cores)
    if not core < cores:
        raise OptionError(
            f"there is no DLA core {core}: this machine has {cores}.\n  to do    "
            + (
                f"choose --dla 0 to {cores - 1}"
                if cores
                else "leave --dla out; Jetson AGX Orin, Orin NX and Xavier have them"
            )
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [parsed.network.get_layer(index) for index in range(parsed.network.num_layers)]
    rest = [node_name(layer) for layer in layers if not config.can_run_on_DLA(layer)]
    shown = ", ".join(rest[:_SHOWN]) + (f" and {len(rest) - _SHOWN} more" if len(rest) > _SHOWN else "")
    notes(f"DLA core {core} runs {len(layers) - len(rest)} of {len(layers)} layers; on the GPU: {shown or 'none'}")


def _add_profiles(parsed: ParsedNetwork, config: Any, build: Build) -> None:
    tensor = parsed.network.get_input(0)
    for shapes in build.profiles:
        ranges = covering(build.contract, [shapes]).input_ranges
        for size, (name, dimension) in zip(tensor.shape, ranges, strict=True):
            if size != -1 and (not dimension.is_fixed or dimension.opt != size):
                raise OptionError(
                    f"the graph's {name} is fixed at {size}, not {dimension}.\n  to do    export it with --dynamic"
                )
        if -1 not in tuple(tensor.shape):
            continue
        profile = parsed.builder.create_optimization_profile()
        profile.set_shape(
            tensor.name, *(tuple(getattr(one, part) for _, one in ranges) for part in ("min", "opt", "max"))
        )
        if config.add_optimization_profile(profile) == -1:
            raise OptionError(f"TensorRT {parsed.trt.__version__} refuses the profile {shapes}")


def fit_profiles(
    network: Any, contract: Contract, options: BuildOptions, memory: int | None, notes: NoteSink = no_notes
) -> tuple[ProfileShapes, ...]:
    """The optimisation profiles of `options`, after checking that TensorRT and the GPU can hold their largest tensors.

    A default profile is reduced until it fits, first its batch and then its sides.

    Args:
        network: TensorRT's, as parsed.
        contract: of the graph.
        options: with the ranges that are asked for.
        memory: bytes of the GPU; None when it is not at hand.
        notes: called where a default profile was reduced.

    Raises:
        OptionError: a profile that was asked for does not fit; the message names sizes that do.
    """

    def excess(batch: int, height: int, width: int, share: float = 1.0) -> float:
        """How many times too large the largest tensor is."""
        largest = largest_tensor(network, input_shape(contract, batch, height, width))
        room = largest.bytes * 2 / (memory * share) if memory is not None else 0.0
        return max(largest.elements / MAX_ELEMENTS, room)

    usual, *others = options.profile_shapes(contract)
    batch, height, width = usual.batch.max, usual.height.max, usual.width.max
    if options.batch is None:
        while batch > usual.batch.opt and excess(batch, height, width, _MOST_MEMORY) > 1:
            batch = max(batch // 2, usual.batch.opt)
    if options.height is None and options.width is None:
        while (height, width) != (usual.height.opt, usual.width.opt) and excess(batch, height, width) > 1:
            height = max(height - STRIDE, usual.height.opt)
            width = max(width - STRIDE, usual.width.opt)
    fitting = ProfileShapes(
        replace(usual.batch, max=batch), replace(usual.height, max=height), replace(usual.width, max=width)
    )
    if fitting != usual:
        notes(f"the profile covers {fitting}: larger ones do not fit; --batch and --shape choose others")
    for shapes in (fitting, *others):
        sizes = shapes.batch.max, shapes.height.max, shapes.width.max
        if excess(*sizes) <= 1:
            continue
        largest = largest_tensor(network, input_shape(contract, *sizes))
        reason = (
            f"{largest.elements} elements, and TensorRT holds at most {MAX_ELEMENTS} in one tensor"
            if largest.elements > MAX_ELEMENTS
            else f"{largest.bytes / _MIB:.0f} MiB, and the GPU has {(memory or 0) / _MIB:.0f} MiB for it and its like"
        )
        fits = int(sizes[0] / excess(*sizes))
        shrink = sqrt(1 / excess(*sizes))
        smaller = [max(int(side * shrink) // STRIDE * STRIDE, STRIDE) for side in sizes[1:]]
        at_size = f"--batch up to {fits} at {sizes[1]}x{sizes[2]}, or " if fits >= 1 else ""
        raise OptionError(
            f"the profile {shapes} is too large: {largest.name} would give {' x '.join(map(str, largest.shape))}, "
            f"{reason}.\n  to do    {at_size}--shape up to {smaller[0]}x{smaller[1]} in batches of {sizes[0]}"
        )
    return (fitting, *others)


def set_precision_flags(trt: Any, config: Any, network: Any, record: PrecisionRecord) -> None:
    """Set the flags that allow the lower types of `record`, and hold the other layers to theirs.

    With a flag alone the builder is free to run any layer in that type, also those that the graph keeps in FP32.

    Raises:
        OptionError: this version does not know a type.
    """
    for precision in {record.precision, record.base} - {Precision.FP32}:
        flag = feature(trt, f"BuilderFlag.{_FLAGS[precision]}")
        if flag is None:
            raise OptionError(
                f"this TensorRT ({trt.__version__}) knows no {precision.value}.\n"
                "  to do    export the graph with --fp16 or --int8, or use a newer TensorRT"
            )
        config.set_flag(flag)
    _hold_types(trt, config, network, record)


def _hold_types(trt: Any, config: Any, network: Any, record: PrecisionRecord) -> None:
    preference = feature(trt, "BuilderFlag.PREFER_PRECISION_CONSTRAINTS")
    if preference is None or record.precision is Precision.FP32:
        return
    config.set_flag(preference)
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        wanted = _wanted(trt, layer, record)
        if wanted is not None and has(layer, "precision") and has(layer, "set_output_type"):
            layer.precision = feature(trt, f"DataType.{_DATA_TYPES[wanted]}")
            layer.set_output_type(0, feature(trt, f"DataType.{_DATA_TYPES[wanted]}"))


def _wanted(trt: Any, layer: Any, record: PrecisionRecord) -> Precision | None:
    """The type to hold `layer` to; None where it is left to the builder.

    Left to it are quantised layers and, but for those that the graph keeps in FP32, all that are no convolutions.
    """
    name = node_name(layer)
    if layer.get_output(0).dtype not in (trt.DataType.FLOAT, trt.DataType.HALF):
        return None
    if name in record.float32:
        return Precision.FP32
    if layer.type != trt.LayerType.CONVOLUTION:
        return None
    wanted = conv_precision(name, record)
    return None if wanted.is_quantized else wanted


def record_as_built(trt: Any, record: PrecisionRecord) -> PrecisionRecord:
    """The precision that a version builds from `record`.

    An INT8 graph that TensorRT 8.5 and 8.6 can parse has float32 around its quantised layers. There types do not bind,
    and what is neither quantised nor kept in float32 runs in FP16, as fast as the GPU can.
    """
    if is_strongly_typed(trt) or not record.precision.is_quantized or record.base is not Precision.FP32:
        return record
    return replace(record, base=Precision.FP16)


@dataclass(frozen=True)
class PrecisionCheck:
    """What is known of an engine's precision.

    Attributes:
        strongly_typed: Whether the network's types bind the builder.
        network: What the parsed network showed.
        engine: What the engine inspector showed; None where no GPU at hand takes the engine.
    """

    strongly_typed: bool
    network: NetworkCheck
    engine: EngineCheck | None

    @property
    def basis(self) -> str:
        """What the check rests on, in words: the inspector's list of layers, or types that bind the builder."""
        convolutions = sum(self.network.convolutions.values())
        seen, unseen = (self.engine.seen, self.engine.unseen) if self.engine is not None else (0, 0)
        if seen and not unseen:
            return "the engine inspector's layer list"
        if self.strongly_typed and self.engine is not None:
            return f"the types of the parsed network; the engine inspector's layer list tells {seen} of {convolutions}"
        if self.strongly_typed:
            return "the types of the parsed network"
        return f"the engine inspector's layer list for {seen} of {convolutions} convolutions; for the others on nothing"

    def to_dict(self) -> dict[str, Any]:
        """For the manifest."""
        engine = self.engine.to_dict() if self.engine is not None else None
        return {"basis": self.basis, "network": self.network.to_dict(), "engine": engine}


@dataclass(frozen=True)
class EnginePlan:
    """What the builder gives: an engine's bytes, and how its precision was checked.

    Attributes:
        plan: The engine, as TensorRT serialised it.
        contract: What the engine takes and gives: the graph's contract, with the ranges that the profiles cover.
        profiles: The optimisation profiles; one that says what is accepted where nothing is dynamic.
        record: The precision that the engine was built in.
        tensors: Shapes of the network's input and output; -1 where a dimension is free.
        precision_check: What is known of its precision; an engine with violations must not be published.
        layers: The inspector's list, as its JSON has it; None where no GPU at hand takes the engine.
        costs: Operations and bytes of each node at the usual shape of the first profile.
        seconds: Wall time of parsing and building.
    """

    plan: bytes
    contract: Contract
    profiles: tuple[ProfileShapes, ...]
    record: PrecisionRecord
    tensors: dict[str, list[int]]
    precision_check: PrecisionCheck
    layers: dict[str, Any] | None
    costs: dict[str, tuple[float, float]]
    seconds: float

    @property
    def violations(self) -> tuple[str, ...]:
        """What of the engine is not in the precision asked for, in words."""
        return self.precision_check.engine.violations if self.precision_check.engine is not None else ()

    def to_dict(self) -> dict[str, Any]:
        """For the manifest: all but the bytes, the layer list and how it was built."""
        return {
            "contract": json.loads(self.contract.to_json()),
            "precision": json.loads(self.record.to_json()),
            "tensors": self.tensors,
            "profiles": [shapes.as_option() for shapes in self.profiles],
            "precision_check": self.precision_check.to_dict(),
            "costs": self.costs,
        }


@dataclass(frozen=True)
class _Built:
    """What remains of TensorRT's objects when a build has ended."""

    plan: bytes
    profiles: tuple[ProfileShapes, ...]
    record: PrecisionRecord
    strongly_typed: bool
    tensors: dict[str, list[int]]
    convolutions: list[str]
    check: NetworkCheck
    costs: dict[str, tuple[float, float]]


def build_plan(
    graph: Path,
    contract: Contract,
    record: PrecisionRecord,
    options: BuildOptions,
    target: BuildTarget,
    progress: Progress = no_progress,
    notes: NoteSink = no_notes,
) -> EnginePlan:
    """Parse a graph, check its precision as TensorRT reads it, build it, and check the precision of what was built.

    Args:
        graph: ONNX file.
        contract: what it takes and gives.
        record: the precision that it asks for.
        options: how to build.
        target: the GPUs to build for; without one at hand the engine itself is not inspected.
        progress: called with steps, and of how far the build is.
        notes: called with what the user should know.

    Raises:
        ArtifactError: TensorRT does not take the graph, or cannot build it.
        VerificationError: the network is not in the precision that was asked for.
        OptionError: this version does not offer what the options ask for, or a profile is too large.
        KeyboardInterrupt: it was called off.
    """
    stop, began = threading.Event(), time.monotonic()
    memory = find_device(options.device).total_memory if target.gpu is not None else None

    def run() -> _Built:
        progress("parsing")
        device = None if options.compute_capabilities else options.device
        parsed = parse_onnx(options.variant, graph, device, strongly_typed=options.dla is None)
        layers = read_layers(parsed.trt, parsed.network)
        check = check_network(layers, record, parsed.typed)
        require_precision(check.violations, record, f"the graph {graph}, as TensorRT reads it,")
        profiles = fit_profiles(parsed.network, contract, options, memory, notes)
        usual = input_shape(contract, profiles[0].batch.opt, profiles[0].height.opt, profiles[0].width.opt)
        costs = node_costs(parsed.trt, parsed.network, usual)
        progress("building")
        built_record = record_as_built(parsed.trt, record)
        if built_record != record:
            notes("what is not quantised is built in FP16: this TensorRT's builder flags only allow types")
        build = Build(str(graph), contract, built_record, options, target, profiles, progress, notes, stop)
        return _Built(
            plan=build_engine(parsed, build),
            profiles=profiles,
            record=built_record,
            strongly_typed=parsed.typed,
            tensors=tensor_shapes(parsed.network),
            convolutions=[one.name for one in layers if one.kind in CONVOLUTIONS],
            check=check,
            costs=costs,
        )

    built = run_stoppable(run, stop)
    seconds = round(time.monotonic() - began, 1)
    covered = covering(contract, built.profiles)
    as_built, layers = None, None
    if target.gpu is not None and not options.strip_weights:
        progress("inspecting")
        layers = inspect_engine(options.variant, built.plan, covered, options.device)
        as_built = check_engine(layers, built.convolutions, built.record)
    return EnginePlan(
        plan=built.plan,
        contract=covered,
        profiles=built.profiles,
        record=built.record,
        tensors=built.tensors,
        precision_check=PrecisionCheck(built.strongly_typed, built.check, as_built),
        layers=layers,
        costs=built.costs,
        seconds=seconds,
    )
