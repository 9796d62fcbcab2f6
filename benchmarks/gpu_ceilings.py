"""What a GPU reaches at most: memory copy, FP16 and INT8 matrix products, and the state it is in. Needs PyTorch.

python -m benchmarks.gpu_ceilings --out ceilings.json
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ffnet_deploy.benchmark.device_state import environment, read_state
from ffnet_deploy.cli.console import console, make_app, run_command
from ffnet_deploy.core.files import write_json
from ffnet_deploy.core.optional import optional
from ffnet_deploy.engines.cuda import NoDeviceError

SIDE = 8192
COPY = 1 << 30
REPEATS = 20


def milliseconds(torch: Any, call: Callable[[], object]) -> float:
    """Fastest of some calls, by the GPU's events."""
    times = []
    for _ in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(min(times))


def measure() -> dict[str, Any]:
    """Bytes and operations per second that plain calls of PyTorch reach on the first GPU.

    Raises:
        NoDeviceError: there is no GPU that PyTorch can use.
    """
    torch: Any = optional("torch", extra="convert", purpose="measuring what a GPU reaches")
    if not torch.cuda.is_available():
        raise NoDeviceError("PyTorch sees no GPU here.\n  to do    run this on the GPU machine")
    source = torch.empty(COPY, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = milliseconds(torch, lambda: target.copy_(source))
    half = torch.randn(SIDE, SIDE, dtype=torch.float16, device="cuda")
    small = torch.ones(SIDE, SIDE, dtype=torch.int8, device="cuda")
    product = milliseconds(torch, lambda: half @ half)
    integers = milliseconds(torch, lambda: torch._int_mm(small, small.t()))
    return {
        "gpu": torch.cuda.get_device_name(),
        "copy_bytes_per_second": 2 * COPY / copy * 1e3,
        "fp16_operations_per_second": 2 * SIDE**3 / product * 1e3,
        "int8_operations_per_second": 2 * SIDE**3 / integers * 1e3,
        "state": asdict(read_state()),
        "environment": environment(),
        "torch": torch.__version__,
    }


app = make_app("gpu_ceilings", "Measure what a GPU reaches at most.")


@app.default
def command(*, out: Path = Path("ceilings.json")) -> None:
    """Measure what a GPU reaches at most."""
    found = measure()
    write_json(out, found)
    console.print(f"{found['gpu']}: {found['fp16_operations_per_second'] / 1e12:.0f} TFLOP/s FP16, written to {out}")


if __name__ == "__main__":
    run_command(app)
