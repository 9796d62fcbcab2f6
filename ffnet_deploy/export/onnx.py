"""Export a segmentor as an ONNX graph: re-parameterise, trace, simplify, verify against PyTorch, publish.

The same segmentor and options give the same bytes.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import onnx
import onnxslim
import torch

from ffnet_deploy import artifacts
from ffnet_deploy.artifacts import Gate
from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import (
    IGNORE_LABEL,
    INPUT_NAME,
    METADATA_KEY,
    STRIDE,
    Contract,
    DimensionRange,
    InputKind,
    OutputKind,
    check_multiples,
)
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import scratch_folder
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.engines.onnxruntime import OnnxRuntimeEngine, OnnxRuntimeOptions
from ffnet_deploy.engines.torch import TorchEngine
from ffnet_deploy.evaluation.preprocessing import normalized, resize_image
from ffnet_deploy.evaluation.verify import Verification, VerifyOptions, verify
from ffnet_deploy.export.equivalence import BlockError, compare_blocks
from ffnet_deploy.export.graph_file import write_graph
from ffnet_deploy.export.heads import ANY_SIZE
from ffnet_deploy.export.network import DeployedNetwork
from ffnet_deploy.export.reparameterize import reparameterize
from ffnet_deploy.export.rewrites import LABEL_FORMS, AppliedRewrite, Rewrite, rewrite
from ffnet_deploy.models.ffnet import FFNet
from ffnet_deploy.models.ffnet_seg import FFNetSeg
from ffnet_deploy.segmentor.load import Segmentor

NEWEST_OPSET = 20
"""The newest operator set that brings the networks anything: 20 has `Gelu`."""
OLDEST_OPSET = 17
"""The newest operator set that TensorRT 8.5 parses; GELU is written as its erf formula."""
_IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9}
"""ONNX file format of the release that introduced each operator set."""
_BLOCKS_SIZE = (128, 160)
"""Input (height, width) in pixels of the block-by-block comparison of an FFNet; of others it is the usual one."""
REWRITE_TOLERANCE = 1e-12
"""Largest relative error of a rewrite in float64; of label maps the largest share of pixels."""


@dataclass(frozen=True)
class ExportOptions:
    """The boundary and form of the graph.

    Attributes:
        height: Accepted input heights in pixels.
        width: Accepted input widths in pixels.
        batch: Accepted batch sizes.
        opset: ONNX operator set, 17 to 20.
        input: What the graph takes.
        output: What it gives.
        rewrites: Changes that leave its result as it is, where they find something to replace; at most one of those
            that make label maps.
    """

    height: DimensionRange = DimensionRange(512, 512, 512)  # noqa: RUF009  frozen
    width: DimensionRange = DimensionRange(512, 512, 512)  # noqa: RUF009  frozen
    batch: DimensionRange = DimensionRange(1, 1, 1)  # noqa: RUF009  frozen
    opset: int = NEWEST_OPSET
    input: InputKind = InputKind.FLOAT
    output: OutputKind = OutputKind.LOGITS
    rewrites: tuple[Rewrite, ...] = ()

    def __post_init__(self) -> None:
        check_multiples("height", self.height)
        check_multiples("width", self.width)
        if self.opset not in _IR_VERSIONS:
            raise OptionError(f"opset must be {OLDEST_OPSET} to {NEWEST_OPSET}: got {self.opset}")
        forms = [name.value for name in self.rewrites if name in LABEL_FORMS]
        if len(forms) > 1:
            raise OptionError(f"{' and '.join(forms)} both make label maps: choose one")


@dataclass(frozen=True)
class Exported:
    """A verified graph on disk.

    Attributes:
        path: Path of the ONNX file.
        manifest: Path of the JSON file beside it.
        contract: What the graph takes and gives.
        blocks: Difference that re-parameterisation made, block by block.
        not_folded: Names of the nodes that are still batch norms in the graph.
        rewrites: What was rewritten, with its proof.
        verification: Comparison of the written file with the segmentor as published.
    """

    path: Path
    manifest: Path
    contract: Contract
    blocks: tuple[BlockError, ...]
    not_folded: tuple[str, ...]
    rewrites: tuple[AppliedRewrite, ...]
    verification: Verification


def target_path(out: Path, network: str) -> Path:
    """The ONNX file meant by `out`: itself when it ends in ``.onnx``, else ``<network>.onnx`` in that folder."""
    return out if out.suffix == ".onnx" else out / f"{network}.onnx"


def export_onnx(
    segmentor: Segmentor,
    options: ExportOptions,
    out: Path,
    verification: VerifyOptions,
    progress: Progress = no_progress,
) -> Exported:
    """Write `segmentor` as a verified ONNX graph with its manifest.

    Args:
        segmentor: with its weights.
        options: boundary and form of the graph.
        out: file ending in ``.onnx``, or folder.
        verification: images and tolerance.
        progress: called with steps, and of the images scored.

    Raises:
        OptionError: the options do not fit the segmentor.
        VerificationError: the file differs by more than the tolerance; it is kept beside `out` as evidence.
        StorageError: there is no room, or the folder cannot be written.
    """
    tolerance = verification.tolerance
    with artifacts.staged(target_path(out, segmentor.config.name)) as draft:
        progress("re-parameterising")
        image = resize_image(verification.images[0].pixels, comparison_size(segmentor, options))[None]
        x = torch.from_numpy(normalized(image, segmentor.config.normalization))
        network, rewrites = build_network(segmentor, options, x)
        blocks = compare_blocks(segmentor.model, reparameterize(segmentor.model), x)
        worst = max(blocks, key=lambda block: block.relative)
        stopping.check()

        progress("tracing and simplifying")
        graph = trace_network(network, contract_of(segmentor, options), options.opset)
        not_folded = tuple(node.name for node in graph.graph.node if node.op_type == "BatchNormalization")
        files = write_graph(graph, draft.path)
        stopping.check()

        progress("verifying")
        unsealed = OnnxRuntimeOptions(check_manifest=False)
        with (
            OnnxRuntimeEngine(draft.path, unsealed) as candidate,
            TorchEngine(segmentor.model, candidate.contract) as reference,
        ):
            contract = candidate.contract
            result = verify(reference, candidate, replace(verification, tolerance=verification.gate), progress)

        progress("writing")
        failures = [
            f"re-parameterised {block.name}: relative error {block.relative:.1e} > {tolerance.relative:.1e}"
            for block in blocks
            if not block.relative <= tolerance.relative
        ]
        failures += [
            f"{one.name.value}: relative error {one.float64_error:.1e} > {REWRITE_TOLERANCE:.0e} in float64"
            for one in rewrites
            if not one.float64_error <= REWRITE_TOLERANCE
        ]
        content = {
            "contract": asdict(contract),
            "opset": options.opset,
            "reparameterisation": {
                "blocks": [{**asdict(block), "relative": block.relative} for block in blocks],
                "worst": worst.name,
                "worst_relative": worst.relative,
                "not_folded": not_folded,
            },
            "rewrites": [{**asdict(one), "name": one.name.value} for one in rewrites],
            "verification": {"images": verification.source, **result.to_dict()},
        }
        gate = Gate(
            [*failures, *result.failures],
            "the exported graph is not the network it came from",
            "report it with that folder; to accept the difference, raise --tolerance",
        )
        manifest = artifacts.publish(draft, "onnx", content, gate, files)
    return Exported(draft.target, manifest, contract, tuple(blocks), not_folded, rewrites, result)


def contract_of(segmentor: Segmentor, options: ExportOptions) -> Contract:
    """What the exported graph takes and gives."""
    return segmentor.contract(
        input=options.input, output=options.output, batch=options.batch, height=options.height, width=options.width
    )


def build_graph(segmentor: Segmentor, options: ExportOptions) -> onnx.ModelProto:
    """The ONNX graph of `segmentor`, with its contract in the metadata.

    Raises:
        OptionError: the options do not fit the segmentor.
    """
    noise = torch.randn(1, 3, *comparison_size(segmentor, options), generator=torch.Generator().manual_seed(0))
    network, _ = build_network(segmentor, options, noise)
    return trace_network(network, contract_of(segmentor, options), options.opset)


def comparison_size(segmentor: Segmentor, options: ExportOptions) -> tuple[int, int]:
    """Input (height, width) in pixels on which forms of the network are compared: one that it accepts."""
    if isinstance(segmentor.model.backbone, FFNet | FFNetSeg):
        return _BLOCKS_SIZE
    return options.height.opt, options.width.opt


def build_network(
    segmentor: Segmentor, options: ExportOptions, x: torch.Tensor
) -> tuple[DeployedNetwork, tuple[AppliedRewrite, ...]]:
    """What is traced for `options`, and how it was rewritten, proved on normalised images `x` (batch, 3, H, W).

    Raises:
        OptionError: the options do not fit the segmentor.
    """
    size = (x.shape[2], x.shape[3])
    normalization = segmentor.config.normalization
    network = DeployedNetwork(segmentor.model, normalization, options.input, options.output, size).eval()
    if type(network.decode_head) not in ANY_SIZE and not (options.height.is_fixed and options.width.is_fixed):
        raise OptionError(
            f"{segmentor.config.decoder} is traced as it is, which holds for one input size: give it by --shape "
            f"{options.height.opt}x{options.width.opt}"
        )
    if not options.rewrites:
        return network, ()
    return rewrite(network, options.rewrites, options.height, options.width, x)


def trace_network(network: DeployedNetwork, contract: Contract, opset: int) -> onnx.ModelProto:
    """The graph of `network`: traced, simplified, and stamped with its contract."""
    graph = _trace(network, contract, opset)
    with quiet():
        graph = onnxslim.slim(graph)
    if contract.output is OutputKind.LABELS and len(contract.classes) > IGNORE_LABEL:
        _make_labels_uint16(graph)
    return _stamped(graph, contract, opset)


def _make_labels_uint16(graph: onnx.ModelProto) -> None:
    """Let the Cast that gives the labels make uint16 of them, which PyTorch's exporter does not know."""
    cast = next(node for node in graph.graph.node if graph.graph.output[0].name in node.output)
    next(attribute for attribute in cast.attribute if attribute.name == "to").i = onnx.TensorProto.UINT16
    graph.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT16


def _trace(network: DeployedNetwork, contract: Contract, opset: int) -> onnx.ModelProto:
    # by way of a file: in memory PyTorch's exporter ends at 2 GB
    with quiet(), torch.inference_mode(), scratch_folder() as folder:
        path = str(folder / "traced.onnx")
        torch.onnx.export(
            network,
            (example_input(contract),),
            path,
            opset_version=opset,
            input_names=[INPUT_NAME],
            output_names=[contract.output.value],
            dynamic_axes=_dynamic_axes(contract),
            dynamo=False,
        )
        return onnx.load(path)


def example_input(contract: Contract) -> torch.Tensor:
    """An input of the kind and of the smallest traceable size that `contract` accepts."""
    batch = contract.batch.min
    height, width = (
        dimension.opt if dimension.is_fixed else max(dimension.min, min(dimension.opt, 4 * STRIDE))
        for dimension in (contract.height, contract.width)
    )
    if contract.input is InputKind.FLOAT:
        return torch.zeros(batch, 3, height, width)
    return torch.zeros(batch, height, width, 3, dtype=torch.uint8)


def _dynamic_axes(contract: Contract) -> dict[str, dict[int, str]]:
    """Names of the dimensions that are not fixed, by tensor and position."""
    rows, columns = (1, 2) if contract.input is not InputKind.FLOAT else (2, 3)
    out_rows, out_columns = (1, 2) if contract.output is OutputKind.LABELS else (2, 3)
    prefix = "out_" if contract.output is OutputKind.LOGITS else ""
    axes: dict[str, dict[int, str]] = {INPUT_NAME: {}, contract.output.value: {}}
    for dimension, name, at, out_at in (
        (contract.batch, "batch", 0, 0),
        (contract.height, "height", rows, out_rows),
        (contract.width, "width", columns, out_columns),
    ):
        if not dimension.is_fixed:
            axes[INPUT_NAME][at] = name
            axes[contract.output.value][out_at] = name if name == "batch" else prefix + name
    return axes


def _stamped(graph: onnx.ModelProto, contract: Contract, opset: int) -> onnx.ModelProto:
    """The graph with its contract, without traces of who built it when."""
    del graph.metadata_props[:]
    graph.metadata_props.add(key=METADATA_KEY, value=contract.to_json())
    graph.producer_name, graph.producer_version, graph.doc_string = "ffnet-deploy", "", ""
    graph.graph.name, graph.graph.doc_string = contract.network, ""
    graph.ir_version = _IR_VERSIONS[opset]
    return graph
