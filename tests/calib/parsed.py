"""What TensorRT for RTX makes of a graph: the network that it parses, and the engine that it builds."""

from pathlib import Path
from typing import Any

import onnx


def parse(path: Path) -> tuple[Any, Any]:
    """The builder and the parsed network; everything that the network needs stays alive with it."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(path))
    assert parsed, [str(parser.get_error(index)) for index in range(parser.num_errors)]
    KEPT[id(network)] = (logger, parser)
    return builder, network


KEPT: dict[int, Any] = {}


def build(builder: Any, network: Any) -> int:
    """Bytes of the engine for compute capability 8.9, built without a GPU."""
    import tensorrt_rtx as trt

    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    engine = builder.build_serialized_network(network, config)
    assert engine is not None
    return int(engine.nbytes)


def check_parsed(network: Any, model: onnx.ModelProto, sums: int) -> None:
    """Q/DQ on input and weights of every convolution of `model`, and on one branch of `sums` residual sums alone."""
    import tensorrt_rtx as trt

    layers = [network.get_layer(index) for index in range(network.num_layers)]
    maker = {layer.get_output(at).name: layer.type for layer in layers for at in range(layer.num_outputs)}
    restored = trt.LayerType.DEQUANTIZE
    convs = [layer for layer in layers if layer.type == trt.LayerType.CONVOLUTION]
    assert len(convs) == sum(node.op_type == "Conv" for node in model.graph.node)
    for conv in convs:
        assert [maker.get(conv.get_input(at).name) for at in (0, 1)] == [restored, restored], conv.name
    others = [
        layer
        for layer in layers
        for at in range(layer.num_inputs)
        if layer not in convs and layer.get_input(at) is not None and maker.get(layer.get_input(at).name) == restored
    ]
    assert {layer.type for layer in others} <= {trt.LayerType.ELEMENTWISE}
    assert len(others) == sums
