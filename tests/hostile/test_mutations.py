"""Whatever is changed in a file from outside, it is refused in plain words or read as what it says; no code runs."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.kinds import KINDS, MARKER, Seeded
from tests.hostile.mutations import mutated
from tests.hostile.run import original_of, outcome

pytest.importorskip("torch")
pytest.importorskip("onnx")
MOST_MEMORY_MIB = 1024


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_are_refused_in_plain_words(kind: str, tmp_path: Path) -> None:
    seeded: Seeded = KINDS[kind](tmp_path)
    content, original = seeded.file.read_bytes(), original_of(seeded)

    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 2**32 - 1))
    def check(seed: int) -> None:
        seeded.file.write_bytes(mutated(content, np.random.default_rng(seed), seeded.mutations))
        found = outcome(seeded, original)
        assert found != "other" or not seeded.covered, "a hash covers it, and it was accepted with other content"

    check()
    assert not (tmp_path / MARKER).exists(), "code has run"


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_changed_files_of_each_kind(kind: str) -> None:
    command = [sys.executable, "-m", "tests.hostile.run", kind, "10000", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limit_memory)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["failures"], "\n".join(found["failures"])
    assert not found["code_run"] and not (found["covered"] and found["other"])
    assert found["peak_mib"] < MOST_MEMORY_MIB, found
