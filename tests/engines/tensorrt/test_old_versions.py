"""What is set on TensorRT 8.5's builder, where types are permitted and not given; on a recording stand-in."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.cuda import CudaDevice, NoDeviceError
from ffnet_deploy.engines.tensorrt import network as parse
from ffnet_deploy.engines.tensorrt.build import Build, build_engine, record_as_built
from ffnet_deploy.engines.tensorrt.network import ParsedNetwork, open_builder
from ffnet_deploy.engines.tensorrt.options import BuildOptions, BuildTarget, HardwareCompatibility, TacticSource
from ffnet_deploy.engines.tensorrt.variant import Variant, feature, has, is_strongly_typed
from tests.toy import contract


def names(*values: str) -> SimpleNamespace:
    return SimpleNamespace(**{value: value for value in values})


class Config:
    """Keeps what it is told. Has what 8.5's has: no optimisation level, auxiliary streams or progress monitor."""

    __slots__ = (
        "DLA_core",
        "default_device_type",
        "flags",
        "pools",
        "previews",
        "profiles",
        "profiling_verbosity",
        "sources",
    )

    def __init__(self) -> None:
        self.flags, self.pools, self.previews, self.profiles = {"TF32"}, {}, {}, list[Any]()
        self.sources = 0b11111

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.pools[pool] = size

    def get_tactic_sources(self) -> int:
        return self.sources

    def set_tactic_sources(self, sources: int) -> bool:
        self.sources = sources
        return True

    def set_preview_feature(self, name: str, on: bool) -> None:
        self.previews[name] = on

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def can_run_on_DLA(self, layer: "NetworkLayer") -> bool:  # noqa: N802
        return layer.type == "CONVOLUTION"


class NetworkLayer:
    """A layer that keeps the types it is held to."""

    def __init__(self, name: str, kind: str, dtype: str = "HALF") -> None:
        self.name, self.type, self.tensor = name, kind, SimpleNamespace(dtype=dtype)
        self.precision: str | None = None
        self.outputs: dict[int, str] = {}

    def get_output(self, index: int) -> Any:
        return self.tensor

    def set_output_type(self, index: int, dtype: str) -> None:
        self.outputs[index] = dtype


class Builder:
    num_DLA_cores = 2  # noqa: N815

    def __init__(self, plan: bytes | None, said: str = "") -> None:
        self.config, self.plan, self.said = Config(), plan, said
        self.shapes: list[Any] = []

    def create_builder_config(self) -> Config:
        return self.config

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *shapes: self.shapes.append(shapes))

    def build_serialized_network(self, network: Any, config: Config) -> bytes | None:
        return self.plan


class Module(SimpleNamespace):
    __hash__ = object.__hash__  # as modules have it


def stand_in() -> Any:
    """The parts of 8.5.3's module that a build touches."""
    return Module(
        __version__="8.5.3.1",
        ILogger=type("ILogger", (), {"__init__": lambda self: None}),
        BuilderFlag=names(
            *("FP16", "INT8", "TF32", "PREFER_PRECISION_CONSTRAINTS", "REFIT", "GPU_FALLBACK", "SPARSE_WEIGHTS")
        ),
        DeviceType=names("DLA", "GPU"),
        NetworkDefinitionCreationFlag=names("EXPLICIT_BATCH"),
        DataType=names("FLOAT", "HALF", "INT8", "INT32"),
        LayerType=names("CONVOLUTION", "RESIZE", "SHAPE"),
        MemoryPoolType=names("WORKSPACE"),
        ProfilingVerbosity=names("DETAILED"),
        TacticSource=SimpleNamespace(CUBLAS=0, CUBLAS_LT=1, CUDNN=2, EDGE_MASK_CONVOLUTIONS=3, JIT_CONVOLUTIONS=4),
        PreviewFeature=names("DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805"),
    )


LAYERS = ("/a/Conv", "/b/Conv", "/head/Conv", "/r/Resize", "/s/Resize", "/shape")


def built(
    record: PrecisionRecord,
    options: BuildOptions | None = None,
    plan: bytes | None = b"plan",
    notes: Callable[[str], None] = lambda text: None,
) -> tuple[Config, dict[str, NetworkLayer], Builder]:
    kinds = ("CONVOLUTION", "CONVOLUTION", "CONVOLUTION", "RESIZE", "RESIZE", "SHAPE")
    layers = [
        NetworkLayer(name, kind, "INT32" if kind == "SHAPE" else "HALF")
        for name, kind in zip(LAYERS, kinds, strict=True)
    ]
    network = SimpleNamespace(
        num_layers=len(layers),
        get_layer=layers.__getitem__,
        get_input=lambda index: SimpleNamespace(name="image", shape=(-1, 3, -1, -1)),
    )
    builder = Builder(plan)
    options = options or BuildOptions()
    target, profiles = BuildTarget(("9.0",), "NVIDIA H200"), options.profile_shapes(contract())
    build = Build("toy.onnx", contract(), record, options, target, profiles, notes=notes)
    assert build_engine(ParsedNetwork(stand_in(), builder, network, None, typed=False), build) == plan
    return builder.config, {layer.name: layer for layer in layers}, builder


def held(layers: dict[str, NetworkLayer]) -> dict[str, str]:
    assert all(layer.outputs == ({0: layer.precision} if layer.precision else {}) for layer in layers.values())
    return {name: layer.precision for name, layer in layers.items() if layer.precision}


def test_fp16_is_permitted_and_layers_are_held_to_their_types() -> None:
    record = PrecisionRecord(Precision.FP16, Precision.FP16, float32=("/head/Conv", "/s/Resize", "/shape"))
    config, layers, _ = built(record)
    assert config.flags == {"FP16", "PREFER_PRECISION_CONSTRAINTS"}, "and TF32 is off"
    assert held(layers) == {"/a/Conv": "HALF", "/b/Conv": "HALF", "/head/Conv": "FLOAT", "/s/Resize": "FLOAT"}


def test_int8_is_permitted_and_quantised_layers_are_left_to_their_scales() -> None:
    record = PrecisionRecord(Precision.INT8, Precision.FP16, quantized=("/a/Conv",), float32=("/head/Conv",))
    config, layers, _ = built(record)
    assert config.flags == {"FP16", "INT8", "PREFER_PRECISION_CONSTRAINTS"}
    assert held(layers) == {"/b/Conv": "HALF", "/head/Conv": "FLOAT"}
    assert built(replace(record, base=Precision.FP32))[0].flags == {"INT8", "PREFER_PRECISION_CONSTRAINTS"}


def test_fp32_permits_nothing() -> None:
    config, layers, builder = built(PrecisionRecord(), BuildOptions(workspace=64))
    assert config.flags == set() and held(layers) == {}
    assert config.pools == {"WORKSPACE": 64 << 20} and config.profiling_verbosity == "DETAILED"
    assert builder.shapes == [("image", (1, 3, 32, 32), (2, 3, 64, 96), (4, 3, 256, 256))]


def test_cublas_and_cudnn_are_left_out() -> None:
    config, _, _ = built(PrecisionRecord())
    assert config.sources == 0b11000 and config.previews == {"DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": True}


def test_cublas_and_cudnn_are_used_where_they_are_there_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _, _ = built(PrecisionRecord(), BuildOptions(tactic_sources=(TacticSource.CUDNN,)))
    assert config.sources == 0b11100 and config.previews == {"DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": False}
    real = SimpleNamespace(cublasCreate_v2=1, cublasLtCreate=1, cudnnCreate=1)
    monkeypatch.setattr("ctypes.CDLL", lambda name: real)
    assert built(PrecisionRecord())[0].sources == 0b11111
    assert built(PrecisionRecord(), BuildOptions(tactic_sources=()))[0].sources == 0b11000
    monkeypatch.setattr("ctypes.CDLL", lambda name: SimpleNamespace())
    assert built(PrecisionRecord())[0].sources == 0b11000, "stand-ins of the libraries hold no functions"


def test_a_dla_core_runs_what_it_can_and_the_rest_is_told() -> None:
    told: list[str] = []
    config, _, _ = built(PrecisionRecord(Precision.FP16, Precision.FP16), BuildOptions(dla=1), notes=told.append)
    assert (config.default_device_type, config.DLA_core) == ("DLA", 1) and "GPU_FALLBACK" in config.flags
    assert told[0] == "DLA core 1 runs 3 of 6 layers; on the GPU: /r/Resize, /s/Resize, /shape"
    with pytest.raises(OptionError, match=r"no DLA core 2: this machine has 2[\s\S]*--dla 0 to 1"):
        built(PrecisionRecord(), BuildOptions(dla=2))


def test_sparse_kernels_are_asked_for() -> None:
    assert "SPARSE_WEIGHTS" in built(PrecisionRecord(), BuildOptions(sparsity=True))[0].flags


def test_the_rest_of_an_int8_graph_runs_in_fp16_where_types_are_permissions() -> None:
    record = PrecisionRecord(Precision.INT8, Precision.FP32, quantized=("/a/Conv",), float32=("/head/Conv",))
    found = record_as_built(stand_in(), record)
    assert found == replace(record, base=Precision.FP16)
    config, layers, _ = built(found)
    assert "FP16" in config.flags and held(layers) == {"/b/Conv": "HALF", "/head/Conv": "FLOAT"}
    typed = SimpleNamespace(NetworkDefinitionCreationFlag=names("STRONGLY_TYPED"))
    assert record_as_built(typed, record) == record
    assert record_as_built(stand_in(), PrecisionRecord()) == PrecisionRecord()


@pytest.mark.parametrize("variant", [Variant.TENSORRT, Variant.RTX])
def test_a_builder_that_does_not_fit_the_driver_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, variant: Variant
) -> None:
    def refuse(log: Any) -> None:
        log.log("Severity.ERROR", "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt = stand_in()
    trt.Builder = refuse
    monkeypatch.setattr(parse, "load", lambda variant: trt)
    monkeypatch.setattr(parse, "Cuda", lambda index: SimpleNamespace(use=lambda: None))
    device = CudaDevice(0, "NVIDIA L4", (8, 9), 1 << 34, 12040, 13000)
    monkeypatch.setattr("ffnet_deploy.engines.tensorrt.diagnostics.find_device", lambda: device)
    with pytest.raises(NoDeviceError, match=r"CUDA 12\.4[\s\S]*failure with error: 35[\s\S]*tensorrt-cu12"):
        open_builder(variant, 0)


@pytest.mark.parametrize(
    ("record", "options", "told"),
    [
        (PrecisionRecord(Precision.BF16, Precision.BF16), BuildOptions(), "knows no bf16"),
        (PrecisionRecord(), BuildOptions(optimization_level=3), "has no builder_optimization_level"),
        (PrecisionRecord(), BuildOptions(aux_streams=1), "has no max_aux_streams"),
        (PrecisionRecord(), BuildOptions(version_compatible=True), "has no VERSION_COMPATIBLE"),
        (PrecisionRecord(), BuildOptions(strip_weights=True), "has no STRIP_PLAN"),
        (
            PrecisionRecord(),
            BuildOptions(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
            "builds no engines for other GPUs",
        ),
    ],
)
def test_what_it_does_not_offer_is_refused(record: PrecisionRecord, options: BuildOptions, told: str) -> None:
    with pytest.raises(OptionError, match=rf"8\.5\.3\.1.*{told}[\s\S]*to do"):
        built(record, options)


def test_refitting_is_offered() -> None:
    assert "REFIT" in built(PrecisionRecord(), BuildOptions(refit=True))[0].flags


def test_a_build_that_gives_nothing_is_an_error() -> None:
    with pytest.raises(ArtifactError, match=r"TensorRT could not build an engine from toy\.onnx"):
        built(PrecisionRecord(), plan=None)


def test_a_fixed_input_must_be_the_contracts() -> None:
    described, options = contract(batch=DimensionRange.fixed(1)), BuildOptions()
    profiles = options.profile_shapes(described)
    build = Build("a", described, PrecisionRecord(), options, BuildTarget(("9.0",), "GPU"), profiles)
    network = SimpleNamespace(get_input=lambda index: SimpleNamespace(name="image", shape=(2, 3, -1, -1)))
    with pytest.raises(OptionError, match="the graph's batch is fixed at 2, not 1"):
        build_engine(ParsedNetwork(stand_in(), Builder(b""), network, None, typed=False), build)


def test_features_are_found_by_their_names() -> None:
    trt = stand_in()
    assert not is_strongly_typed(trt) and has(trt, "BuilderFlag.FP16") and not has(trt, "BuilderFlag.FP8")
    assert feature(trt, "BuilderFlag.FP16") == "FP16" and feature(trt, "Nothing.AT_ALL") is None


def test_no_builder_is_made_before_a_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise AssertionError("without a device TensorRT's builder ends the process")

    def none(index: int) -> None:
        raise NoDeviceError("there is no CUDA device here")

    monkeypatch.setattr(parse, "load", lambda variant: SimpleNamespace(Builder=crash, Runtime=crash))
    monkeypatch.setattr(parse, "Cuda", none)
    for variant, device in ((Variant.TENSORRT, None), (Variant.TENSORRT, 0), (Variant.RTX, 0)):
        with pytest.raises(NoDeviceError):
            open_builder(variant, device)
