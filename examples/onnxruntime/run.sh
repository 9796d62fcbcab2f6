#!/usr/bin/env bash
# ONNX Runtime alone: a script that ffnet-export writes beside a graph, and that needs nothing of this toolkit.
# Its label map is compared with that of ffnet-predict's engine: not one pixel may differ.
set -euo pipefail
work=${1:?usage: run.sh FOLDER}
image=$(ls "$work"/scenes/images/val/*.png | head -1)
rm -rf "$work/onnxruntime"

ffnet-export --config ffnet_seg_nano_scenes --shape 288x576 --data "$work/scenes" --out "$work/onnxruntime" --sample
ls "$work/onnxruntime"
python "$work"/onnxruntime/*.py "$image" "$work/onnxruntime/labels.png"
python - "$work/onnxruntime/ffnet_seg_nano_scenes.onnx" "$image" "$work/onnxruntime/labels.png" <<'PYTHON'
import sys

import cv2

import ffnet_deploy

graph, image, labels = sys.argv[1:]
with ffnet_deploy.open_engine(graph) as engine:
    different = (engine.predict(cv2.imread(image)) != cv2.imread(labels, cv2.IMREAD_UNCHANGED)).sum()
print(f"{different} pixels differ")
sys.exit(int(different > 0))
PYTHON
