"""The Runner: what it adds to mmengine's."""

import os
import signal
import subprocess
import sys
import time

from torch.utils.data import DataLoader, Dataset

from ffnet_deploy.training.runner import TrainRunner


class _Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        time.sleep(0.05)
        return index


def numbers() -> DataLoader[int]:
    """A loader with one worker process."""
    sampler = {"type": "DefaultSampler", "shuffle": False}
    settings = {"sampler": sampler, "batch_size": 1, "num_workers": 1, "persistent_workers": True}
    return TrainRunner.build_dataloader({"dataset": _Numbers(), **settings})


def test_loading_goes_on_when_a_stop_signal_reaches_the_whole_process_group() -> None:
    batches = iter(numbers())
    first = next(batches)
    for worker in batches._workers:
        for stop in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker.pid, stop)
    assert [first, *batches] == [[number] for number in range(12)]


def test_a_process_whose_workers_still_load_ends() -> None:
    program = "from tests.training.test_runner import numbers; batches = iter(numbers()); next(batches)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
