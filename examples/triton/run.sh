#!/usr/bin/env bash
# Write a model repository, serve it, and ask for the labels of an image.
# TRITON_URL names a running Triton Inference Server of that repository; without one a stand-in answers.
set -euo pipefail
work=${1:?usage: run.sh FOLDER}
image=$(ls "$work"/scenes/images/val/*.png | head -1)
rm -rf "$work/triton"

ffnet-export --config ffnet_seg_nano_scenes --shape 288x576 --input bgr --output labels --data "$work/scenes" \
    --out "$work/triton/export" --triton "$work/triton/repository"
if [ -z "${TRITON_URL:-}" ]; then
    TRITON_URL=localhost:8766
    python stand_in.py "$work/triton/repository" 8766 &
    server=$!
    trap 'kill $server' EXIT
    for _ in $(seq 60); do
        (: < /dev/tcp/localhost/8766) 2> /dev/null && break
        sleep 1
    done
fi
python client.py "$image" "$work/triton.png" --url "$TRITON_URL"
echo "labels: $work/triton.png"
