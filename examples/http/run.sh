#!/usr/bin/env bash
# Start the service, send it an image, and end it.
set -euo pipefail
work=${1:?usage: run.sh FOLDER}
image=$(ls "$work"/scenes/images/val/*.png | head -1)

MODEL=$work/export/ffnet_seg_nano_scenes.onnx uvicorn server:app --port 8765 --log-level warning &
service=$!
trap 'kill $service; wait $service || true' EXIT
curl --silent --show-error --fail --retry 30 --retry-delay 1 --retry-connrefused localhost:8765/health
curl --silent --show-error --fail --data-binary "@$image" localhost:8765/labels --output "$work/http.png"
echo " -> $work/http.png"
curl --silent --data-binary "not an image" localhost:8765/labels
echo
