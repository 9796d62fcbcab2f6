"""What a training run is asked to do."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from ffnet_deploy.core.errors import OptionError


class Precision(str, Enum):
    """Number format of the forward pass under automatic mixed precision."""

    FP16 = "fp16"
    BF16 = "bf16"


@dataclass(frozen=True)
class TrainOptions:
    """A training run.

    Attributes:
        config: name or file.
        work_dir: where checkpoints, logs and the whole config go.
        data: folder of the data set; None: the config's own.
        classes: `name r g b` a line, for own data in `images/{train,val}` and `annotations/{train,val}`.
        load: weights to start from: a file, ``"published"``, ``"bundled"`` or ``"pretrained"``.
        resume: continue from the newest intact checkpoint in `work_dir`.
        iterations: in place of the config's number; the schedule is stretched or shortened to it.
        batch: images per process and step, in place of the config's number.
        workers: processes that load images, per training process.
        accumulate: steps whose gradients are summed before the weights change.
        amp: automatic mixed precision; None: float32.
        seed: of weights, crops and order; None: by chance.
        compile: compile the backbone with torch.compile.
        save_memory: compute activations again in the backward pass in place of keeping them.
        overrides: config keys with dots, and their new values.
    """

    config: str
    work_dir: Path
    data: Path | None = None
    classes: Path | None = None
    load: str | None = None
    resume: bool = False
    iterations: int | None = None
    batch: int | None = None
    workers: int | None = None
    accumulate: int = 1
    amp: Precision | None = None
    seed: int | None = None
    compile: bool = False
    save_memory: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, least in (("iterations", 1), ("batch", 1), ("workers", 0), ("accumulate", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"--{name} takes a number from {least}: got {value}")
        if self.resume and self.load:
            raise OptionError("--resume goes on with its own weights: leave out --load, or start anew without --resume")
        if self.classes is not None and self.data is None:
            raise OptionError("--classes describes your own data: say where it is with --data ROOT")


def parse_override(text: str) -> tuple[str, Any]:
    """Key and value of `key=value`; the value is a Python literal (`3`, `1e-4`, `[1, 2]`, `True`), else a string.

    Raises:
        OptionError: there is no key or no `=`.
    """
    key, sign, value = text.partition("=")
    if not key.strip() or not sign:
        raise OptionError(f"--set takes key=value, for instance optim_wrapper.optimizer.lr=1e-4: got {text!r}")
    try:
        return key.strip(), ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return key.strip(), value.strip()
