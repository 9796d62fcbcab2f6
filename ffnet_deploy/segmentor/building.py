"""From a config to a segmentor with initial weights."""

from typing import TYPE_CHECKING

from mmengine.registry import DefaultScope

import ffnet_deploy.models  # noqa: F401  registers the networks
from ffnet_deploy.core.errors import ConfigError
from ffnet_deploy.core.quiet import quiet
from ffnet_deploy.segmentor.config import SegmentorConfig

if TYPE_CHECKING:
    from mmseg.models import EncoderDecoder


def build_segmentor(config: SegmentorConfig) -> "EncoderDecoder":
    """The segmentor that `config` describes, with initial weights, in training mode.

    Raises:
        ConfigError: a part is unknown or its options are wrong.
    """
    from mmseg.registry import MODELS

    try:
        with quiet(), DefaultScope.overwrite_default_scope("mmseg"):
            return MODELS.build(config.cfg.model)
    except Exception as error:  # wrong options raise nearly anything; what they raise is told in the message
        told = str(error.args[0]) if error.args else ""
        reason = told.splitlines()[0] if told else type(error).__name__
        raise ConfigError(f"the model of config {config.path} cannot be built: {reason}") from error
