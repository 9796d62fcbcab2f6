"""Triton's model configuration (``config.pbtxt``) as text.

Source: https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError

LABELS_FILE = "labels.txt"
"""Name of the file with the class names, one a line, in label order."""


class InstanceKind(str, Enum):
    """Where the server runs the instances of a model."""

    AUTO = "auto"
    GPU = "gpu"
    CPU = "cpu"


@dataclass(frozen=True)
class TritonOptions:
    """How a server runs a model.

    Attributes:
        name: Name of the model; None: the artefact's.
        instances: Number of instances, on each GPU where they run on GPUs.
        kind: Where they run.
        delay: Longest time that a request waits for others to share its batch, microseconds.
        ensemble: Whether networks that take normalised images get a model that takes bytes, and one for both in a row.
        cuda_graph: Whether TensorRT engines replay the kernels of a batch of typical size as one CUDA graph.
        warmup: Whether a batch of typical size is run before the first request is answered.
    """

    name: str | None = None
    instances: int = 1
    kind: InstanceKind = InstanceKind.AUTO
    delay: int = 100
    ensemble: bool = False
    cuda_graph: bool = True
    warmup: bool = True

    def __post_init__(self) -> None:
        if self.instances < 1:
            raise OptionError(f"the number of instances is 1 or more: got {self.instances}")
        if self.delay < 0:
            raise OptionError(f"the waiting time is given in microseconds, from 0: got {self.delay}")
        if self.name is not None and (not self.name or "/" in self.name or self.name.startswith(".")):
            raise OptionError(f"a model's name is a folder's name: got {self.name!r}")


@dataclass(frozen=True)
class Tensor:
    """An input or output as the server sees it.

    Attributes:
        name: Name of the tensor.
        dtype: Name of its NumPy type, for instance ``"float32"``.
        shape: Shape with the batch first; -1 where a dimension is free.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The server's name of its type: ``TYPE_FP32``, ``TYPE_UINT8``, ..."""
        return f"TYPE_{self.dtype.upper().replace('FLOAT', 'FP')}"

    def text(self, batched: bool, labels: bool = False) -> str:
        """Its entry; the server adds the batch dimension by itself where it batches."""
        dims = ", ".join(str(size) for size in (self.shape[1:] if batched else self.shape))
        named = f" label_filename: {quoted(LABELS_FILE)}" if labels else ""
        return f"{{ name: {quoted(self.name)} data_type: {self.kind} dims: [ {dims} ]{named} }}"


def quoted(text: str) -> str:
    """`text` as a string of protobuf's text format."""
    return json.dumps(text, ensure_ascii=False)


def largest_batch(contract: Contract) -> int:
    """The batch that the server may form; 0 where it leaves batches as they come.

    Raises:
        OptionError: the network takes larger batches only, which no single request fills.
    """
    if contract.batch.is_fixed:
        return 0
    if contract.batch.min > 1:
        raise OptionError(
            f"a server fills batches from single requests, and the network accepts {contract.batch}.\n"
            f"  to do    export it with --batch 1:{contract.batch.opt}:{contract.batch.max}"
        )
    return contract.batch.max


def network_config(
    name: str, backend: str, contract: Contract, tensors: Sequence[Tensor], options: TritonOptions
) -> str:
    """Configuration of the network itself.

    Args:
        name: of the model.
        backend: ``"tensorrt"`` or ``"onnxruntime"``.
        contract: what it takes and gives; clients find it among the model's parameters.
        tensors: its input and its output.
        options: how it is run.
    """
    batch, usual = largest_batch(contract), contract.batch.opt
    preferred = f" preferred_batch_size: [ {usual} ]" if usual > 1 else ""
    batching = f"dynamic_batching {{{preferred} max_queue_delay_microseconds: {options.delay} }}"
    lines = [
        f"name: {quoted(name)}",
        f"backend: {quoted(backend)}",
        f"max_batch_size: {batch}",
        f"input [ {tensors[0].text(batch > 0)} ]",
        f"output [ {tensors[1].text(batch > 0, labels=True)} ]",
        f"instance_group [ {{ count: {options.instances} kind: KIND_{options.kind.name} }} ]",
        *([batching] if batch else []),
        *_typical_runs(backend, contract, tensors[0], batch > 0, options),
        f'parameters {{ key: "contract" value: {{ string_value: {quoted(contract.to_json())} }} }}',
    ]
    return "\n".join(lines) + "\n"


def preprocessing_config(name: str, contract: Contract, tensors: Sequence[Tensor]) -> str:
    """Configuration of the model that makes normalised images of bytes."""
    batch = largest_batch(contract)
    lines = [
        f"name: {quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {batch}",
        f"input [ {tensors[0].text(batch > 0)} ]",
        f"output [ {tensors[1].text(batch > 0)} ]",
        "instance_group [ { count: 1 kind: KIND_AUTO } ]",
    ]
    return "\n".join(lines) + "\n"


def ensemble_config(name: str, contract: Contract, steps: Sequence[str], tensors: Sequence[Tensor]) -> str:
    """Configuration of preprocessing and network in a row.

    Args:
        name: of the ensemble.
        contract: of the network.
        steps: names of both models.
        tensors: bytes in, what lies between, and the network's input and output.
    """
    batch = largest_batch(contract)
    source, between, image, result = tensors
    lines = [
        f"name: {quoted(name)}",
        'platform: "ensemble"',
        f"max_batch_size: {batch}",
        f"input [ {source.text(batch > 0)} ]",
        f"output [ {result.text(batch > 0, labels=True)} ]",
        "ensemble_scheduling {",
        f"  step {_step(steps[0], {source.name: source.name}, {between.name: between.name})}",
        f"  step {_step(steps[1], {image.name: between.name}, {result.name: result.name})}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _typical_runs(backend: str, contract: Contract, image: Tensor, batched: bool, options: TritonOptions) -> list[str]:
    """The CUDA graph and the warm-up of the shape that the network is made for."""
    usual = {name: dimension.opt for name, dimension in contract.input_ranges}
    sizes = [size for name, size in usual.items() if name != "batch" or not batched]
    count, lines = usual["batch"] if batched else 0, []
    if backend == "tensorrt" and options.cuda_graph:
        shape = " ".join(f"dim: {size}" for size in sizes)
        spec = f"batch_size: {count} input {{ key: {quoted(image.name)} value: {{ {shape} }} }}"
        lines.append(f"optimization {{ cuda {{ graphs: true graph_spec [ {{ {spec} }} ] }} }}")
    if options.warmup:
        shape = ", ".join(map(str, sizes))
        value = f"{{ data_type: {image.kind} dims: [ {shape} ] zero_data: true }}"
        lines.append(
            f'model_warmup [ {{ name: "typical" batch_size: {max(count, 1)} '
            f"inputs {{ key: {quoted(image.name)} value: {value} }} }} ]"
        )
    return lines


def _step(model: str, inputs: dict[str, str], outputs: dict[str, str]) -> str:
    maps = [("input_map", inputs), ("output_map", outputs)]
    entries = [
        f"{field} {{ key: {quoted(key)} value: {quoted(value)} }}"
        for field, pairs in maps
        for key, value in pairs.items()
    ]
    return f"{{ model_name: {quoted(model)} model_version: -1 {' '.join(entries)} }}"
