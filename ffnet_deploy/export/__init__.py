"""From a segmentor to a verified ONNX graph."""
