#!/usr/bin/env bash
# Execute the notebook from its first cell to its last.
set -euo pipefail
work=${1:?usage: run.sh FOLDER}
GRAPH=$work/export/ffnet_seg_nano_scenes.onnx IMAGES=$work/scenes/images/val \
    jupyter nbconvert --to notebook --execute first_look.ipynb --output-dir "$work" --output first_look.executed.ipynb
