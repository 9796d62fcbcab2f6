"""TensorRT and TensorRT for RTX: from a typed ONNX graph to an engine, its precision check and its runner."""
