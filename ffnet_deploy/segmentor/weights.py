"""Putting a checkpoint's tensors into a segmentor, and saying plainly where they do not fit."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.core.optional import optional
from ffnet_deploy.segmentor.checkpoint import Checkpoint
from ffnet_deploy.segmentor.config import SegmentorConfig, build_segmentor, config_names, load_config

if TYPE_CHECKING:
    from torch import Tensor, nn

AUXILIARY = "auxiliary_head."
CLASSIFIER_PREFIXES = ("norm.", "head.", "head1.", "head2.")
"""Keys of ImageNet classifiers, which segmentors have no use for."""
BACKBONE = "backbone."
SEGMENTOR_PREFIXES = (BACKBONE, "decode_head.", AUXILIARY)
"""Keys of a segmentor; a checkpoint without any of them is a bare backbone or classifier."""

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a checkpoint.

    Attributes:
        loaded: Number of tensors put into the network.
        ignored: Names in the checkpoint that the network does not need.
        untouched: Names in the network that kept their initial values; only the auxiliary head's may.
    """

    loaded: int
    ignored: tuple[str, ...] = ()
    untouched: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """The report in words, a line a group; empty when every tensor found its place."""
        lines = [f"not needed: {group}" for group in grouped(self.ignored)]
        return lines + [f"not in the checkpoint, only used in training: {group}" for group in grouped(self.untouched)]


def shapes_of(tensors: "Mapping[str, Tensor]") -> dict[str, tuple[int, ...]]:
    """Shape of each tensor by name; batch counters, which no network needs, are left out."""
    return {name: tuple(value.shape) for name, value in tensors.items() if not name.endswith("num_batches_tracked")}


def load_weights(model: "nn.Module", checkpoint: Checkpoint, config: SegmentorConfig) -> LoadReport:
    """Copy `checkpoint` into the segmentor `model`, built from `config`.

    Raises:
        CheckpointError: a tensor that inference needs is missing or has another shape, or the checkpoint holds
            tensors of another network; the message groups them and names the config that fits.
    """
    own = model.state_dict()  # asked for once: it walks through all modules
    wanted, found = shapes_of(own), shapes_of(checkpoint.tensors)
    _refuse_bare_backbone(checkpoint, found, config, len(wanted))
    ignored = [name for name in found if name not in wanted and _is_dispensable(name)]
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted and not _is_dispensable(name)]
    reshaped = [name for name in wanted if name in found and wanted[name] != found[name]]
    fatal = [name for name in missing if not name.startswith(AUXILIARY)] + unexpected
    if fatal or any(not name.startswith(AUXILIARY) for name in reshaped):
        raise CheckpointError(_misfit(checkpoint, config, wanted, found, missing, unexpected, reshaped))
    fitting = {
        name: value for name, value in checkpoint.tensors.items() if name in own and own[name].shape == value.shape
    }
    model.load_state_dict(fitting, strict=False)
    return LoadReport(len(fitting), tuple(ignored), tuple(missing + reshaped))


def _is_dispensable(name: str) -> bool:
    bare = name.removeprefix("backbone.")
    return name.startswith(AUXILIARY) or bare.startswith(CLASSIFIER_PREFIXES)


def _refuse_bare_backbone(checkpoint: Checkpoint, found: Shapes, config: SegmentorConfig, wanted: int) -> None:
    if any(name.startswith(SEGMENTOR_PREFIXES) for name in found):
        return
    raise CheckpointError(
        f"checkpoint {checkpoint.path} holds no segmentor: {len(found)} tensors without the prefixes backbone. and "
        f"decode_head., as of an ImageNet classifier.\n"
        f"  config   {config.name} needs backbone.* and decode_head.* ({wanted} tensors)\n"
        f"  to do    start a fine-tuning from it:  ffnet-train --config {config.name} --load {checkpoint.path}"
    )


def _misfit(
    checkpoint: Checkpoint,
    config: SegmentorConfig,
    wanted: Shapes,
    found: Shapes,
    missing: list[str],
    unexpected: list[str],
    reshaped: list[str],
) -> str:
    lines = [f"checkpoint {checkpoint.path} does not fit config {config.name}."]
    classifier = "decode_head.conv_seg.weight"
    if classifier in reshaped:
        lines.append(f"  classes  the checkpoint predicts {found[classifier][0]}, the config {wanted[classifier][0]}")
    for title, names in (("missing", missing), ("unknown", unexpected), ("shapes", reshaped)):
        lines += [f"  {title:<8} {group}" for group in grouped(names, limit=4)]
    fits = fitting_configs(found)
    lines.append(f"  to do    {f'use --config {fits[0]}' if fits else 'use the config it was trained with'}")
    return "\n".join(lines)


def grouped(names: Iterable[str], limit: int = 8) -> list[str]:
    """`names` counted by module, as lines such as ``backbone.stages.2 (310 tensors, first ...)``."""
    listed = list(names)
    counts = Counter(_group(name) for name in listed)
    lines = []
    for group, count in list(counts.items())[:limit]:
        first = next(name for name in listed if _group(name) == group)
        lines.append(f"{group} ({count} tensors, first {first})" if count > 1 else first)
    return lines + ([f"and {len(counts) - limit} more groups"] if len(counts) > limit else [])


def _group(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:3] if parts[1:2] == ["stages"] else parts[:2])


def fitting_configs(found: Shapes) -> list[str]:
    """Names of the packaged configs whose backbone and decoder have exactly the shapes `found`."""
    essential = {name: shape for name, shape in found.items() if not _is_dispensable(name)}
    torch = optional("torch", extra="convert", purpose="comparing a checkpoint with the packaged configs")
    fits = []
    for name in config_names():
        with torch.device("meta"):
            shapes = shapes_of(build_segmentor(load_config(name)).state_dict())
        if {key: shape for key, shape in shapes.items() if not key.startswith(AUXILIARY)} == essential:
            fits.append(name)
    return fits
