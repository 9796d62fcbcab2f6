"""The Runner: what it adds to mmengine's."""

import os
import signal
import time

from torch.utils.data import Dataset

from ffnet_deploy.training.runner import TrainRunner


class _Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> int:
        time.sleep(0.05)
        return index


def test_loading_goes_on_when_a_stop_signal_reaches_the_whole_process_group() -> None:
    sampler = {"type": "DefaultSampler", "shuffle": False}
    loader = TrainRunner.build_dataloader(
        {"dataset": _Numbers(), "sampler": sampler, "batch_size": 1, "num_workers": 1, "persistent_workers": True}
    )
    batches = iter(loader)
    first = next(batches)
    for worker in batches._workers:
        for stop in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker.pid, stop)
    assert [first, *batches] == [[number] for number in range(12)]
