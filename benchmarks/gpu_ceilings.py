"""What a GPU reaches at most: memory copy, FP16 and INT8 matrix products, and the state it is in. Needs PyTorch.

python -m benchmarks.gpu_ceilings --out ceilings.json
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from ffnet_deploy.benchmark.device_state import environment, read_state
from ffnet_deploy.cli.console import console, make_app, run_command
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.optional import optional
from ffnet_deploy.engines.cuda import NoDeviceError

SIDE = 8192
COPY = 1 << 30
REPEATS = 20


def milliseconds(torch: Any, device: str, call: Callable[[], object]) -> float:
    """Fastest of some calls: by the GPU's events, on a CPU by the clock."""
    times = []
    for _ in range(REPEATS):
        if device == "cpu":
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
            continue
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(min(times))


def measure(device: str, side: int = SIDE, copied: int = COPY) -> dict[str, Any]:
    """Bytes and operations per second that plain calls of PyTorch reach.

    Args:
        device: "cuda"; "cpu" for a rehearsal.
        side: of the matrices.
        copied: bytes.

    Raises:
        NoDeviceError: there is no GPU that PyTorch can use.
    """
    torch: Any = optional("torch", extra="convert", purpose="measuring what a GPU reaches")
    if device == "cuda" and not torch.cuda.is_available():
        raise NoDeviceError("PyTorch sees no GPU here.\n  to do    run this on the GPU machine")
    source = torch.randint(0, 255, (copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    half = torch.randn(side, side, device=device).half()
    small = torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device)
    copy = milliseconds(torch, device, lambda: target.copy_(source))
    product = milliseconds(torch, device, lambda: half @ half)
    integers = milliseconds(torch, device, lambda: torch._int_mm(small, small.t()))
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "copy_bytes_per_second": 2 * copied / copy * 1e3,
        "fp16_operations_per_second": 2 * side**3 / product * 1e3,
        "int8_operations_per_second": 2 * side**3 / integers * 1e3,
        "side": side,
        "state": asdict(read_state()),
        "environment": environment(),
        "torch": torch.__version__,
    }


app = make_app("gpu_ceilings", "Measure what a GPU reaches at most.")


@app.default
def command(
    *,
    out: Annotated[Path, Parameter(help="JSON file for what was measured.")] = Path("ceilings.json"),
    device: Annotated[str, Parameter(help="cuda; cpu for a rehearsal.")] = "cuda",
) -> None:
    """Measure what a GPU reaches at most."""
    found = measure(device) if device == "cuda" else measure(device, 256, 1 << 20)
    write_json(out, found)
    console.print(f"{found['device']}: {found['fp16_operations_per_second'] / 1e12:.1f} TFLOP/s FP16, written to {out}")


if __name__ == "__main__":
    run_command(app)
