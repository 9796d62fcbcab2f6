"""TensorRT's builder: from a graph to the bytes of an engine and the check of its precision."""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import ArtifactError, OptionError, StorageError
from ffnet_deploy.core.files import check_target
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.core.progress import NoteSink, Progress, no_notes, no_progress
from ffnet_deploy.engines.tensorrt.build_progress import progress_monitor, run_stoppable
from ffnet_deploy.engines.tensorrt.diagnostics import explain_build, listen
from ffnet_deploy.engines.tensorrt.inspector import EngineCheck, check_engine, inspect_engine
from ffnet_deploy.engines.tensorrt.network import ParsedNetwork, node_name, parse_onnx, read_layers, tensor_shapes
from ffnet_deploy.engines.tensorrt.options import BuildOptions, BuildTarget, HardwareCompatibility, capability_value
from ffnet_deploy.engines.tensorrt.precision_check import (
    CONVOLUTIONS,
    NetworkCheck,
    check_network,
    conv_precision,
    require_precision,
)
from ffnet_deploy.engines.tensorrt.timing_cache import keep_timing_cache, use_timing_cache
from ffnet_deploy.engines.tensorrt.variant import Variant, feature, has, is_strongly_typed

STRONGLY_TYPED = "strongly typed"
"""How types bind from TensorRT 10 on."""
_MIB = 1 << 20
_EXTERNAL_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")
_COMPATIBILITY = {
    HardwareCompatibility.AMPERE_PLUS: "AMPERE_PLUS",
    HardwareCompatibility.SAME_COMPUTE_CAPABILITY: "SAME_COMPUTE_CAPABILITY",
}


@dataclass(frozen=True)
class Build:
    """One build: of what, for what, and who watches it.

    Attributes:
        name: of the graph, for messages.
        contract: with the ranges of the optimisation profile.
        record: the precision that the graph asks for.
        options: how to build.
        target: the GPUs to build for.
        progress: told how far it is.
        notes: told what else to know.
        stop: calls it off when set.
    """

    name: str
    contract: Contract
    record: PrecisionRecord
    options: BuildOptions
    target: BuildTarget
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
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the proof reads every layer's types
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
    if not is_strongly_typed(trt):
        set_precision_flags(trt, config, parsed.network, build.record)
    if options.variant is Variant.RTX:
        _name_capabilities(trt, config, build.target)
    else:
        _leave_out_external_tactics(trt, config)
    _add_profile(parsed, config, build.contract)
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


def _name_capabilities(trt: Any, config: Any, target: BuildTarget) -> None:
    if has(config, "num_compute_capabilities") and has(config, "set_compute_capability"):
        config.num_compute_capabilities = len(target.capabilities)
        for index, capability in enumerate(target.capabilities):
            config.set_compute_capability(capability_value(trt, capability), index)


def _leave_out_external_tactics(trt: Any, config: Any) -> None:
    """Use TensorRT's own kernels alone: where cuBLAS and cuDNN are still offered, the engine would need them too."""
    before = sources = config.get_tactic_sources()
    for name in _EXTERNAL_TACTICS:
        source = feature(trt, f"TacticSource.{name}")
        if source is not None:
            sources &= ~(1 << int(source))
    if sources != before:
        config.set_tactic_sources(sources)
    core = feature(trt, "PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805")
    if core is not None:
        config.set_preview_feature(core, True)


def _add_profile(parsed: ParsedNetwork, config: Any, contract: Contract) -> None:
    """One optimisation profile with the contract's ranges, where the network's input is dynamic."""
    tensor = parsed.network.get_input(0)
    ranges = contract.input_ranges
    for size, (name, dimension) in zip(tensor.shape, ranges, strict=True):
        if size != -1 and (not dimension.is_fixed or dimension.opt != size):
            raise OptionError(
                f"the graph's {name} is fixed at {size}, not {dimension}.\n  to do    export it with --dynamic"
            )
    if -1 not in tuple(tensor.shape):
        return
    profile = parsed.builder.create_optimization_profile()
    smallest, usual, largest = (
        tuple(getattr(dimension, part) for _, dimension in ranges) for part in ("min", "opt", "max")
    )
    profile.set_shape(tensor.name, smallest, usual, largest)
    config.add_optimization_profile(profile)


_FLAGS = {Precision.FP16: "FP16", Precision.BF16: "BF16", Precision.INT8: "INT8", Precision.FP8: "FP8"}
_DATA_TYPES = {Precision.FP32: "FLOAT", Precision.FP16: "HALF", Precision.BF16: "BF16"}


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
                "  to do    choose --precision fp16 or int8, or use a newer TensorRT"
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


@dataclass(frozen=True)
class EnginePlan:
    """What the builder gives: an engine's bytes, and how its precision was checked.

    Attributes:
        plan: the engine, as TensorRT serialised it.
        typing: how types bind: `STRONGLY_TYPED`, or by permission flags.
        tensors: shapes of the network's input and output; -1 where a dimension is free.
        precision_check: for the manifest: what the check rests on, what the parsed network and the engine showed.
        seconds: wall time of parsing and building.
    """

    plan: bytes
    typing: str
    tensors: dict[str, list[int]]
    precision_check: dict[str, Any]
    seconds: float


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
        contract: what it takes and gives; its ranges are the optimisation profile's.
        record: the precision that it asks for.
        options: how to build.
        target: the GPUs to build for; without one at hand the engine itself is not inspected.
        progress: told of steps, and of how far the build is.
        notes: told what the user should know.

    Raises:
        ArtifactError: TensorRT does not take the graph, or cannot build it.
        VerificationError: the network or the engine is not in the precision that was asked for.
        OptionError: this version does not offer what the options ask for.
        KeyboardInterrupt: it was called off.
    """
    stop, began = threading.Event(), time.monotonic()

    def run() -> tuple[bytes, str, dict[str, list[int]], list[str], NetworkCheck]:
        progress("parsing")
        parsed = parse_onnx(options.variant, graph, None if options.compute_capabilities else options.device)
        layers = read_layers(parsed.trt, parsed.network)
        typed = is_strongly_typed(parsed.trt)
        check = check_network(layers, record, typed)
        require_precision(check.violations, record, f"the graph {graph}, as TensorRT reads it,")
        progress("building")
        build = Build(str(graph), contract, record, options, target, progress, notes, stop)
        plan = build_engine(parsed, build)
        convolutions = [one.name for one in layers if one.kind in CONVOLUTIONS]
        typing = STRONGLY_TYPED if typed else "permission flags"
        return plan, typing, tensor_shapes(parsed.network), convolutions, check  # TensorRT's objects end here

    plan, typing, tensors, convolutions, as_parsed = run_stoppable(run, stop)
    seconds = round(time.monotonic() - began, 1)
    as_built = None
    if target.gpu is not None and not options.strip_weights:
        progress("inspecting")
        described = inspect_engine(options.variant, plan, contract, options.device)
        as_built = check_engine(described, convolutions, record)
        require_precision(as_built.violations, record, "the engine that TensorRT built")
    check = {
        "rests on": precision_grounds(typing, len(convolutions), as_built),
        "network": as_parsed.to_dict(),
        "engine": as_built.to_dict() if as_built is not None else None,
    }
    return EnginePlan(plan, typing, tensors, check, seconds)


def precision_grounds(typing: str, convolutions: int, as_built: EngineCheck | None) -> str:
    """What the check of precision rests on: types that bind, or what the inspector has seen."""
    seen, unseen = (as_built.seen, as_built.unseen) if as_built is not None else (0, 0)
    if seen and not unseen:
        return "the engine inspector's layer list"
    if typing == STRONGLY_TYPED:
        return "the types of the parsed network"
    return f"the engine inspector's layer list for {seen} of {convolutions} convolutions; for the others on nothing"
