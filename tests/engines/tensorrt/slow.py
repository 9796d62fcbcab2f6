"""The published networks as graphs; random weights have their sizes and layers."""

from functools import cache

import onnx

from tests.engines.tensorrt.rtx import export_options

PUBLISHED = ("ffnet_seg_512_ade_160k", "ffnet_seg_1024_city_160k", "upernet_ffnet_2_512_160k_ade20k")


@cache
def published(name: str, dynamic: bool, opset: int = 20) -> onnx.ModelProto:
    """The FP32 graph of a published network."""
    from ffnet_deploy.export.onnx import build_graph
    from ffnet_deploy.segmentor.config import load_config
    from ffnet_deploy.segmentor.load import open_segmentor

    return build_graph(open_segmentor(load_config(name)), export_options(dynamic, opset))
