#!/usr/bin/env bash
# Fine-tune a network on images of one's own, from the first look at the data to an INT8 graph and its report.
# The data here are generated scenes; put the folder of yours in their place.
set -euo pipefail
work=${1:?usage: run.sh FOLDER [DATA]}
data=${2:-$work/scenes}
runs=$work/own-data
rm -rf "$runs"

# what is understood of the data: layout, classes, shares of pixels, and a picture of eight samples with their labels
ffnet-train --config ffnet_seg_nano_scenes --data "$data" --load bundled --name mine --work-dir "$runs/mine" --dry-run

# train; no --iterations: as many as suit the number of images
ffnet-train --config ffnet_seg_nano_scenes --data "$data" --load bundled --name mine --work-dir "$runs/mine" --iterations 20
best=$(ls "$runs"/mine/best_*.pth)

# export, each step compared with PyTorch on images of the data
ffnet-export --config "$runs/mine/mine.py" --checkpoint "$best" --data "$data" --int8 --target cpu \
    --calib-images "$data/images/train" --out "$runs/export"

# score both graphs beside PyTorch, on one page
ffnet-eval --config "$runs/mine/mine.py" --checkpoint "$best" --data "$data" \
    --against "$runs/export/mine.onnx" --against "$runs/export/mine.int8-cpu.onnx" --html "$runs/report.html"
