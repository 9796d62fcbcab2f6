"""The options of ``ffnet-export``: what they are called, what they default to, and what goes together."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Token

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.cli.console import (
    console,
    report_note,
)
from ffnet_deploy.cli.options import (
    CALIBRATION,
    CFG_OPTIONS,
    DATA,
    ENGINE,
    EVERYDAY,
    GRAPH,
    OUTPUT,
    PRECISION,
    DataFlags,
    check_numbers,
    choice,
    inherited,
    lowered,
    option,
    parameters,
    parse_batch,
    parse_choices,
    parse_shape,
)
from ffnet_deploy.core.contract import STRIDE, InputKind, IOType, OutputKind, TestProtocol
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.precision import Hardware, Precision, Target
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.engines.backend import Backend, gpu_index
from ffnet_deploy.engines.tensorrt.options import (
    BuilderConfig,
    BuildOptions,
    HardwareCompatibility,
    ProfileShapes,
    TacticSource,
)
from ffnet_deploy.engines.tensorrt.variant import Variant
from ffnet_deploy.evaluation.datasets import open_images
from ffnet_deploy.evaluation.verify import (
    Tolerance,
    VerifyOptions,
    images_of,
    packaged_images,
)

if TYPE_CHECKING:  # these need the conversion layer
    from ffnet_deploy.export.calibration import CalibrationRequest
    from ffnet_deploy.export.onnx import ExportOptions
    from ffnet_deploy.export.reduce import ReductionOptions
    from ffnet_deploy.segmentor.config import SegmentorConfig

OUT = Path("export")
"""Folder of what is exported when no other is named."""
ENGINES = Path("engines")
"""Where engines land unless ``--out`` says otherwise."""
_IMAGES = 4
_OF_NEW_GRAPHS = ("--dynamic", "--opset", "--input", "--output", "--rewrite")
_TIMES = "timing.cache"
_OFF = "off"


class Base(str, Enum):
    """Type of what a quantised graph does not quantise."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


@dataclass(frozen=True)
class GraphFlags:
    """The network, and the form of its graph."""

    config: Annotated[str | None, option(EVERYDAY, "NAME")] = None
    """Config name, or a config file (a Python file: it is run)."""
    checkpoint: Annotated[str | None, option(EVERYDAY, "FILE")] = None
    """Weights of the config: a file, 'published', 'bundled' or 'random'. By default the bundled ones."""
    shape: Annotated[str | None, option(EVERYDAY, "SIZE")] = None
    """Input size in pixels: HEIGHTxWIDTH, or MIN:OPT:MAX of such; multiples of 32. By default as published."""
    list_configs: Annotated[bool, option(GRAPH, name="--list")] = False
    """List the packaged configs, their weights and mIoU, and stop."""
    dynamic: Annotated[bool, option(GRAPH)] = False
    """Accept any size and batch; --shape and --batch then give typical ones."""
    batch: Annotated[str | None, option(GRAPH, "N")] = None
    """Batch size, or MIN:OPT:MAX. By default 1."""
    opset: Annotated[int, option(GRAPH)] = 20
    """ONNX operator set, 17 to 20. TensorRT 8.5 reads 17 at most."""
    input: Annotated[InputKind, choice(InputKind, GRAPH)] = InputKind.FLOAT
    """What the graph takes: normalised float32 NCHW tensors, or uint8 NHWC images in RGB or BGR order."""
    output: Annotated[OutputKind, choice(OutputKind, GRAPH)] = OutputKind.LOGITS
    """What the graph returns: logits, the label map of their argmax, or softmax probabilities."""
    refresh: Annotated[bool, option(GRAPH)] = False
    """With --checkpoint published: download it anew, whatever the cache holds."""
    rewrite: Annotated[str, option(GRAPH, "NAMES", converter=lowered)] = "auto"
    """Exact rewrites of the decoder with fewer operations: auto (measured for the backend), none, or names."""
    cfg_options: Annotated[tuple[str, ...], CFG_OPTIONS] = ()
    """Change keys of the config, in mmengine's syntax, as model.decode_head.num_classes=19."""
    onnx: Annotated[Path | None, option(GRAPH, "FILE")] = None
    """Start from this exported graph. Needs no --config and no PyTorch."""
    compare_layers: Annotated[Path | None, option(GRAPH, "FILE")] = None
    """Compare the graph of --onnx layer by layer with this FP32 graph, name the first that differs, and stop."""

    def options(self, settings: "SegmentorConfig", backend: Backend) -> "ExportOptions":
        """The boundary and form of the graph of the config `settings`, rewritten for `backend`; says how."""
        with quiet():  # the first to import the MMSegmentation stack
            from ffnet_deploy.export.onnx import ExportOptions
            from ffnet_deploy.export.rewrites.choice import Use, choose

        height, width = parse_shape(self.shape or default_shape(settings.protocol), self.dynamic)
        batch = parse_batch(self.batch or "1", self.dynamic)
        use = Use(backend, settings.name, settings.decoder, self.output, (height.opt, width.opt))
        choice = choose(self.rewrite, use)
        console.print(
            f"rewrites: {', '.join(name.value for name in choice.rewrites) or 'none'} ({choice.reason})", soft_wrap=True
        )
        return ExportOptions(height, width, batch, self.opset, self.input, self.output, choice.rewrites)


@dataclass(frozen=True)
class VerificationFlags:
    """The images to verify on, and what the verification allows."""

    limit: Annotated[int, option(DATA, "N")] = 20
    """Largest number of labelled images to score."""
    tolerance: Annotated[float, option(PRECISION)] = 1e-4
    """Largest relative error of an output value of the FP32 graph."""
    max_drop: Annotated[float | None, option(PRECISION, "POINTS")] = None
    """Largest fall of the mIoU of a lower precision. By default 0.05 points for FP16 and BF16, 0.3 for INT8 and FP8."""
    tier: Annotated[float | None, option(PRECISION, "PERCENT")] = None
    """Least share of the mIoU that a lower precision keeps, as 99.9 or 99 in MLPerf, in the place of --max-drop."""
    min_agreement: Annotated[float | None, option(PRECISION, "PERCENT")] = None
    """Least share of pixels with the label of PyTorch. By default 99.5 for FP16 and BF16, 90 for INT8 and FP8."""

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.limit < 1:
            raise OptionError(f"--limit takes a number of images from 1: got {self.limit}")

    def options(self, data: DataFlags, dataset: str, classes: Sequence[str]) -> VerifyOptions:
        """What the graph is verified on: labelled data, other images, or the packaged scenes.

        Args:
            data: where the images are.
            dataset: name of the network's label set.
            classes: what the network predicts.

        Raises:
            DataError: the images cannot be used.
        """
        labelled = data.labelled(dataset, classes)
        labelled = None if labelled is None else labelled.limited(self.limit)
        source = labelled or (open_images(data.images) if data.images else None)
        return VerifyOptions(
            images=images_of(source, _IMAGES) if source else packaged_images(2),
            source=str(data.data or data.images or "packaged street scenes"),
            labelled=labelled,
            tolerance=Tolerance(relative=self.tolerance),
        )


@dataclass(frozen=True)
class PrecisionFlags:
    """The lower precision to write besides FP32."""

    fp16: Annotated[bool, option(EVERYDAY)] = False
    """Also write a graph in half precision (FP16)."""
    int8: Annotated[bool, option(EVERYDAY)] = False
    """Also write a graph with INT8 convolutions; needs --calib-images."""
    bf16: Annotated[bool, option(PRECISION)] = False
    """Also write a graph in bfloat16."""
    fp8: Annotated[bool, option(PRECISION)] = False
    """Also write a graph with FP8 convolutions; needs --calib-images."""
    mixed: Annotated[bool, option(PRECISION)] = False
    """Also write an INT8 graph whose most costly layers stay in a higher precision, found by a search."""
    int8_base: Annotated[Base | None, choice(Base, PRECISION)] = None
    """Type of what a quantised graph does not quantise. By default FP16, and FP32 with --target cpu."""
    hardware: Annotated[Hardware, choice(Hardware, PRECISION, name="--target")] = Hardware.TRT
    """With --int8 or --mixed: what runs the graph, trt or cpu (OpenVINO, ONNX Runtime; AVX2, VNNI or AMX)."""
    io: Annotated[IOType, choice(IOType, PRECISION)] = IOType.FP32
    """Type of the floats that an FP16 graph, or a quantised one over FP16, takes and gives."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The precisions that are asked for."""
        return tuple(target for target in Target if getattr(self, target.value))


@dataclass(frozen=True)
class CalibrationFlags:
    """What a quantised graph is calibrated on, and how its layers are chosen."""

    calib_images: Annotated[Path | None, option(CALIBRATION, "FOLDER")] = None
    """Folder of images to calibrate on, best from the training data."""
    calib_count: Annotated[int | None, option(CALIBRATION, "N")] = None
    """Number of images to calibrate on. By default 64, or as many as the list names."""
    calib_list: Annotated[Path | None, option(CALIBRATION, "FILE")] = None
    """Text file that names the images to calibrate on, one pattern a line."""
    calib_method: Annotated[str | None, option(CALIBRATION, "NAME", converter=lowered)] = None
    """How the range of an activation is chosen: minmax, percentile, entropy or mse."""
    calibrator: Annotated[str | None, option(CALIBRATION, "NAME", converter=lowered)] = None
    """What calibrates: native, or modelopt (NVIDIA Model Optimizer). By default native."""
    keep: Annotated[tuple[str, ...], option(CALIBRATION, "NAME")] = ()
    """Convolution, or module, that is not quantised. May be repeated."""
    ranges: Annotated[Path | None, option(CALIBRATION, "FILE")] = None
    """JSON file of calibrated ranges: read and checked if it exists, else written."""
    search_budget: Annotated[float | None, option(CALIBRATION, "MINUTES")] = None
    """With --mixed: end the search after this time; ranking the blocks is not counted."""
    search_state: Annotated[Path | None, option(CALIBRATION, "FILE")] = None
    """With --mixed: keep the state of the search in this file, or resume from it."""
    layer_timings: Annotated[Path | None, option(CALIBRATION, "FILE")] = None
    """With --mixed: JSON of ffnet-bench --profile of both engines; what INT8 slows down is not quantised."""

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def files(self) -> tuple[Path | None, ...]:
        """What the calibration reads."""
        return self.calib_images, self.calib_list, self.layer_timings

    def request(self, hardware: Hardware) -> "CalibrationRequest":
        """What to calibrate on, and how."""
        from ffnet_deploy.calib.search import SearchOptions, read_timings
        from ffnet_deploy.export.calibration import CalibrationRequest

        return CalibrationRequest(
            images=self.calib_images,
            count=self.calib_count,
            listed=self.calib_list,
            method=self.calib_method,
            calibrator=self.calibrator,
            keep=self.keep,
            ranges=self.ranges,
            hardware=hardware,
            search=SearchOptions(
                budget=None if self.search_budget is None else 60 * self.search_budget,
                state=self.search_state,
                timings=read_timings(self.layer_timings) if self.layer_timings else None,
            ),
        )


_EXPORT_BACKENDS = [backend.value for backend in Backend if backend is not Backend.TORCH]


def _export_backend(hint: object, tokens: Sequence[Token]) -> Backend:
    text = tokens[0].value.lower()
    if text == "onnx":
        report_note("--backend onnx is now written --backend onnxruntime")
        return Backend.ONNXRUNTIME
    return Backend(text)


@parameters(
    workspace=option(ENGINE, "MIB"),
    optimization_level=option(ENGINE, "LEVEL"),
    version_compatible=option(ENGINE),
    hardware_compatibility=choice(HardwareCompatibility, ENGINE, name="--hardware-compatible"),
    aux_streams=option(ENGINE, "N"),
    refit=option(ENGINE),
    strip_weights=option(ENGINE),
    sparsity=option(ENGINE),
    dla=option(ENGINE, "CORE"),
)
@dataclass(frozen=True)
class EngineFlags(BuilderConfig):
    """What the export is for, and how an engine is built."""

    backend: Annotated[
        Backend | None,
        option(
            EVERYDAY,
            converter=_export_backend,
            choices=[*_EXPORT_BACKENDS, "onnx"],
            show_choices=False,
            show_default=False,
        ),
    ] = None
    """What will run the export: onnxruntime or openvino (the graph), trt or trt-rtx (an engine built from it)."""
    compute_capability: Annotated[str | None, option(ENGINE, "LIST")] = None
    """GPUs that a trt-rtx engine is built for, by compute capability, as 8.6,8.9,12.0. By default the GPU at hand."""
    timing_cache: Annotated[str | None, option(ENGINE, "FILE")] = None
    """File that keeps trt's kernel times between builds, or 'off'. By default timing.cache beside the engine."""
    refit_engine: Annotated[Path | None, option(ENGINE, "FILE")] = None
    """Give this engine of --strip-weights or --refit the weights of --onnx; --out names the new engine. Needs a GPU."""
    profile: Annotated[tuple[str, ...], option(ENGINE, "BATCH@SHAPE")] = ()
    """A further optimisation profile, as 1:1:8@256x256:512x512:1024x1024. May be repeated."""
    tactic_sources: Annotated[str | None, option(ENGINE, "LIST")] = None
    """Libraries whose kernels a trt engine may use besides TensorRT's own: cublas, cublas-lt, cudnn, or none."""
    device: Annotated[str | None, option(ENGINE)] = None
    """GPU to build the engine on: cuda or cuda:N. By default the first."""

    def __post_init__(self) -> None:
        check_numbers(self)
        super().__post_init__()

    @property
    def builds(self) -> bool:
        """Whether an engine is asked for."""
        return self.backend is not None and self.backend.runs_engines

    def options(self, out: Path) -> BuildOptions | None:
        """How to build an engine at `out`; None when the export ends in a graph.

        Raises:
            OptionError: an option does not go with the backend.
        """
        if self.backend is None or not self.backend.runs_engines:
            lone = [name for name in given(self) if name != "--backend"]
            if lone and not (lone == ["--device"] and self.device == "cpu"):
                raise OptionError(f"{' and '.join(lone)} goes with --backend trt or trt-rtx")
            return None
        variant = Variant(self.backend.value)
        listed = tuple(part.strip() for part in (self.compute_capability or "").split(",") if part.strip())
        return BuildOptions(
            **inherited(self, BuilderConfig),
            variant=variant,
            timing_cache=self._times(variant, out),
            compute_capabilities=listed,
            profiles=tuple(parse_profile(text) for text in self.profile),
            tactic_sources=self._tactic_sources(),
            device=self.gpu(),
        )

    def claim(self, outputs: Outputs, out: Path) -> None:
        """Claim the engine `out` and the timing cache.

        Raises:
            OptionError, StorageError: see `Outputs.claim`.
        """
        options = self.options(out)
        outputs.claim(out, Kind.ARTIFACT)
        outputs.claim(options.timing_cache if options else None, Kind.TIMING_CACHE)

    def _tactic_sources(self) -> tuple[TacticSource, ...] | None:
        if self.tactic_sources is None or self.tactic_sources.lower() == "none":
            return None if self.tactic_sources is None else ()
        return parse_choices(self.tactic_sources, TacticSource, "--tactic-sources")

    def _times(self, variant: Variant, out: Path) -> Path | None:
        if self.timing_cache == _OFF:
            return None
        if self.timing_cache is None:
            return out.parent / _TIMES if variant is Variant.TENSORRT else None
        return Path(self.timing_cache)

    def gpu(self) -> int:
        """Number of the GPU to work on.

        Raises:
            OptionError: the device is none.
        """
        if self.device is not None and self.device.isdecimal():
            report_note(f"--device {self.device} is now written --device cuda:{self.device}")
            return int(self.device)
        gpu = gpu_index(self.device or "cuda", "building an engine")
        if gpu is None:
            raise OptionError(f"engines are built on cuda or cuda:N, not {self.device!r}")
        return gpu


@dataclass(frozen=True)
class TargetFlags:
    """Where the export goes."""

    out: Annotated[Path, option(EVERYDAY, "PATH")] = OUT
    """Folder to write to, or a file that ends in .onnx or .engine."""
    triton: Annotated[Path | None, option(OUTPUT, "FOLDER")] = None
    """Also write a model repository for Triton Inference Server."""
    ensemble: Annotated[bool, option(OUTPUT)] = False
    """With --triton: add a model that takes the bytes of an image file, for graphs that do not."""
    deepstream: Annotated[Path | None, option(OUTPUT, "FOLDER")] = None
    """Also write a configuration of DeepStream's Gst-nvinfer; needs --output probabilities."""
    export_layers: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """Also write the layers of the engine to this JSON file, as TensorRT's engine inspector lists them. Needs a GPU."""
    sample: Annotated[bool, option(OUTPUT)] = False
    """Also write a script beside each graph that labels an image with ONNX Runtime and OpenCV alone."""

    @property
    def serves(self) -> bool:
        """Whether something is written for a server."""
        return self.triton is not None or self.deepstream is not None

    @property
    def names_engine(self) -> bool:
        """Whether ``--out`` is the file of an engine."""
        return self.out.suffix == Variant.TENSORRT.suffix

    def graph_path(self, network: str) -> Path:
        """Where the FP32 graph of `network` goes."""
        return self.out if self.out.suffix == ".onnx" else self.out / f"{network}.onnx"

    def engine_path(self, graph: Path, engine: EngineFlags) -> Path:
        """Where the engine goes: ``--out`` if it names one; else a folder, `ENGINES` unless ``--out`` says where."""
        assert engine.backend is not None  # it builds one
        if self.names_engine:
            return self.out
        folder = ENGINES if self.out == OUT else self.out.parent if self.out.suffix == ".onnx" else self.out
        return folder / f"{graph.stem}{Variant(engine.backend.value).suffix}"


def check_options(
    graph: GraphFlags,
    precision: PrecisionFlags,
    engine: EngineFlags,
    data: DataFlags,
    verification: VerificationFlags,
    target: TargetFlags,
) -> None:
    """Raise `OptionError` for what does not go together or would not be heard, before anything is read."""
    lower, several = "--fp16, --bf16, --int8, --fp8, --mixed", len(precision.targets) > 1
    named = {*given(graph), *given(precision), *given(engine), *given(target)}
    if graph.compare_layers is not None:
        if graph.onnx is None or named != {"--onnx", "--compare-layers"}:
            raise OptionError("--compare-layers goes with --onnx, the graph to compare, and with --images or --data")
        return
    if engine.refit_engine is not None:
        if not {"--onnx", "--refit-engine", "--out"} <= named <= {"--onnx", "--refit-engine", "--out", "--device"}:
            raise OptionError("--refit-engine goes with --onnx, whose weights it takes, and with --out FILE.engine")
        if not target.names_engine:
            raise OptionError(f"the refitted engine is a file that ends in .engine: --out {target.out} does not")
        return
    engine.options(target.out)
    if target.ensemble and target.triton is None:
        raise OptionError("--ensemble goes with --triton DIR")
    if target.export_layers is not None and not engine.builds:
        raise OptionError("--export-layers goes with --backend trt or trt-rtx")
    if target.sample and (precision.bf16 or precision.fp8):
        raise OptionError("--sample runs graphs in ONNX Runtime, which computes no --bf16 or --fp8 on a CPU")
    if target.names_engine and (graph.onnx is None or precision.targets):
        raise OptionError(f"--out {target.out} names an engine; the graph needs a place too: give a folder")
    if graph.onnx is None:
        if graph.config is None:
            raise OptionError("give --config, or --onnx with a graph that is exported already")
        return
    if not (
        precision.targets
        or engine.builds
        or target.triton is not None
        or target.deepstream is not None
        or target.sample
    ):
        raise OptionError(
            f"--onnx gives an exported graph: say what for, with {lower}, --backend trt, trt-rtx, "
            "--triton DIR, --deepstream DIR or --sample"
        )
    if several and target.out.suffix == ".onnx":
        raise OptionError(f"--out {target.out} names one graph, and several are asked for: give a folder")
    fixed = [name for name in given(graph) if name in _OF_NEW_GRAPHS]
    fixed += [name for name in given(verification) if name == "--tolerance"]
    refuse(fixed, "--config alone: the graph of --onnx is exported already")
    if graph.config is None:
        refuse([name for name in given(graph) if name in ("--checkpoint", "--cfg-options")], "--config")
    if not engine.builds:
        refuse([name for name in given(graph) if name in ("--shape", "--batch")], "--backend trt or trt-rtx")
    if not engine.builds and not precision.targets:
        unheard = [name for name in (*given(graph), *given(target)) if name in ("--config", "--checkpoint", "--out")]
        unheard += [*given(data), *given(verification)]
        refuse(unheard, f"{lower} or --backend trt, trt-rtx: a model repository is written as the graph is")


def reduction_options(
    precision: PrecisionFlags, calibration: CalibrationFlags, verification: VerificationFlags, engine: EngineFlags
) -> "tuple[ReductionOptions, ...]":
    """How to reduce the precision of the graph, for each precision that is asked for.

    Raises:
        OptionError: an option is given without what it belongs to.
    """
    targets = precision.targets
    base = [name for name in given(precision) if name in ("--int8-base", "--target")]
    io = [name for name in given(precision) if name == "--io"]
    gate = [name for name in given(verification) if name in ("--max-drop", "--min-agreement", "--tier")]
    if not targets:
        # without a lower precision the gate is the engine's alone
        refuse(
            [*base, *io, *([] if engine.builds else gate), *given(calibration)],
            "--fp16, --bf16, --int8, --fp8 or --mixed",
        )
        return ()
    search = [name for name in given(calibration) if name in ("--search-budget", "--search-state", "--layer-timings")]
    if not any(target.precision.is_quantized for target in targets):
        refuse([*base, *given(calibration)], "--int8, --fp8 or --mixed")
    elif Target.MIXED not in targets:
        refuse(search, "--mixed")
    optional("onnx", extra="convert", purpose="a lower precision")
    from ffnet_deploy.export.reduce import ReductionOptions

    chosen = None if precision.int8_base is None else Precision(precision.int8_base.value)
    return tuple(
        ReductionOptions(
            target=target,
            base=chosen if target.precision.is_quantized else None,
            max_drop=verification.max_drop,
            tier=verification.tier,
            agreement=verification.min_agreement,
            calibration=calibration.request(precision.hardware) if target.precision.is_quantized else None,
            io=precision.io,
        )
        for target in targets
    )


def parse_profile(text: str) -> ProfileShapes:
    """The optimisation profile written as ``BATCH@SHAPE``.

    Raises:
        OptionError: the text is something else.
    """
    batch, sign, shape = text.partition("@")
    if not sign:
        raise OptionError(f"--profile takes BATCH@SHAPE, as 1:1:8@256x256:512x512:1024x1024: got {text!r:.60}")
    height, width = parse_shape(shape, dynamic=False, option="--profile")
    return ProfileShapes(parse_batch(batch, dynamic=False, option="--profile"), height, width)


def given(flags: Any) -> list[str]:
    """The options of the dataclass `flags` that differ from their defaults, as they are typed."""
    typed = {"hardware": "target", "hardware_compatibility": "hardware-compatible"}
    names = [one.name for one in fields(flags) if getattr(flags, one.name) != one.default]
    return [f"--{typed.get(name, name).replace('_', '-')}" for name in names]


def refuse(lone: Sequence[str], owner: str) -> None:
    """Raise `OptionError` where options are given that go with `owner` alone."""
    if lone:
        raise OptionError(f"{' and '.join(lone)} {'goes' if len(lone) == 1 else 'go'} with {owner}")


def default_shape(protocol: TestProtocol) -> str:
    """Input size when none is asked for: the sliding window, or the protocol's scale, in multiples of 32.

    Of a scale whose long side is only a limit (ADE20K's 2048x512) a square of the short side.
    """
    long, short = max(protocol.scale), min(protocol.scale)
    height, width = protocol.crop or (short, long if long <= 2 * short else short)
    return f"{-(-height // STRIDE) * STRIDE}x{-(-width // STRIDE) * STRIDE}"
