#!/usr/bin/env bash
# Build the program, and compare its label map with that of Python: not one pixel may differ.
set -euo pipefail
work=${1:?usage: run.sh FOLDER}
graph=$work/export/ffnet_seg_nano_scenes.onnx
image=$(ls "$work"/scenes/images/val/*.png | head -1)

if ! cmake -S . -B "$work/cpp" -D CMAKE_BUILD_TYPE=Release -D ONNXRUNTIME_ROOT="${ONNXRUNTIME_ROOT:-}" > "$work/cpp.log" 2>&1; then
    echo "skipped: $(grep -m 1 -E 'Could not find|Could NOT find|not found' "$work/cpp.log" || tail -1 "$work/cpp.log")"
    echo "  to do    install what CMakeLists.txt names, or set ONNXRUNTIME_ROOT"
    exit 0
fi
cmake --build "$work/cpp"
python - "$graph" "$image" "$work/expected.png" <<'PYTHON'
import sys

import cv2

import ffnet_deploy

graph, image, labels = sys.argv[1:]
with ffnet_deploy.open_engine(graph) as engine:
    cv2.imwrite(labels, engine.predict(cv2.imread(image)))
PYTHON
"$work/cpp/labels" "$graph" --self-test "$image" "$work/expected.png"
