import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "tests.training.losses_of_processes"


def mean_losses(data: Path, out: Path, processes: int, batch: int) -> np.ndarray:
    """Losses of every iteration, averaged over the processes."""
    out.mkdir()
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--master-port", "29611"]
    started = [sys.executable, *(torchrun if processes > 1 else []), "-m", MODULE, str(data), str(out), str(batch)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(started, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.mean([json.loads(path.read_text()) for path in sorted(out.glob("rank*.json"))], axis=0)


@pytest.mark.slow
def test_two_processes_learn_as_one_with_the_same_total_batch(data: Path, tmp_path: Path) -> None:
    one, two = mean_losses(data, tmp_path / "one", 1, 4), mean_losses(data, tmp_path / "two", 2, 2)
    worst = np.abs(one - two).max()
    assert len(one) == len(two) == 20
    assert worst < 1e-3, f"losses differ by {worst:.1e}: {one} against {two}"


@pytest.mark.slow
def test_two_nodes_of_one_process_learn_as_one(data: Path, tmp_path: Path) -> None:
    """Two torchrun launchers, each a node of its own, meet at one address; both run on this machine."""
    one = mean_losses(data, tmp_path / "one", 1, 4)
    out = tmp_path / "nodes"
    out.mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    nodes = []
    for rank in range(2):
        meeting = ["--nnodes", "2", "--node-rank", str(rank), "--master-addr", "127.0.0.1", "--master-port", "29613"]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1", *meeting]
        command = [*torchrun, "-m", MODULE, str(data), str(out), "2"]
        nodes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    for node in nodes:
        _, told = node.communicate(timeout=500)
        assert node.returncode == 0, told[-3000:]
    two = np.mean([json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)], axis=0)
    worst = np.abs(one - two).max()
    print(f"losses differ by {worst:.1e} at most")
    assert len(one) == len(two) == 20 and worst < 1e-3
