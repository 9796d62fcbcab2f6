"""From an FP32 ONNX graph to a quantised one: ranges measured on images, Q/DQ nodes where TensorRT wants them."""

from ffnet_deploy.calib.images import CalibrationImages, choose_images
from ffnet_deploy.calib.options import CalibrationOptions, Calibrator, Method
from ffnet_deploy.calib.quantize import Quantized, apply, calibrate, check_quantizable, quantize_graph
from ffnet_deploy.calib.ranges import Calibration, CalibrationKey, key_of, read_calibration, write_calibration

__all__ = [
    "Calibration",
    "CalibrationImages",
    "CalibrationKey",
    "CalibrationOptions",
    "Calibrator",
    "Method",
    "Quantized",
    "apply",
    "calibrate",
    "check_quantizable",
    "choose_images",
    "key_of",
    "quantize_graph",
    "read_calibration",
    "write_calibration",
]
