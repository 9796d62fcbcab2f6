import multiprocessing
import os
import signal
import time
from pathlib import Path

from ffnet_deploy.artifacts.lock import lock_path, locked

SPAWN = multiprocessing.get_context("spawn")


def append(target: str, count: int) -> None:
    """Read, wait and write a number: without a lock, others' additions are lost."""
    path = Path(target)
    for _ in range(count):
        with locked(path):
            number = int(path.read_text())
            time.sleep(0.001)
            path.write_text(str(number + 1))


def hold(target: str, ready: str) -> None:
    with locked(Path(target)):
        Path(ready).touch()
        time.sleep(600)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("0")
    workers = [SPAWN.Process(target=append, args=(str(path), 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert path.read_text() == "100"
    assert not lock_path(path).exists()


def test_a_killed_process_gives_its_lock_back(tmp_path: Path) -> None:
    path, ready = tmp_path / "engine", tmp_path / "ready"
    holder = SPAWN.Process(target=hold, args=(str(path), str(ready)))
    holder.start()
    while not ready.exists():
        assert holder.is_alive()
        time.sleep(0.02)
    waited: list[bool] = []

    def waiting() -> None:
        waited.append(True)
        os.kill(int(holder.pid or 0), signal.SIGKILL)

    with locked(path, waiting):
        assert waited == [True]
    holder.join(60)
    assert not lock_path(path).exists()
