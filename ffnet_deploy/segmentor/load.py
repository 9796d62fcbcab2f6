"""From a config and a checkpoint to a segmentor ready for inference."""

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

from ffnet_deploy.core.contract import Contract, weight_notes
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.segmentor.checkpoint import Checkpoint, read_checkpoint
from ffnet_deploy.segmentor.config import SegmentorConfig, build_segmentor, load_config
from ffnet_deploy.segmentor.weights import LoadReport, load_weights
from ffnet_deploy.segmentor.zoo import resolve_checkpoint

if TYPE_CHECKING:
    from mmseg.models import EncoderDecoder


@dataclass(frozen=True)
class Segmentor:
    """A segmentor with what it was made from.

    Attributes:
        config: The config that it was built from.
        model: Mmseg `EncoderDecoder` in evaluation mode, on the CPU.
        checkpoint: Where its weights come from; None: they are random.
        report: What became of the checkpoint's tensors.
    """

    config: SegmentorConfig
    model: "EncoderDecoder"
    checkpoint: Checkpoint | None = None
    report: LoadReport | None = None

    @property
    def sources(self) -> dict[str, str]:
        """SHA-256 of the config and, where there is one, of the checkpoint."""
        hashes = {"config": self.config.sha256}
        return hashes | ({"checkpoint": self.checkpoint.sha256} if self.checkpoint else {})

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed of the config and left out of the checkpoint, in words."""
        weights = self.report.notes() if self.report else weight_notes(self.sources)
        read = self.checkpoint.notes if self.checkpoint else ()
        return (*self.config.assumptions, *read, *weights)

    def contract(self, **choices: Any) -> Contract:
        """What an artefact of this segmentor takes and gives; `choices` are further fields of `Contract`."""
        return Contract(
            network=self.config.name,
            dataset=self.config.dataset,
            classes=self.config.labels.classes,
            palette=self.config.labels.palette,
            normalization=self.config.normalization,
            protocol=self.config.protocol,
            sources=self.sources,
            **choices,
        )


def open_segmentor(
    config: str | PathLike[str] | SegmentorConfig,
    checkpoint: str | PathLike[str] | None = None,
    progress: Progress = no_progress,
    refresh: bool = False,
) -> Segmentor:
    """The segmentor of `config` with the weights of `checkpoint`, and how they were found.

    Args:
        config: name, file, or a config already read.
        checkpoint: file, ``"published"``, ``"bundled"``, or None for random weights.
        progress: called with the bytes of a download.
        refresh: download a published checkpoint anew, whatever the cache holds.

    Raises:
        ConfigError: the config cannot be found, read or built.
        CheckpointError: the checkpoint cannot be found, read or fitted.
    """
    settings = config if isinstance(config, SegmentorConfig) else load_config(config)
    torch = optional("torch", extra="convert", purpose="loading a segmentor")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same each time
        model = build_segmentor(settings).eval()
    if checkpoint is None:
        return Segmentor(settings, model)
    weights = read_checkpoint(resolve_checkpoint(checkpoint, settings.name, progress, refresh))
    return Segmentor(settings, model, weights, load_weights(model, weights, settings))


def load_segmentor(config: str | PathLike[str] | SegmentorConfig, checkpoint: str | PathLike[str] | None = None) -> Any:
    """The segmentor of `config` in evaluation mode: an mmseg `EncoderDecoder`.

    ``model(x)`` gives the logits (batch, classes, H / s, W / s) of normalised RGB images
    `x` (batch, 3, H, W); H and W are multiples of 32.

    Args:
        config: name of a packaged config, or a config file of MMSegmentation 1.x or 0.x.
        checkpoint: file, ``"published"``, ``"bundled"``, or None for random weights.

    Raises:
        ConfigError: the config cannot be found, read or built.
        CheckpointError: the checkpoint cannot be found, read or fitted.
    """
    return open_segmentor(config, checkpoint).model
