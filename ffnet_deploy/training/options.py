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
    """A training run.

    Attributes:
        config: Name of a config, or a file.
        work_dir: Where checkpoints, logs and the whole config go.
        data: Folder or file of the data set; None: the config's own.
        classes: File with `name r g b` a line; None: the one that lies with the data, or the config's classes.
        images_dir: Folder of the images below `data`; None: recognised.
        masks_dir: Folder of the masks below `data`; None: recognised.
        mask_suffix: What the name of a mask adds to the name of its image; None: recognised.
        load: Weights to start from: a file, ``"published"``, ``"bundled"`` or ``"pretrained"``.
        resume: Whether to continue from the newest intact checkpoint in `work_dir`.
        iterations: Number of iterations in place of the config's; the schedule is stretched or shortened to it.
        batch: Images per process and step, in place of the config's number.
        workers: Number of processes that load images, per training process.
        accumulate: Number of steps whose gradients are summed before the weights change.
        effective_batch: Images, of all processes and accumulated steps, that change the weights once; None: as `batch`
            and `accumulate` say.
        amp: Automatic mixed precision; None: float32. CPUs compute bfloat16 alone.
        seed: Seed of weights, crops and order; None: by chance.
        compile: Whether the backbone is compiled with torch.compile.
        save_memory: Whether activations are computed again in the backward pass in place of keeping them.
        overrides: Config keys with dots, and their new values.
        name: Name of the network, its config and its exports; None: that of the config.
        class_weights: Weights of the classes in the loss, from their shares of the training pixels; None: the config's.
        patience: Number of validations without a better mIoU after which the run ends; None: it goes on to its last
            iteration.
        ema: Whether an exponential moving average of the weights is validated and saved.
        loggers: Where the run is recorded besides its folder; empty: TensorBoard, where it is installed.
    """

    config: str
    work_dir: Path
    data: Path | None = None
    classes: Path | None = None
    images_dir: str | None = None
    masks_dir: str | None = None
    mask_suffix: str | None = None
    load: str | None = None
    resume: bool = False
    iterations: int | None = None
    batch: int | None = None
    workers: int | None = None
    accumulate: int = 1
    effective_batch: int | None = None
    amp: AmpType | None = None
    seed: int | None = None
    compile: bool = False
    save_memory: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    class_weights: ClassWeights | None = None
    patience: int | None = None
    ema: bool = False
    loggers: tuple[Logger, ...] = ()

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
