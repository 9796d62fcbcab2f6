"""Training throughput of ffnet-train against mmseg's plain Runner: the same config, data, batch and loaders.

    python benchmarks/training.py --config ffnet_seg_nano_scenes --data data/scenes --json training.json

Each turn is a process of its own; the two take turns, so that what else the machine does hits both alike.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP = 10
"""Iterations before the clock starts: loaders fill, memory is laid out."""


def take_turn(kind: str, config: str, data: Path, iterations: int, out: Path) -> None:
    """Train for `iterations` in this process and write seconds of each iteration and of its wait for data to `out`."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    from ffnet_deploy.training.options import TrainOptions
    from ffnet_deploy.training.recipe import run_config
    from ffnet_deploy.training.train import TrainRunner, quiet_building

    class Times(Hook):
        def __init__(self) -> None:
            self.total: list[float] = []
            self.waiting: list[float] = []

        def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
            self.total.append(runner.message_hub.get_scalar("train/time").current())
            self.waiting.append(runner.message_hub.get_scalar("train/data_time").current())

    with tempfile.TemporaryDirectory() as folder:
        cfg = run_config(TrainOptions(config, data, work_dir=Path(folder), iterations=WARM_UP + iterations, seed=0))
        cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.update(interval=-1, save_last=False, save_best=None)
        times = Times()
        with quiet_building():
            runner = (TrainRunner if kind == "ffnet-train" else Runner).from_cfg(cfg)
            runner.register_hook(times, priority="LOWEST")
            runner.train()
    out.write_text(json.dumps({"total": times.total[WARM_UP:], "waiting": times.waiting[WARM_UP:]}))


def compare(config: str, data: Path, iterations: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Samples of both, from turns in separate processes."""
    samples: dict[str, dict[str, list[float]]] = {
        kind: {"total": [], "waiting": []} for kind in ("mmseg's plain Runner", "ffnet-train")
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "turn.json"
        for turn in range(rounds):
            for kind in samples if turn % 2 == 0 else reversed(samples):
                command = [sys.executable, __file__, "--config", config, "--data", str(data), "--turn", kind]
                command += ["--iterations", str(iterations), "--json", str(out)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                for name, values in json.loads(out.read_text()).items():
                    samples[kind][name] += values
    return samples


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="ffnet_seg_nano_scenes")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=40, help="per turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        take_turn(options.turn, options.config, options.data, options.iterations, options.json)
        return
    samples = compare(options.config, options.data, options.iterations, options.rounds)
    print(f"{'':22}  median s/iteration  waiting for data")
    for kind, times in samples.items():
        waiting = 100 * sum(times["waiting"]) / sum(times["total"])
        print(f"{kind:22}  {statistics.median(times['total']):18.3f}  {waiting:14.1f} %")
    if options.json:
        options.json.write_text(json.dumps(samples, indent=1))


if __name__ == "__main__":
    main()
