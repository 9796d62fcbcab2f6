"""From a segmentor to a verified ONNX graph."""

import ffnet_deploy.models  # noqa: F401  first of all: it imports the MMSegmentation stack without its notices
