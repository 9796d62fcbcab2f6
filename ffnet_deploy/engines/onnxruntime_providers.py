"""ONNX Runtime's execution providers on NVIDIA GPUs: what they are asked for, and whether they really came."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ffnet_deploy.core.contract import INPUT_NAME, Contract, InputKind
from ffnet_deploy.core.errors import ArtifactError, OptionError
from ffnet_deploy.core.files import make_folder, sha256
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.onnx_metadata import operators
from ffnet_deploy.engines.tensorrt.options import default_profile

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

DEVICES = {"cpu": (CPU,), "cuda": (CUDA, CPU), "tensorrt": (TENSORRT, CUDA, CPU)}
"""Providers of each device, in order of preference: what TensorRT or CUDA cannot run, the next one does."""

_INSTALL = {
    CUDA: "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]'",
    TENSORRT: "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]' tensorrt",
}


def parse_device(text: str) -> tuple[tuple[str, ...], int]:
    """Providers and number of the GPU from ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"tensorrt"``.

    Raises:
        OptionError: the text is none of these.
    """
    kind, colon, index = text.partition(":")
    if kind not in DEVICES or (colon and (kind == "cpu" or not index.isdecimal())):
        raise OptionError(f"ONNX Runtime's devices are cpu, cuda[:N] and tensorrt[:N], not {text!r}")
    return DEVICES[kind], int(index or 0)


def how_to_install(provider: str) -> str:
    """A line of advice for a provider that is not there; empty for one that no package brings."""
    command = _INSTALL.get(provider)
    return f"\n  to do    on a machine with an NVIDIA GPU: {command}" if command else ""


def provider_options(
    providers: Sequence[str], gpu: int, path: Path, described: tuple[Contract, PrecisionRecord], cache: Path | None
) -> list[dict[str, Any]]:
    """The options of each of `providers` for the graph in `path`, in their order.

    Args:
        providers: by ONNX Runtime's names.
        gpu: number of the GPU.
        path: of the graph.
        described: its contract and precision.
        cache: folder in which TensorRT keeps what it built; None for no cache.

    Raises:
        StorageError: the cache cannot be written.
    """
    contract, record = described
    chosen: dict[str, dict[str, Any]] = {
        # TF32 would round what the graph says is float32
        CUDA: {"device_id": str(gpu), "use_tf32": "0"},
        TENSORRT: {"device_id": str(gpu), **_builder_flags(record), **_profile(contract)},
    }
    if cache is not None and TENSORRT in providers:
        chosen[TENSORRT] |= _cache(path, contract, cache)
    return [chosen.get(provider, {}) for provider in providers]


def _builder_flags(record: PrecisionRecord) -> dict[str, str]:
    """The types that TensorRT may use: those that the graph uses."""
    types = {record.precision, record.base}
    return {
        option: "1"
        for option, precision in (
            ("trt_fp16_enable", Precision.FP16),
            ("trt_bf16_enable", Precision.BF16),
            ("trt_int8_enable", Precision.INT8),
        )
        if precision in types
    }


def _profile(contract: Contract) -> dict[str, str]:
    """The range of input shapes, without which TensorRT would build anew for every shape that comes."""
    if not contract.is_dynamic:
        return {}
    usual = default_profile(contract)  # a graph accepts more than a tensor of TensorRT holds
    contract = replace(contract, batch=usual.batch, height=usual.height, width=usual.width)
    names = ("min", "opt", "max")
    return {f"trt_profile_{name}_shapes": f"{INPUT_NAME}:{_shape(contract, name)}" for name in names}


def _shape(contract: Contract, which: str) -> str:
    batch, height, width = (
        getattr(dimension, which) for dimension in (contract.batch, contract.height, contract.width)
    )
    planes = (batch, 3, height, width) if contract.input is InputKind.FLOAT else (batch, height, width, 3)
    return "x".join(map(str, planes))


def _cache(path: Path, contract: Contract, cache: Path) -> dict[str, str]:
    # its own names for cached engines leave weights and shapes out: each graph gets a folder of its own
    key = hashlib.sha256(f"{sha256(path)} {contract.to_json()}".encode()).hexdigest()[:16]
    folder = str(make_folder(cache / f"{path.stem}-{key}"))
    engines = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder}
    return engines | {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}


def provider_notes(providers: Sequence[str], record: PrecisionRecord, path: Path, version: str) -> tuple[str, ...]:
    """What to know of results and times by `providers` of ONNX Runtime `version` for the graph in `path`, in words."""
    if providers[0] == CPU:
        return _cpu_notes(record)
    if providers[0] == CUDA and _resizes_on_cpu(path, version):
        return (
            f"ONNX Runtime {version} has no CUDA kernel for the graph's Resize of operator set 19 or later and runs it "
            "on the CPU: export with --opset 18, or use a newer ONNX Runtime",
        )
    if providers[0] == TENSORRT and record.precision is not Precision.FP32 and record.float32:
        return (
            "ONNX Runtime permits TensorRT the graph's types everywhere: layers that the graph keeps in float32 may be "
            "computed in a lower one",
        )
    return ()


def _resizes_on_cpu(path: Path, version: str) -> bool:
    """Whether CUDA leaves a Resize of the graph to the CPU: releases up to 1.24 do from operator set 19 on.

    Source: microsoft/onnxruntime pull request 27415.
    """
    numbers = [int(part) for part in version.split(".")[:2] if part.isdigit()]
    opset, kinds = operators(path)
    return numbers <= [1, 24] and opset >= 19 and "Resize" in kinds


def _cpu_notes(record: PrecisionRecord) -> tuple[str, ...]:
    notes = []
    if record.precision.is_quantized:
        notes.append(
            f"ONNX Runtime computes {record.precision.value.upper()} in float32 on the CPU: the same result, "
            "no faster than the float32 graph; OpenVINO computes graphs of --int8 --target cpu in INT8"
        )
    if record.base is not Precision.FP32:
        notes.append(
            f"ONNX Runtime computes {record.base.value.upper()} in FP32 on the CPU and rounds less than a GPU does; "
            "the manifest holds what ffnet-export measured with every value rounded"
        )
    return tuple(notes)


def check_providers(asked: Sequence[str], found: Sequence[str], path: Path) -> None:
    """Raise `ArtifactError` unless the session really runs on what was asked for first."""
    if found and found[0] == asked[0]:
        return
    raise ArtifactError(
        f"ONNX Runtime was asked to run {path} by {asked[0]} and fell back to {' and '.join(found) or 'nothing'}: its "
        f"libraries for the GPU are missing, do not fit, or there is no GPU.{how_to_install(asked[0])}"
    )
