"""Below TensorRT 10 a network's types are wishes: what permits them, and what holds the builder to them."""

from typing import Any

from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.precision import Precision, PrecisionRecord
from ffnet_deploy.engines.tensorrt.flavour import feature, has
from ffnet_deploy.engines.tensorrt.network import node_name
from ffnet_deploy.engines.tensorrt.proof import conv_precision

_FLAGS = {Precision.FP16: "FP16", Precision.BF16: "BF16", Precision.INT8: "INT8", Precision.FP8: "FP8"}
_DATA_TYPES = {Precision.FP32: "FLOAT", Precision.FP16: "HALF", Precision.BF16: "BF16"}


def permit(trt: Any, config: Any, network: Any, record: PrecisionRecord) -> None:
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
