"""From a finished run to files that can be given away: float16 safetensors, and a card that tells their origin."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ffnet_deploy.artifacts.outputs import WRITTEN_BY
from ffnet_deploy.core.errors import CheckpointError
from ffnet_deploy.core.files import atomic_path, sha256
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.segmentor.checkpoint import read_checkpoint
from ffnet_deploy.training.saving import best_in

SHOWN_LINES = 24
"""Lines of the log that a card shows, spread evenly over the run."""
_TIME = re.compile(r"^(\d{4}/)?\d{2}/\d{2} \d{2}:\d{2}:\d{2}")


@dataclass(frozen=True)
class Card:
    """What a model card says besides what the run recorded.

    Attributes:
        command: Command that trained the network.
        data: What it was trained and selected on, in words.
        terms: Terms under which the weights may be used, in words.
        machine: Machine that it was trained on, in words.
        notes: What else one must know, in words.
    """

    command: str
    data: str
    terms: str
    machine: str
    notes: str = ""


def to_half(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """`tensors` with weights of two and more dimensions in float16; batch norms keep float32, their counters go."""
    return {
        name: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
        for name, value in tensors.items()
        if not name.endswith("num_batches_tracked")
    }


def publish(work_dir: Path, out: Path) -> dict[str, str]:
    """Write the best checkpoint of `work_dir` to `out` as float16 safetensors; returns its metadata.

    Raises:
        CheckpointError: there is none, or a weight is too large for float16.
        StorageError: `out` cannot be written.
    """
    safetensors = optional("safetensors.torch", extra="convert", purpose="writing a .safetensors checkpoint")
    source = best_in(work_dir)
    checkpoint = read_checkpoint(source)
    tensors = to_half(checkpoint.tensors)
    infinite = [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if infinite:
        raise CheckpointError(f"{source} cannot be written as float16: {infinite[0]} has values beyond 65504")
    about = checkpoint.meta.get("dataset_meta") or {}
    metadata = {
        "format": "pt",
        "iterations": str(checkpoint.meta.get("iter", "")),
        "classes": json.dumps(list(about.get("classes", []))),
        "source_sha256": checkpoint.sha256,
    }
    with atomic_path(out) as temporary:
        safetensors.save_file(tensors, str(temporary), metadata=metadata)
    return metadata


def log_lines(work_dir: Path) -> list[str]:
    """The lines of the run's logs that tell loss and validation scores, in order, resumed parts included."""
    lines = [line for log in sorted(work_dir.glob("*/*.log")) for line in log.read_text().splitlines()]
    return [line for line in lines if "Iter(train)" in line or ("Iter(val)" in line and "mIoU" in line)]


def minutes_of(work_dir: Path) -> float:
    """Minutes from the first to the last line of each log, summed: waiting between parts is left out."""
    total = 0.0
    for log in work_dir.glob("*/*.log"):
        stamps = [match[0] for line in log.read_text().splitlines() if (match := _TIME.match(line))]
        if stamps:
            total += (_moment(stamps[-1]) - _moment(stamps[0])).total_seconds() / 60
    return total


def _moment(stamp: str) -> datetime:
    """The time of a log line; only its first one tells the year."""
    return datetime.strptime(f"2000/{stamp[-14:]}", "%Y/%m/%d %H:%M:%S")


def excerpt(lines: list[str], count: int = SHOWN_LINES) -> list[str]:
    """All validation lines, and training lines spread evenly, `count` in all."""
    scored = [index for index, line in enumerate(lines) if "Iter(val)" in line]
    trained = [index for index in range(len(lines)) if index not in scored]
    wanted = max(count - len(scored), 2)
    chosen = {trained[round(i * (len(trained) - 1) / (wanted - 1))] for i in range(wanted)} if trained else set()
    return [re.sub(r" - mmengine - INFO -|base_lr: \S+ +", "", lines[i]) for i in sorted(chosen | set(scored))]


def card_text(name: str, out: Path, work_dir: Path, card: Card, evaluation: Any, metadata: Mapping[str, str]) -> str:
    """The model card of `out`, a checkpoint of the config `name`, in Markdown."""
    scores = evaluation.scores
    rows = "\n".join(
        f"| {label} | {_percent(one.iou)} | {_percent(one.accuracy)} |" for label, one in scores.per_class.items()
    )
    total = f"**{scores.mean_iou:.2f} %** on {evaluation.images} images ({evaluation.split})"
    log = "\n".join(excerpt(log_lines(work_dir)))
    return f"""# {name}

| | |
|---|---|
| config | `{name}` (`--config {name} --checkpoint bundled`) |
| file | `{out.name}`, {out.stat().st_size / 1e6:.2f} MB, weights in float16, batch norms in float32 |
| SHA-256 | `{sha256(out)}` |
| trained on | {card.data} |
| from | nothing: no pretrained weights |
| iterations | {metadata["iterations"]} |
| time | {minutes_of(work_dir):.0f} minutes, {card.machine} |
| mIoU | {total}, pixel accuracy {scores.pixel_accuracy:.2f} % |
| terms | {card.terms} |

```
{card.command}
```

{card.notes}

Measured on this file with `ffnet-eval`, in float32:

| class | IoU % | accuracy % |
|---|---|---|
{rows}
| mean | {scores.mean_iou:.2f} | {scores.mean_accuracy:.2f} |

From the log (`loss`: one step; `mIoU`: the averaged weights on the validation split):

```
{log}
```

<!-- {WRITTEN_BY} -->
"""


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def score(config: str, checkpoint: Path, data: Path, split: str, progress: Progress = no_progress) -> Any:
    """The `Evaluation` of `checkpoint` on the images of `data`; `progress` is called with the images done."""
    from ffnet_deploy.engines.torch import TorchEngine
    from ffnet_deploy.evaluation.datasets import open_dataset
    from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate

    engine = TorchEngine.from_config(config, str(checkpoint))
    return evaluate(engine, open_dataset(data, engine.contract.dataset, None, split), EvaluateOptions(), progress)
