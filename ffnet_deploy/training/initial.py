"""Weights to start from: a segmentor's or a backbone's, whatever fits."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.segmentor.checkpoint import Checkpoint
from ffnet_deploy.segmentor.weights import BACKBONE, CLASSIFIER_PREFIXES, SEGMENTOR_PREFIXES, grouped, shapes_of


@dataclass(frozen=True)
class InitialWeights:
    """What a checkpoint gives a network to start from.

    Attributes:
        tensors: that fit, by their names in the network.
        reshaped: names in the network whose tensors have another shape in the checkpoint.
        missing: names in the network that the checkpoint lacks.
        ignored: names in the checkpoint that the network lacks.
    """

    tensors: Mapping[str, Tensor]
    reshaped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What became of the tensors, a line a group."""
        fresh = [("starts anew, other shape", self.reshaped), ("starts anew, not in the checkpoint", self.missing)]
        lines = [f"loaded {len(self.tensors)} tensors"]
        for what, names in [*fresh, ("not needed", self.ignored)]:
            lines += [f"{what}: {group}" for group in grouped(names)]
        return lines


def fit_weights(model: nn.Module, checkpoint: Checkpoint) -> InitialWeights:
    """Find for each tensor of the segmentor `model` its counterpart in `checkpoint`.

    Bare keys, as of ImageNet classifiers, are taken as a backbone's; their classifier is left out.

    Raises:
        CheckpointError: less than half of the backbone fits.
    """
    found = with_prefix(checkpoint.tensors)
    wanted, shapes = shapes_of(model.state_dict()), shapes_of(found)
    fitting = {name: found[name] for name in model.state_dict() if name in found and _fits(name, wanted, shapes)}
    weights = InitialWeights(
        fitting,
        tuple(name for name in wanted if name in shapes and shapes[name] != wanted[name]),
        tuple(name for name in wanted if name not in shapes),
        tuple(name for name in shapes if name not in wanted),
    )
    _check_backbone(weights, wanted, checkpoint)
    return weights


def _fits(name: str, wanted: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    return wanted.get(name) == shapes.get(name)


def with_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` under a segmentor's names; those of a classifier head are gone."""
    if any(name.startswith(SEGMENTOR_PREFIXES) for name in tensors):
        return dict(tensors)
    return {BACKBONE + name: value for name, value in tensors.items() if not name.startswith(CLASSIFIER_PREFIXES)}


def _check_backbone(weights: InitialWeights, wanted: Mapping[str, tuple[int, ...]], checkpoint: Checkpoint) -> None:
    needed = [name for name in wanted if name.startswith(BACKBONE)]
    fitting = [name for name in needed if name in weights.tensors]
    if 2 * len(fitting) < len(needed):
        odd = next(name for name in needed if name not in weights.tensors)
        raise CheckpointError(
            f"checkpoint {checkpoint.path} does not fit: {len(fitting)} of {len(needed)} backbone tensors have the "
            f"name and shape of this network, first that has not: {odd}.\n"
            "  to do    use a checkpoint of the same backbone"
        )
