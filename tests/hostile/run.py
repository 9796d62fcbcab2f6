"""Reads many changed copies of a kind of file in this process: ``python -m tests.hostile.run KIND COUNT SEED``."""

import json
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from ffnet_deploy.core.errors import FFNetDeployError
from tests.hostile.kinds import KINDS, MARKER, Seeded
from tests.hostile.mutations import mutated


def outcome(seeded: Seeded, original: Any) -> str:
    """``"same"``, ``"other"`` or ``"refused"``; anything else that the reader raises is a bug and comes through."""
    try:
        found = seeded.read()
    except FFNetDeployError as error:
        str(error).encode("utf-8", "surrogatepass")
        return "refused"
    return "same" if found == original else "other"


def original_of(seeded: Seeded) -> Any:
    """What the unchanged file is read as; None where even that is refused."""
    try:
        return seeded.read()
    except FFNetDeployError:
        return None


def run(kind: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """How `count` changed copies of `kind` fared, and the tracebacks of those that came to a bad end."""
    seeded = KINDS[kind](folder)
    content, original = seeded.file.read_bytes(), original_of(seeded)
    rng = np.random.default_rng(seed)
    counts = {"same": 0, "other": 0, "refused": 0}
    failures: list[str] = []
    begin = time.monotonic()
    for number in range(count):
        changed = mutated(content, rng, seeded.mutations)
        seeded.file.write_bytes(changed)
        try:
            counts[outcome(seeded, original)] += 1
        except Exception:
            failures.append(f"{kind} {seed} {number}: {changed[:200]!r}\n{traceback.format_exc()}")
    return {
        "kind": kind,
        **counts,
        "tracebacks": len(failures),
        "failures": failures[:5],
        "code_run": (folder / MARKER).exists(),
        "covered": seeded.covered,
        "seconds": round(time.monotonic() - begin, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(folder))))
