"""Whether commands stop when they are asked to, and what killed ones leave: signals spread over whole runs.

    python -m benchmarks.stops --data data/scenes --work /tmp/stops --stops 60 --kills 100 --json stops.json

Each job (an export in FP32, FP16 and INT8, an evaluation, a benchmark, a training run, a build for TensorRT for RTX)
runs once to its end; then it is stopped by SIGTERM and SIGINT in turn, or killed, at moments spread evenly over that
time. A stop must end it with the documented exit code, and soon. After each stop and each kill every artefact must
match its manifest, and every JSON file and checkpoint be whole; after a stop nothing hidden may be left, after a kill
nothing once the job ran again.

A run may also be over before its signal comes, and is then repeated with an earlier one. That is believed only of a run
that said so: each notes when its command has returned, on the clock that the signals are timed by. One that returned
with code 0 after its signal has lost it, which is a fault.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ffnet_deploy.artifacts import manifest_path, read_manifest
from ffnet_deploy.core.errors import ArtifactError
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.stopping import exit_code

CONFIG = "ffnet_seg_nano_scenes"
STOPPED = ("export", "int8", "eval", "bench")
"""Jobs that are stopped; all are killed."""
STOPS = (signal.SIGTERM, signal.SIGINT)
PROGRAM = """
import sys, time
from ffnet_deploy.cli.{command} import main
try:
    main()
finally:
    print("returned", time.monotonic(), file=sys.stderr)
"""
"""A command that says last when it returned; the clock counts for all processes alike."""
SOON = 15.0
"""Seconds within which a stop must end a job: no step that cannot be broken off takes longer, on a busy machine too."""
HUNG = 300.0
"""Seconds after which a job that a stop did not end is killed."""
TOO_LATE = 0.05
"""Seconds between reading whether a stop was asked for and returning, on a busy machine."""


@dataclass(frozen=True)
class Job:
    """A command line, the folder that it writes to, and which of its files would keep it from starting anew."""

    name: str
    command: str
    arguments: tuple[str, ...]
    folder: Path
    stale: str = ""

    def start(self) -> "subprocess.Popen[str]":
        """Run it in a process of its own."""
        for path in self.folder.glob(self.stale) if self.stale else ():
            path.unlink()
        command = [sys.executable, "-c", PROGRAM.format(command=self.command), *self.arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@dataclass
class Tally:
    """What came of the signals of one kind sent to one job.

    Attributes:
        job: Name of the job.
        kind: ``"stop"`` or ``"kill"``.
        sent: Number of signals that found the job running.
        ended_before: Number of runs that were over before the signal, and were repeated.
        right: Signals after which everything was as it should be.
        slowest: Most seconds from a signal to the end of the process.
        faults: What was not, in words.
    """

    job: str
    kind: str
    sent: int
    ended_before: int
    right: int
    slowest: float
    faults: list[str]


def jobs(work: Path, data: Path) -> list[Job]:
    """All jobs, on a graph that is exported first into `work`."""
    shape = ("--shape", "96x192", "--limit", "4")
    source = ("--config", CONFIG, "--checkpoint", "bundled", *shape, "--data", str(data))
    graph = work / "given" / f"{CONFIG}.onnx"
    folders = {name: work / name for name in ("export", "fp16", "int8", "eval", "bench", "train", "rtx")}

    def out(name: str) -> tuple[str, str]:
        return ("--out", str(folders[name]))

    calibrated = ("--calib-images", str(data), "--calib-count", "4", "--min-agreement", "0", "--max-drop", "100")
    scored = ("--artifact", str(graph), "--data", str(data), "--save-images", str(folders["eval"] / "pictures"))
    timed = (str(graph), "--config", CONFIG, "--checkpoint", "bundled", "--seconds", "0.3", "--samples", "10")
    trained = ("--config", CONFIG, "--load", "bundled", "--data", str(data), "--iterations", "2")
    small = ("--batch", "2", "--workers", "0")
    gpu = ("--backend", "trt-rtx", "--compute-capability", "8.9")
    return [
        Job("export", "export", (*source, *out("export")), folders["export"]),
        Job("fp16", "export", (*source, *out("fp16"), "--fp16"), folders["fp16"]),
        Job("int8", "export", (*source, *out("int8"), "--int8", *calibrated), folders["int8"]),
        Job("eval", "evaluate", (*scored, "--json", str(folders["eval"] / "scores.json")), folders["eval"]),
        Job("bench", "bench", (*timed, "--json", str(folders["bench"] / "bench.json")), folders["bench"]),
        Job(
            "train",
            "train",
            (*trained, *small, "--work-dir", str(folders["train"])),
            folders["train"],
            stale="[!.]*.*",
        ),
        Job(
            "rtx",
            "export",
            ("--onnx", str(graph), *gpu, "--out", str(folders["rtx"] / "net.rtx.engine")),
            folders["rtx"],
            stale="net.rtx.*",
        ),
    ]


def faults_in(folder: Path, hidden: bool) -> list[str]:
    """What must not lie in `folder`: an artefact that does not fit its manifest, half a file, something hidden."""
    found = []
    for path in sorted(folder.rglob("*")):
        if any(parent.name == "vis_data" for parent in path.parents):  # MMEngine's logs, JSON line by line
            continue
        if path.name.startswith("."):
            if hidden and path.parent == folder:
                found.append(f"left behind: {path.name}")
        elif path.suffix in (".onnx", ".engine") and ".staging" not in str(path):
            try:
                if manifest_path(path).exists():
                    read_manifest(path)
                else:
                    found.append(f"no manifest: {path.name}")
            except ArtifactError as error:
                found.append(str(error).partition("\n")[0])
        elif path.suffix == ".pth":
            if not zipfile.is_zipfile(path) or zipfile.ZipFile(path).testzip() is not None:
                found.append(f"half-written: {path.name}")
        elif path.suffix == ".json" and ".staging" not in str(path):
            try:
                json.loads(path.read_text())
            except ValueError:
                found.append(f"half-written: {path.name}")
    return found


def run_whole(job: Job) -> float:
    """Seconds that the whole job takes.

    Raises:
        RuntimeError: it failed.
    """
    began = time.monotonic()
    process = job.start()
    _, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{job.name} ended with {process.returncode}:\n{errors[-2000:]}")
    return time.monotonic() - began


def returned(errors: str) -> float:
    """When the command returned whose standard error is `errors`, by the monotonic clock; infinity: it did not."""
    said = [line.split()[1] for line in errors.splitlines() if line.startswith("returned ")]
    return float(said[-1]) if said else math.inf


def interrupt(
    job: Job, numbers: Sequence[signal.Signals], count: int, seconds: float, tally: Tally, keep: Callable[[], None]
) -> None:
    """Send `numbers` in turn to `count` runs of `job`, at moments spread evenly over `seconds`; `keep` after each."""
    for index in range(count):
        number = numbers[index % len(numbers)]
        moment = seconds * (index + 0.5) / count
        while not interrupted_once(job, number, moment, tally):
            tally.ended_before += 1
            moment *= 0.9
        keep()


def interrupted_once(job: Job, number: signal.Signals, moment: float, tally: Tally) -> bool:
    """Send `number` to a run of `job` after `moment` seconds and judge what came of it; False: it was over before."""
    process = job.start()
    try:
        _, errors = process.communicate(timeout=moment)
        if process.returncode:
            raise RuntimeError(f"{job.name} ended with {process.returncode}:\n{errors[-2000:]}")
        return False
    except subprocess.TimeoutExpired:
        sent = time.monotonic()
        process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=HUNG)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
    lasted = time.monotonic() - sent
    if process.returncode == 0 and returned(errors) < sent + TOO_LATE:
        return False
    tally.sent += 1
    tally.slowest = max(tally.slowest, lasted)
    faults = faults_in(job.folder, hidden=number is not signal.SIGKILL)
    allowed = {-number} if number is signal.SIGKILL else {exit_code(number), -number}
    if process.returncode not in allowed:
        faults.append(f"exit code {process.returncode}: {errors[-300:]!r}")
    if lasted > SOON:
        faults.append(f"it went on for {lasted:.1f} s")
    tally.right += not faults
    tally.faults += [f"{number.name} at {moment:.2f} s: {fault}" for fault in faults]
    return True


def main() -> None:
    """Run all jobs, print what was found, and fail where something was not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled scenes (python -m scenes)")
    parser.add_argument("--work", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--stops", type=int, default=60)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", help="names, separated by commas; by default all")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started this in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = [
        job for job in jobs(options.work, options.data) if not options.jobs or job.name in options.jobs.split(",")
    ]
    source = jobs(options.work, options.data)[0]
    run_whole(Job("given", "export", (*source.arguments[:-1], str(options.work / "given")), options.work / "given"))
    found: list[Tally] = []

    def keep() -> None:
        if options.json:
            write_json(options.json, [asdict(tally) for tally in found])

    for job in chosen:
        seconds = run_whole(job)
        print(f"{job.name}: {seconds:.1f} s", flush=True)
        stops = options.stops // sum(one.name in STOPPED for one in chosen) if job.name in STOPPED else 0
        kills = -(-options.kills // len(chosen))
        for kind, numbers, count in (("stop", STOPS, stops), ("kill", (signal.SIGKILL,), kills)):
            if not count:
                continue
            tally = Tally(job.name, kind, 0, 0, 0, 0.0, [])
            found.append(tally)
            interrupt(job, numbers, count, seconds, tally, keep)
            if kind == "kill":
                run_whole(job)
                tally.faults += [f"after the next run: {fault}" for fault in faults_in(job.folder, hidden=True)]
                keep()
            told = f"{tally.right} of {tally.sent}, {tally.ended_before} ended before, slowest {tally.slowest:.1f} s"
            print(f"  {kind}: {told}", flush=True)
            print("".join(f"    {fault}\n" for fault in tally.faults), end="", flush=True)
    for kind in ("stop", "kill"):
        rows = [tally for tally in found if tally.kind == kind]
        print(f"{kind}: {sum(row.right for row in rows)} of {sum(row.sent for row in rows)}")
    sys.exit(any(tally.faults for tally in found))


if __name__ == "__main__":
    main()
