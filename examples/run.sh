#!/usr/bin/env bash
# Run every example, or those named, in a scratch folder: examples/run.sh FOLDER [NAME ...]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:?usage: examples/run.sh FOLDER [NAME ...]}
shift
mkdir -p "$work"
work=$(cd "$work" && pwd)

# what they share: eight generated street scenes, and the small network as a graph that takes images as OpenCV decodes them
cd "$here/.."
[ -d "$work/scenes" ] || python -m scenes "$work/scenes" --train 40 --val 8 --size 256x512 --seed 1000
[ -f "$work/export/ffnet_seg_nano_scenes.onnx" ] ||
    ffnet-export --config ffnet_seg_nano_scenes --shape 288x576 --input bgr --data "$work/scenes" --out "$work/export"

for name in "${@:-onnxruntime cpp http triton notebook own-data}"; do
    for example in $name; do
        echo "== $example"
        (cd "$here/$example" && ./run.sh "$work")
    done
done
