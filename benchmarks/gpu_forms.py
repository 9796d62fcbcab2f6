"""PyTorch's forms of a network on a GPU, plain and with a rewritten decoder, side by side.

python -m benchmarks.gpu_forms ffnet_seg_512_ade_160k --size 512x512 --out forms.json
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import Parameter

from benchmarks.gpu_engines import QUEUE, SAMPLES, WARMUP
from ffnet_deploy.benchmark.bench import BenchOptions, bench
from ffnet_deploy.benchmark.candidates import Candidate
from ffnet_deploy.benchmark.files import write_run
from ffnet_deploy.benchmark.record import TimingMethod
from ffnet_deploy.benchmark.sweep import Grid
from ffnet_deploy.cli.bench import chosen_picture
from ffnet_deploy.cli.bench_tables import show_run
from ffnet_deploy.cli.console import make_app, progress_bar, run_command
from ffnet_deploy.cli.options import parse_choices, parse_numbers, parse_shape
from ffnet_deploy.core.contract import MAX_BATCH, DimensionRange
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.torch import TorchEngine, TorchForm
from ffnet_deploy.export.onnx import ExportOptions, build_network, contract_of
from ffnet_deploy.export.rewrites.choice import FEWEST_OPERATIONS
from ffnet_deploy.segmentor.load import Segmentor, open_segmentor

EAGER = (TorchForm.PUBLISHED, TorchForm.REPARAMETERIZED, TorchForm.CHANNELS_LAST, TorchForm.FP16, TorchForm.CUDA_GRAPH)
ROUNDS = 20


def candidates(
    segmentor: Segmentor, options: ExportOptions, forms: Sequence[TorchForm], device: str
) -> list[Candidate]:
    """Each form of the network, and each but the published again with the decoder rewritten as `options` say.

    Args:
        segmentor: with its weights.
        options: input size, batches and rewrites.
        forms: those that `device` cannot run are left out.
        device: PyTorch device.
    """
    contract = contract_of(segmentor, options)

    @cache
    def rewritten() -> Any:
        noise = torch.randn(1, 3, 128, 160, generator=torch.Generator().manual_seed(0))
        return build_network(segmentor, options, noise)[0]

    def candidate(form: TorchForm, is_rewritten: bool) -> Candidate:
        def opened(threads: int, streams: int) -> Engine:
            model = rewritten() if is_rewritten else segmentor.model
            return TorchEngine(model, contract, device, (), form, threads)

        name = f"PyTorch {form.value}{', rewritten' if is_rewritten else ''}"
        return Candidate(name, opened, precision=form.precision(device), on_gpu=device != "cpu")

    able = [form for form in forms if device != "cpu" or not form.is_half]
    plain = [candidate(form, False) for form in able]
    return plain + [candidate(form, True) for form in able if form is not TorchForm.PUBLISHED]


app = make_app("gpu_forms", "Time PyTorch's forms of a network, plain and rewritten.", "CONFIG")


@app.default
def command(
    config: Annotated[str, Parameter(help="Config name or file; its weights are random.")],
    /,
    *,
    size: Annotated[str, Parameter(help="Input size, HEIGHTxWIDTH.")],
    out: Annotated[Path, Parameter(help="JSON file for the run.")],
    batch: Annotated[str, Parameter(help="Batch sizes, with commas between them.")] = "1,8",
    forms: Annotated[str, Parameter(help="Forms, with commas between them.")] = ",".join(form.value for form in EAGER),
    device: Annotated[str, Parameter(help="cuda; cpu for a rehearsal.")] = "cuda",
    seconds: Annotated[float, Parameter(help="Minimum time in seconds for which each candidate is timed.")] = 3.0,
    samples: Annotated[int, Parameter(help="Minimum number of samples per candidate.")] = SAMPLES,
) -> None:
    """Time PyTorch's forms of a network, plain and rewritten."""
    height, width = parse_shape(size, dynamic=False)
    batches = parse_numbers(batch, "--batch", MAX_BATCH)
    several = DimensionRange(min(batches), min(batches), max(batches))
    options = ExportOptions(height, width, several, rewrites=FEWEST_OPERATIONS)
    asked = parse_choices(forms, TorchForm, "--forms")
    queue, rounds = min(QUEUE, samples), min(ROUNDS, samples)
    method = TimingMethod(warmup_ms=WARMUP * seconds, seconds=seconds, samples=samples, rounds=rounds, queue=queue)
    grid = Grid(batches, ((height.opt, width.opt),))
    with progress_bar("timing") as progress:
        run = bench(
            candidates(open_segmentor(config), options, asked, device),
            BenchOptions(grid, chosen_picture(None), method),
            progress=progress,
        )
    write_run(out, run)
    show_run(run)


if __name__ == "__main__":
    run_command(app)
