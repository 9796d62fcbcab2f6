"""Reading config files of the MMSegmentation 0.x era as they were published, with or without their base files."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ffnet_deploy.core.errors import ConfigError
from ffnet_deploy.core.optional import optional

BACKBONE_ALIASES = {"ffnet_seg_3": "ffnet_seg"}
"""Names in published configs that no published code defines; parameters and MACs prove what they mean."""

_STAND_INS = (
    ("upernet", "models/upernet.py"),
    ("ffnet", "models/ffnet_seg.py"),
    ("ade20k", "datasets/ade20k.py"),
    ("cityscapes", "datasets/cityscapes.py"),
)
_TRAINING_BASES = ("schedule", "default_runtime")


def read_with_stand_ins(path: Path, config_folder: Path) -> tuple[Any, list[str]]:
    """A config whose base files are partly missing: the packaged equivalents stand in for them.

    Returns:
        The merged `mmengine.Config` and, in words, what stood in for what.

    Raises:
        ConfigError: a file cannot be run, or a missing base has no equivalent.
    """
    mmengine = optional("mmengine", extra="convert", purpose="reading a config")
    assumptions: list[str] = []
    merged = _read_merged(path, config_folder / "_base_", assumptions, ())
    return mmengine.Config(merged), assumptions


def _read_merged(path: Path, stand_ins: Path, assumptions: list[str], seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise ConfigError(f"config {path} is its own base")
    own = _run(path)
    bases = own.pop("_base_", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        base_path = _resolve(path, base, stand_ins, assumptions)
        if base_path is not None:
            merged = merge(merged, _read_merged(base_path, stand_ins, assumptions, (*seen, path.resolve())))
    return merge(merged, own)


def _run(path: Path) -> dict[str, Any]:
    try:
        names = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:  # a config is code: whatever it raises is the config's fault
        raise ConfigError(f"config {path} cannot be read: {type(error).__name__}: {error}") from error
    return {
        name: value
        for name, value in names.items()
        if not (name.startswith("__") or isinstance(value, ModuleType) or callable(value))
    }


def _resolve(path: Path, base: str, stand_ins: Path, assumptions: list[str]) -> Path | None:
    """The base file itself, its packaged equivalent, or None for bases that only matter in training."""
    found = path.parent / base
    if found.is_file():
        return found
    name = Path(base).stem
    if any(name.startswith(prefix) for prefix in _TRAINING_BASES):
        assumptions.append(f"base file {base} is missing; it only matters in training and is left out")
        return None
    for prefix, file in _STAND_INS:
        if name.startswith(prefix):
            assumptions.append(f"base file {base} is missing; the packaged {Path(file).stem} settings stand in for it")
            return stand_ins / file
    raise ConfigError(f"config {path} needs the base file {base}, which is missing.\n  to do    put it at {found}")


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, dict by dict; ``_delete_=True`` in a dict replaces instead of merging."""
    merged = dict(base)
    for key, value in changes.items():
        if not isinstance(value, Mapping):
            merged[key] = value
            continue
        fresh = {name: item for name, item in value.items() if name != "_delete_"}
        below = merged.get(key)
        keep = isinstance(below, Mapping) and not value.get("_delete_", False)
        merged[key] = merge(below if keep and below is not None else {}, fresh)
    return merged


def upgrade(cfg: Any) -> list[str]:
    """Bring a config to the 1.x form in place; what was assumed on the way, in words. A 1.x config stays as it is."""
    assumptions: list[str] = []
    model = cfg.get("model")
    if not isinstance(model, dict):
        return assumptions
    _upgrade_model(model, assumptions)
    if "img_norm_cfg" in cfg:
        model["data_preprocessor"] = _preprocessor(cfg["img_norm_cfg"])
    data = cfg.get("data") or {}
    pipeline = cfg.get("test_pipeline") or (data.get("test") or data.get("val") or {}).get("pipeline") or []
    if any(step.get("type") == "MultiScaleFlipAug" for step in pipeline):
        cfg["test_pipeline"] = _upgrade_pipeline(pipeline)
    return assumptions


def _upgrade_model(model: Any, assumptions: list[str]) -> None:
    model.pop("pretrained", None)
    backbone = model.get("backbone")
    if isinstance(backbone, dict):
        backbone.pop("init_cfg", None)
        alias = BACKBONE_ALIASES.get(str(backbone.get("type")))
        if alias:
            assumptions.append(f"backbone {backbone['type']} is taken as {alias}: no published code defines the former")
            model["backbone"] = {**backbone, "type": alias}
    _plain_batch_norm(model)


def _plain_batch_norm(node: Any) -> None:
    """Replace SyncBN, which needs a process group, by BN; training synchronises it again where it can."""
    if isinstance(node, dict):
        if node.get("type") == "SyncBN":
            node["type"] = "BN"
        for value in node.values():
            _plain_batch_norm(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _plain_batch_norm(value)


def _preprocessor(norm: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "SegDataPreProcessor",
        "mean": list(norm["mean"]),
        "std": list(norm["std"]),
        "bgr_to_rgb": norm.get("to_rgb", True),
        "pad_val": 0,
        "seg_pad_val": 255,
    }


def _upgrade_pipeline(pipeline: list[Any]) -> list[dict[str, Any]]:
    """A 0.x test pipeline as 1.x steps: loading, resizing, labels, packing."""
    augment = next(step for step in pipeline if step.get("type") == "MultiScaleFlipAug")
    steps: list[dict[str, Any]] = [{"type": "LoadImageFromFile"}]
    for step in augment["transforms"]:
        if step["type"] in ("Resize", "AlignResize"):
            keep = step.get("keep_ratio", True)
            steps.append({"type": "Resize", "scale": tuple(augment["img_scale"]), "keep_ratio": keep})
        if step["type"] in ("ResizeToMultiple", "AlignResize"):
            steps.append({"type": "ResizeToMultiple", "size_divisor": step.get("size_divisor", 32)})
    return [*steps, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}]
