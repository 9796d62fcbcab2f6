import multiprocessing
import os
import signal
import time
from pathlib import Path

from ffnet_deploy.core.files import lock_path, locked, staging_folder, sweep

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


def stage(target: str, ready: str) -> None:
    with staging_folder(Path(target)) as folder:
        (folder / "half").write_bytes(b"written")
        Path(ready).touch()
        time.sleep(600)


def test_what_killed_processes_left_is_swept_and_what_is_in_use_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    workers = [SPAWN.Process(target=stage, args=(str(folder / f"a{i}"), str(tmp_path / str(i)))) for i in range(2)]
    workers.append(SPAWN.Process(target=hold, args=(str(folder / "a2"), str(tmp_path / "2"))))
    for worker in workers:
        worker.start()
    while not all((tmp_path / str(i)).exists() for i in range(3)):
        assert all(worker.is_alive() for worker in workers)
        time.sleep(0.02)
    try:
        before = {path.name for path in folder.iterdir()}
        sweep(folder)
        assert {path.name for path in folder.iterdir()} == before and len(before) == 5
        for worker in workers[1:]:
            worker.kill()
            worker.join(60)
        (folder / ".others.lock").touch()
        sweep(folder)
        left = sorted(path.name for path in folder.iterdir())
        assert [name[:4] for name in left] == ["..a0", ".a0.", ".oth"]
        assert (folder / left[1] / "half").read_bytes() == b"written"
    finally:
        for worker in workers:
            worker.kill()
            worker.join(60)
    sweep(folder)
    assert [path.name for path in folder.iterdir()] == [".others.lock"]
