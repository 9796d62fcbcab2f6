"""From the names of layers, which every runtime makes of the graph's, to the parts of FFNet they belong to."""

import re

_STAGE = re.compile(r"stages\.(\d+)")
_NORM = re.compile(r"backbone[./]norm(\d)")
_HEAD_ORDER = ("head", "head token mixer", "head channel mixer", "upsample", "output")
_STAGE_ORDER = ("down-sampling", "token mixer", "channel mixer", "norm")


def block_of(name: str) -> str:
    """The part of the network that the layer `name` belongs to.

    Layers are named after the modules they came from: ``/backbone/stages.0/stages.0.1/token_mixer/.../Conv`` in ONNX
    files and what is made of them, ``backbone.stages.0.1.token_mixer...`` in PyTorch. Of a fused layer with several
    names the first counts. What no module made (copies, changes of layout) is ``"other"``.
    """
    if "patch_embed" in name:
        return "stem"
    stage = _STAGE.search(name)
    if stage is not None:
        return f"stage {int(stage[1]) + 1} {_mixer(name[stage.end() :]) or 'down-sampling'}"
    norm = _NORM.search(name)
    if norm is not None:
        return f"stage {int(norm[1]) + 1} norm"
    if "decode_head" in name or name.startswith(("logits", "conv_seg")):
        return _head_block(name)
    if "finish" in name:
        return "upsample" if "Resize" in name else "output"
    return "input" if "normalize" in name else "other"


def _mixer(path: str) -> str | None:
    found = re.search(r"token_mixer|channel_mixer", path)
    return found[0].replace("_", " ") if found else None


def _head_block(name: str) -> str:
    if "upsampler" in name or "Resize" in name:
        return "upsample"
    mixer = _mixer(name)
    return f"head {mixer}" if mixer else "head"


def block_order(block: str) -> tuple[int, int]:
    """Sorts blocks as the data goes through them."""
    if block in ("input", "stem"):
        return (0, block == "stem")
    stage = re.match(r"stage (\d+) (.+)", block)
    if stage is not None:
        return (int(stage[1]), _STAGE_ORDER.index(stage[2]))
    return (100, _HEAD_ORDER.index(block)) if block in _HEAD_ORDER else (101, 0)
