"""From a segmentor to a verified ONNX graph, to one of lower precision, and to an engine.

Nothing is imported here: an engine is built from an exported graph without PyTorch.
"""
