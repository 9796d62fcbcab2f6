"""What a training run is asked to do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ffnet_deploy.core.errors import OptionError


class AmpType(str, Enum):
    """Number format of the forward pass under automatic mixed precision."""

    FP16 = "fp16"
    BF16 = "bf16"


class ClassWeights(str, Enum):
    """How classes are weighed in the loss."""

    AUTO = "auto"


class Logger(str, Enum):
    """Where scalars and sample pictures of a run are recorded, besides its folder."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


@dataclass(frozen=True)
class TrainOptions:
    """A training run."""

    config: str
    """Config name, or a config file (a Python file: it is run)."""
    data: Path | None = None
    """Data set: its folder, a YOLO .yaml or a COCO .json. The layout is recognised. By default the config's own."""
    load: str | None = None
    """Weights to start from: a file, 'pretrained' (ImageNet), 'published' or 'bundled'."""
    iterations: int | None = None
    """Number of training steps; the schedule is stretched or shortened to it."""
    batch: int | None = None
    """Images per process and step."""
    work_dir: Path | None = None
    """Folder of the checkpoints and logs. By default work_dirs/CONFIG."""
    name: str | None = None
    """Name of the trained network: of its work folder, config and exports. By default the config's."""
    classes: Path | None = None
    """Classes of your own data: 'name r g b' on each line of a file. By default the list that lies with the data."""
    images_dir: str | None = None
    """Folder of the images below --data, where it is not recognised."""
    masks_dir: str | None = None
    """Folder of the masks below --data, where it is not recognised."""
    mask_suffix: str | None = None
    """What the name of a mask adds to the name of its image, for instance _mask."""
    workers: int | None = None
    """Processes that load images, per training process."""
    resume: bool = False
    """Continue from the newest intact checkpoint of the work folder."""
    accumulate: int = 1
    """Number of steps whose gradients are summed before the weights change."""
    effective_batch: int | None = None
    """Images that change the weights once: gradients of several steps are summed until there are so many."""
    class_weights: ClassWeights | None = None
    """Weigh classes in the loss by the inverse of their share of the training pixels, capped at 10."""
    patience: int | None = None
    """End the run when N validations in a row have not raised the best mIoU."""
    ema: bool = False
    """Validate and save an exponential moving average of the weights."""
    amp: AmpType | None = None
    """Train with automatic mixed precision. bf16 also works on CPUs."""
    seed: int | None = None
    """Seed of weights, crops and order. By default a random one."""
    compile: bool = False
    """Compile the backbone with torch.compile."""
    save_memory: bool = False
    """Recompute activations in the backward pass instead of keeping them (activation checkpointing)."""
    loggers: tuple[Logger, ...] = ()
    """Record the run there too; may be repeated. By default tensorboard, where it is installed."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Config keys with dots, and their new values."""

    def __post_init__(self) -> None:
        least = {"workers": 0, "seed": 0}
        for name in ("iterations", "batch", "workers", "accumulate", "effective_batch", "seed", "patience"):
            value = getattr(self, name)
            if value is not None and value < least.get(name, 1):
                option = f"--{name.replace('_', '-')}"
                raise OptionError(f"{option} takes a number from {least.get(name, 1)}: got {value}")
        if self.effective_batch is not None and self.accumulate > 1:
            raise OptionError("--effective-batch says how many steps are accumulated: leave out --accumulate")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", self.name):
            raise OptionError(
                f"--name takes letters, digits, _, - and dots, as files are named after it: got {self.name!r}"
            )
        if self.resume and self.load:
            raise OptionError("--resume goes on with its own weights: leave out --load, or start anew without --resume")
        for name in ("classes", "images_dir", "masks_dir", "mask_suffix"):
            if getattr(self, name) is not None and self.data is None:
                raise OptionError(
                    f"--{name.replace('_', '-')} describes your own data: say where it is with --data ROOT"
                )
        if (self.images_dir is None) != (self.masks_dir is None):
            raise OptionError("--images-dir and --masks-dir go together: name both")

    @property
    def folder(self) -> Path:
        """Where checkpoints, logs and the whole config go: `work_dir`, or a folder named after the network."""
        return self.work_dir or Path("work_dirs") / (self.name or Path(self.config).stem)
