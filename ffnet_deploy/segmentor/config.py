"""From a name or a file to a config, and to the network it describes: packaged ones, MMSegmentation 1.x and 0.x files.

Configs are Python files, so reading one runs it.
"""

import difflib
import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffnet_deploy.core.contract import STRIDE, Normalization, TestProtocol
from ffnet_deploy.core.errors import ConfigError, OptionError, StorageError
from ffnet_deploy.core.files import full_disk_errors
from ffnet_deploy.core.label_sets import LabelSet, label_set, label_set_names, spread_palette
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.segmentor.overrides import apply_overrides
from ffnet_deploy.segmentor.published_config import read_with_stand_ins, upgrade

if TYPE_CHECKING:
    from mmseg.models import EncoderDecoder

CONFIG_FOLDER = Path(__file__).parents[1] / "configs"
_LABEL_SETS = {"ADE20KDataset": "ade20k", "CityscapesDataset": "cityscapes"}
_LABEL_SETS_BY_SIZE = {150: "ade20k", 19: "cityscapes"}


@dataclass(frozen=True)
class SegmentorConfig:
    """A segmentor's config and what the rest of the toolkit needs of it.

    Attributes:
        name: File name without suffix.
        path: Path of the file.
        cfg: The `mmengine.Config`, in MMSegmentation 1.x form.
        dataset: Name of the label set; ``"custom"`` when the config brings its own classes.
        labels: Class names and colours.
        normalization: Normalisation of the input image.
        protocol: How the network is scored.
        assumptions: What had to be assumed to read it, in words; empty for a complete config.
        sha256: SHA-256 of the resolved content.
    """

    name: str
    path: Path
    cfg: Any
    dataset: str
    labels: LabelSet
    normalization: Normalization
    protocol: TestProtocol
    assumptions: tuple[str, ...] = ()
    sha256: str = ""

    @property
    def num_classes(self) -> int:
        """Number of classes the decoder predicts."""
        return int(final_head(self.cfg).num_classes)

    @property
    def decoder(self) -> str:
        """Kind of the decoder, of the last one in a cascade."""
        return str(final_head(self.cfg).type)


def config_names() -> list[str]:
    """Names of the packaged configs."""
    return sorted(path.stem for path in CONFIG_FOLDER.glob("*.py") if path.stem != "__init__")


def find_config(name: str | PathLike[str]) -> Path:
    """Path of the config called `name`, or of the file `name`.

    Raises:
        ConfigError: there is neither; the nearest names are offered.
    """
    path = Path(name)
    if path.suffix == ".py" or path.is_file():
        if path.is_file():
            return path
        names = ", ".join(config_names())
        raise ConfigError(f"no config file {path}.\n  to do    check the path, or use a name: {names}")
    if str(name) in config_names():
        return CONFIG_FOLDER / f"{name}.py"
    near = difflib.get_close_matches(str(name), config_names(), n=3, cutoff=0.4) or config_names()
    raise ConfigError(
        f"no config is called {name!r}.\n  nearest  {', '.join(near)}\n"
        "  to do    use one of these, or the path of a .py file"
    )


def load_config(source: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> SegmentorConfig:
    """The config called `source`, or in the file `source`.

    Args:
        source: name or file.
        overrides: values to change, by keys with dots between their parts.

    Raises:
        ConfigError: it cannot be found or read, or describes no segmentor.
        OptionError: an override does not fit it.
    """
    path = find_config(source)
    cfg, assumptions = _read(path)
    assumptions += apply_overrides(cfg, overrides or {})
    try:
        return _described(path, cfg, assumptions)
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ConfigError(f"config {path} has a part of the wrong kind: {type(error).__name__}: {error}") from error


def final_head(cfg: Any) -> Any:
    """Settings of the decoder whose logits count: the last one of a cascade."""
    head = cfg.model.decode_head
    return head[-1] if cfg.model.get("type") == "CascadeEncoderDecoder" else head


def build_segmentor(config: SegmentorConfig) -> "EncoderDecoder":
    """The segmentor that `config` describes, with initial weights, in training mode.

    Raises:
        ConfigError: a part is unknown or its options are wrong.
        MissingPackageError: PyTorch or the MMSegmentation stack is not installed.
    """
    for package in ("torch", "mmengine", "mmseg"):
        optional(package, extra="convert", purpose="building a segmentor")
    from mmengine.registry import DefaultScope
    from mmseg.registry import MODELS

    import ffnet_deploy.models  # noqa: F401  registers the networks

    try:
        with quiet(), DefaultScope.overwrite_default_scope("mmseg"):
            return MODELS.build(config.cfg.model)
    except Exception as error:  # wrong options raise nearly anything; it is part of the message
        message = str(error.args[0]) if error.args else ""
        reason = message.splitlines()[0] if message else type(error).__name__
        raise ConfigError(f"the model of config {config.path} cannot be built: {reason}") from error


def _described(path: Path, cfg: Any, assumptions: list[str]) -> SegmentorConfig:
    assumptions += upgrade(cfg)
    if not isinstance(cfg.get("model"), Mapping) or "decode_head" not in cfg.model or "backbone" not in cfg.model:
        raise ConfigError(
            f"config {path} describes no segmentor: it has no model with a backbone and a decode_head.\n"
            f"  to do    pass a model config, for instance one of {', '.join(config_names())}"
        )
    dataset, labels = _labels(cfg, path)
    _check_decoder(final_head(cfg), path)
    if not cfg.model.get("data_preprocessor"):
        assumptions.append("the config says nothing of normalisation; ImageNet's mean and deviation are assumed")
    if not _test_pipeline(cfg):
        assumptions.append("the config has no test pipeline; images are scored within 2048x512, in multiples of 32")
    return SegmentorConfig(
        name=path.stem,
        path=path,
        cfg=cfg,
        dataset=dataset,
        labels=labels,
        normalization=_normalization(cfg, path),
        protocol=_protocol(cfg, path, assumptions),
        assumptions=tuple(assumptions),
        sha256=hashlib.sha256(json.dumps(cfg.to_dict(), sort_keys=True, default=str).encode()).hexdigest(),
    )


def _read(path: Path) -> tuple[Any, list[str]]:
    """The merged config and what was assumed about base files that are missing."""
    mmengine = optional("mmengine", extra="convert", purpose="reading a config")
    try:
        with full_disk_errors(Path(tempfile.gettempdir())):  # mmengine reads a copy
            return mmengine.Config.fromfile(path), []
    except StorageError:
        raise
    except (FileNotFoundError, RecursionError):  # a base file is missing, or is its own base
        return read_with_stand_ins(path, CONFIG_FOLDER)
    except (Exception, SystemExit) as error:  # a config is code: whatever it raises is the config's fault
        raise ConfigError(f"config {path} cannot be read: {type(error).__name__}: {error}") from error


def _labels(cfg: Any, path: Path) -> tuple[str, LabelSet]:
    classes, own = _class_count(cfg, path), _own_labels(cfg)
    names = [cfg.get("label_set") or _LABEL_SETS.get(str(cfg.get("dataset_type")))]
    names += [_LABEL_SETS_BY_SIZE.get(classes)] if own is None else []
    if own is not None and len(own.classes) != classes:
        raise ConfigError(f"config {path} names {len(own.classes)} classes in metainfo, but predicts {classes}")
    known = {name: label_set(name) for name in names if name in label_set_names()}
    for name, labels in known.items():
        if labels.classes == own.classes if own else len(labels.classes) == classes:
            return name, own or labels
    return "custom", own or _numbered_labels(classes)


def _class_count(cfg: Any, path: Path) -> int:
    head = final_head(cfg)
    classes = head.get("num_classes") if isinstance(head, Mapping) else None
    if not isinstance(classes, int) or classes < 1:
        raise ConfigError(f"config {path} does not say how many classes it predicts: model.decode_head.num_classes")
    return classes


def _check_decoder(head: Any, path: Path) -> None:
    """Raise `ConfigError` for decoders whose logits mean something else than those of the others."""
    if head.get("out_channels") not in (None, head.num_classes):
        raise ConfigError(
            f"config {path} tells {head.num_classes} classes apart by a threshold on {head.out_channels} channel, "
            "which is not supported.\n  to do    train with a channel for each class: out_channels=None"
        )
    if head.get("align_corners"):
        raise ConfigError(
            f"config {path} enlarges its logits with align_corners=True, which is not supported: label maps and scores "
            "would not be its own.\n  to do    train with align_corners=False"
        )


def _own_labels(cfg: Any) -> LabelSet | None:
    """Classes that the config spells out in `metainfo`."""
    metainfo = cfg.get("metainfo")
    if not metainfo or "classes" not in metainfo:
        return None
    classes = tuple(metainfo["classes"])
    palette = metainfo.get("palette") or _numbered_labels(len(classes)).palette
    if len(palette) != len(classes):
        raise ConfigError(f"metainfo of the config names {len(classes)} classes, but {len(palette)} colours")
    if any(len(colour) != 3 for colour in palette):
        raise ConfigError("a colour in the config's metainfo is not of three values (red, green, blue)")
    return LabelSet(classes, tuple((int(r), int(g), int(b)) for r, g, b in palette))


def _numbered_labels(count: int) -> LabelSet:
    """Names and colours for classes that nobody named."""
    return LabelSet(tuple(f"class_{i}" for i in range(count)), spread_palette(count))


def _normalization(cfg: Any, path: Path) -> Normalization:
    source = cfg.model.get("data_preprocessor") or {}
    if source and not source.get("bgr_to_rgb", False):
        raise ConfigError(f"config {path} trains on BGR images; FFNet segmentors take RGB (bgr_to_rgb=True)")
    if not source.get("mean"):
        return Normalization()
    if not source.get("std"):
        raise ConfigError(f"config {path} gives a mean to subtract, but no std to divide by")
    return Normalization(tuple(source["mean"]), tuple(source["std"]))


def _test_pipeline(cfg: Any) -> list[Any]:
    loader = cfg.get("test_dataloader") or {}
    return list(cfg.get("test_pipeline") or loader.get("dataset", {}).get("pipeline") or [])


def _protocol(cfg: Any, path: Path, assumptions: list[str]) -> TestProtocol:
    steps = {step.get("type"): step for step in _test_pipeline(cfg)}
    resize = steps.get("Resize", {})
    test_cfg = cfg.model.get("test_cfg") or {}
    scale = resize.get("scale", (2048, 512))
    mode = test_cfg.get("mode", "whole")
    divisor = steps.get("ResizeToMultiple", {}).get("size_divisor", 1 if resize else STRIDE)
    if mode == "whole" and isinstance(divisor, int) and divisor % STRIDE:
        assumptions.append(f"the network is shown whole images of any size; they are enlarged to multiples of {STRIDE}")
        divisor = math.lcm(divisor, STRIDE)
    try:
        return TestProtocol(
            scale=(max(scale), min(scale)) if resize.get("keep_ratio", True) else tuple(scale),
            keep_ratio=resize.get("keep_ratio", True),
            divisor=divisor,
            mode=mode,
            crop=_pair(test_cfg.get("crop_size")),
            stride=_pair(test_cfg.get("stride")),
        )
    except (OptionError, TypeError, ValueError) as error:
        raise ConfigError(f"config {path} has a test protocol that cannot be used: {error}") from error


def _pair(value: Any) -> tuple[int, int] | None:
    return None if value is None else (int(value[0]), int(value[1]))
