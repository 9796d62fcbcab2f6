"""Makes, on the machine that has PyTorch, everything that benchmarks/gpu.py takes to a GPU machine without a network.

    python -m benchmarks.prepare_gpu OUT --data DATA --also TENSORRT_PARTS

OUT/machine gets the checkout, the wheels that the other machine lacks, and a folder for each network: the packaged one
as it was trained, with labelled images, and large ones with weights that follow from the names of their tensors.
OUT/parts gets all of it in files that are small enough to carry one by one, and the list of what to do with them.
"""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import onnx
from cyclopts import Parameter

from benchmarks.gpu import MIB, PLAN
from benchmarks.gpu_reference import DATA, FILE, FORMAT, GRAPHS, REWRITTEN, write_arrays
from benchmarks.gpu_weights import name_weights, strip
from ffnet_deploy.artifacts.manifest import tool_versions, write_manifest
from ffnet_deploy.calib import CalibrationOptions, Method, quantize_graph
from ffnet_deploy.cli.console import console, make_app, progress_bar, run_command
from ffnet_deploy.core.contract import DimensionRange
from ffnet_deploy.core.errors import OptionError, StorageError
from ffnet_deploy.core.files import make_folder, sha256, write_json
from ffnet_deploy.core.precision import Precision, PrecisionRecord, Target
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.torch import TorchEngine
from ffnet_deploy.evaluation.datasets import Dataset, open_dataset
from ffnet_deploy.evaluation.verify import VerifyOptions, images_of, packaged_images
from ffnet_deploy.export.calibration import CalibrationRequest
from ffnet_deploy.export.graph_file import write_graph
from ffnet_deploy.export.onnx import OLDEST_OPSET, ExportOptions, build_graph, contract_of, export_onnx
from ffnet_deploy.export.reduce import ReductionOptions, observed_inputs, reduce_precision
from ffnet_deploy.export.rewrites.choice import FEWEST_OPERATIONS
from ffnet_deploy.precision import TypingOptions, assign_types
from ffnet_deploy.segmentor.load import Segmentor, open_segmentor

_CHECKOUT = Path(__file__).resolve().parents[1]
MACHINE, PARTS, TODO = "machine", "parts", "TRANSFERS.md"
BATCHES = DimensionRange(1, 1, 8)
OBSERVED = 4
"""Images that ranges are observed on, and that outputs are kept of."""
WHEELS = (
    *("onedl-mmengine", "onnxslim", "cyclopts", "msgspec", "addict", "yapf", "platformdirs", "termcolor", "ftfy"),
    *("wcwidth", "prettytable", "docstring-parser", "rich-rst", "docutils", "colorama", "rich", "markdown-it-py"),
    *("mdurl", "pygments", "attrs", "filelock"),
)
"""What PyTorch's stages need and a machine with PyTorch, onnx, ONNX Runtime, OpenCV and SciPy usually lacks."""
SOURCES = ("onedl-mmcv", "onedl-mmsegmentation")
"""The same, published as sources alone: pure Python, whose wheels are made here."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


@dataclass(frozen=True)
class Network:
    """A network to take along.

    Attributes:
        config: name or file of its config.
        size: input (height, width), pixels.
        checkpoint: its weights; None: they follow from the names of the tensors.
        engines: whether graphs travel; else PyTorch alone runs it, with random weights.
    """

    config: str
    size: tuple[int, int]
    checkpoint: str | None = None
    engines: bool = True

    @property
    def shape(self) -> tuple[DimensionRange, DimensionRange]:
        """Height and width of its graphs."""
        height, width = self.size
        return DimensionRange.fixed(height), DimensionRange.fixed(width)


NETWORKS = (
    Network("ffnet_seg_nano_camvid", (384, 480), "bundled"),
    Network("ffnet_seg_512_ade_160k", (512, 512)),
    Network("upernet_ffnet_2_512_160k_ade20k", (512, 512)),
    Network("ffnet_seg_1024_city_160k", (1024, 1024), engines=False),
)


def prepare(
    networks: Sequence[Network],
    folder: Path,
    data: Path | None = None,
    images: int | None = None,
    progress: Progress = no_progress,
) -> None:
    """Write the folder of every network, and the plan, below `folder`.

    Args:
        networks: what to take along.
        folder: of all networks.
        data: labelled images for trained networks: what they are scored on travels, what they are calibrated on not.
        images: labelled images at most; None: all of the split.
        progress: told of steps.

    Raises:
        FFNetDeployError: a network cannot be built or exported, or the images cannot be used.
    """
    about = {"format": FORMAT, "commit": _commit(), "created": datetime.now(timezone.utc).isoformat(timespec="seconds")}
    for network in (network for network in networks if network.engines):
        segmentor = open_segmentor(network.config, network.checkpoint, progress)
        for rewrites, ending in (((), ""), (FEWEST_OPERATIONS, REWRITTEN)):
            name = f"{segmentor.config.name}{ending}"
            progress(f"preparing {name}")
            height, width = network.shape
            options = ExportOptions(height, width, BATCHES, OLDEST_OPSET, rewrites=rewrites)
            graph = make_folder(folder / name / GRAPHS) / f"{name}.onnx"
            if network.checkpoint is None:
                found = _named_graphs(segmentor, options, graph, progress)
            else:
                labelled = None if data is None else open_dataset(data, segmentor.config.dataset).limited(images)
                found = _trained_graphs(segmentor, options, graph, data, labelled, progress)
                if labelled is not None:
                    _copy_data(labelled, folder / DATA)
            write_json(folder / name / FILE, {**about, "network": segmentor.config.name, **found})
    listed = [{**asdict(network), "size": "x".join(map(str, network.size))} for network in networks]
    write_json(folder / PLAN, {**about, "tools": tool_versions(), "networks": listed})


def _trained_graphs(
    segmentor: Segmentor,
    options: ExportOptions,
    graph: Path,
    data: Path | None,
    labelled: Dataset | None,
    progress: Progress,
) -> dict[str, Any]:
    """Graphs as ffnet-export writes them, with the outputs of PyTorch as published; what the reference says of them."""
    pictures = packaged_images(OBSERVED) if labelled is None else images_of(labelled, OBSERVED)
    verification = VerifyOptions(pictures, str(data or "packaged street scenes"), labelled)
    exported = export_onnx(segmentor, options, graph, verification, progress)
    graphs, miou = [graph], None if exported.verification.miou is None else exported.verification.miou[0]
    verification = replace(verification, reference_miou=miou)
    with TorchEngine(segmentor.model, exported.contract) as reference:
        write_arrays(graph.parents[1], reference, pictures)
        targets = [ReductionOptions(Target.FP16)]
        if data is not None:
            targets.append(ReductionOptions(Target.INT8, calibration=CalibrationRequest(data)))
        for target in targets:
            made = reduce_precision(graph, None, target, verification, reference, progress)
            graphs.append(made.path)
        name = reference.name
    scored_on = None
    if labelled is not None:
        scored_on = {"network": segmentor.config.dataset, "dataset": labelled.name, "split": labelled.split}
    return {
        "engine": name,
        "graphs": [path.name for path in graphs],
        "trained": True,
        "images": len(pictures),
        "mIoU": miou,
        "data": scored_on,
    }


def _named_graphs(segmentor: Segmentor, options: ExportOptions, graph: Path, progress: Progress) -> dict[str, Any]:
    """Graphs whose weights follow from their names, stripped of them; what the reference says of them.

    Nothing is equalised and no bias corrected, so that a quantised graph has these very weights too; its speed is the
    same.
    """
    model = build_graph(segmentor, options)
    named = name_weights(model)
    contract = contract_of(segmentor, options)
    images = observed_inputs(VerifyOptions(packaged_images(OBSERVED), ""), contract)
    plain = CalibrationOptions(Method.MINMAX, equalize=False, correct_bias=False)
    typed = assign_types(model, TypingOptions(Precision.FP16), images, progress)
    quantized = quantize_graph(model, images, plain, progress)
    made: list[tuple[str, onnx.ModelProto, PrecisionRecord]] = [
        ("", model, PrecisionRecord()),
        (".fp16", typed.model, typed.record),
        (".int8", quantized.model, quantized.record),
    ]
    graphs = []
    for ending, one, record in made:
        path = graph.with_name(f"{graph.stem}{ending}.onnx")
        write_graph(one, path)
        content = {"contract": asdict(contract), "opset": options.opset, "precision": asdict(record)}
        write_manifest(path, "onnx", content)
        strip(path, named)
        path.unlink()
        graphs.append(path.name)
    about = {"engine": "ONNX Runtime, FP32", "graphs": graphs, "trained": False}
    return {**about, "images": OBSERVED, "mIoU": None, "data": None}


def _copy_data(dataset: Dataset, folder: Path) -> None:
    """Take the files of `dataset` along, laid out as they were."""
    shutil.rmtree(folder, ignore_errors=True)
    for sample in dataset.samples:
        for file in (file for file in (sample.image, sample.labels) if file is not None):
            target = folder / file.relative_to(dataset.root)
            make_folder(target.parent)
            shutil.copyfile(file, target)


def _commit() -> str | None:
    """The checkout's commit; None where it is none of git's."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_CHECKOUT, capture_output=True, text=True)
    return done.stdout.strip() or None


def copy_checkout(folder: Path) -> None:
    """Put what is committed into `folder`.

    Raises:
        StorageError: git cannot.
    """
    packed = make_folder(folder) / ".checkout.tar"
    try:
        subprocess.run(["git", "archive", "--output", str(packed), "HEAD"], cwd=_CHECKOUT, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StorageError(f"git cannot archive {_CHECKOUT}: {error}") from error
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    packed.unlink()


def download_wheels(folder: Path, python: str = "3.12") -> None:
    """Put the wheels that the GPU machine's `python` lacks into `folder`, in the tested versions.

    Raises:
        StorageError: pip cannot get one of them.
    """
    pins = {
        line.partition("==")[0]: line.partition(";")[0].strip()
        for line in reversed((_CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines())
        if "==" in line and not line.startswith("#")
    }
    pip = [sys.executable, "-m", "pip"]
    common = ["--quiet", "--no-deps"]
    ready = ["--only-binary=:all:", "--python-version", python, "--implementation", "cp"]
    ready += ["--dest", str(make_folder(folder))]
    ready += [word for platform in PLATFORMS for word in ("--platform", platform)]
    for command, names in (
        ([*pip, "download", *common, *ready], WHEELS),
        ([*pip, "wheel", *common, "--wheel-dir", str(folder)], SOURCES),
    ):
        done = subprocess.run([*command, *(pins.get(name, name) for name in names)], capture_output=True, text=True)
        if done.returncode:
            raise StorageError(f"pip cannot get the wheels: {done.stderr.strip()}\n  to do    check the network")


def write_parts(folder: Path, out: Path, size: int = 45) -> list[Path]:
    """Pack what lies in `folder` into files of at most `size` MiB, and list their sums in ``gpu.sha256``.

    Returns:
        The parts, and then the list.
    """
    if size < 1:
        raise OptionError(f"a part has at least 1 MiB: got {size}")
    packed = make_folder(out) / "gpu.tar.gz"
    for stale in out.glob("gpu.*"):
        stale.unlink()
    with tarfile.open(packed, "w:gz") as archive:
        for entry in sorted(folder.iterdir()):
            archive.add(entry, entry.name)
    parts = list[Path]()
    with packed.open("rb") as file:
        while content := file.read(size * MIB):
            parts.append(out / f"gpu.part.{len(parts):03d}")
            parts[-1].write_bytes(content)
    packed.unlink()
    sums = out / "gpu.sha256"
    sums.write_text("".join(f"{sha256(part)}  {part.name}\n" for part in parts), encoding="utf-8")
    return [*parts, sums]


UNPACK = "sha256sum --check --quiet gpu.sha256 && cat gpu.part.* | tar -xzf -"
"""Unpacks the parts in the folder that they lie in."""
INSTALL = "python3 -m pip install --quiet --no-index --no-deps --no-compile --target site wheels/*.whl"
UNPACK_TENSORRT = "bash unpack_tensorrt.sh . ."
RUN = (
    "cd checkout && PYTHONPATH=../site python3 -m benchmarks.gpu run ../networks --results ../results --work ../work "
    "--tensorrt-python ../trt853/python3.10-trt --limit 570"
)
MOST = 64
"""MiB of one transfer, the checkout's files included."""


def list_transfers(parts: Sequence[Path], also: Path | None, checkout: int) -> str:
    """What to carry, in which order, and what to run there, as a page.

    Args:
        parts: of `write_parts`.
        also: folder of further parts, ``*.part.*``, with their sums and the script that unpacks them; None: none.
        checkout: bytes of the checkout, which may travel with each transfer.

    Raises:
        OptionError: a transfer is larger than it may be.
    """
    rows = _rows(parts)
    first = len(rows)
    rows += [] if also is None else _rows(sorted(also.iterdir()))
    lines = ["| transfer | files | MiB | with the checkout |", "|---|---|---|---|"]
    for number, row in enumerate(rows, 1):
        own = sum(path.stat().st_size for path in row) / MIB
        whole = own + checkout / MIB
        if whole > MOST:
            raise OptionError(
                f"transfer {number} has {whole:.1f} MiB with the checkout, more than {MOST}: lower --size"
            )
        lines.append(f"| {number} | {', '.join(path.name for path in row)} | {own:.1f} | {whole:.1f} |")
    commands = [f"after transfer {first}:", "", f"    {UNPACK}", f"    {INSTALL}", ""]
    if also is not None:
        commands += [f"after transfer {len(rows)}:", "", f"    {UNPACK_TENSORRT}", ""]
    commands += ["then, until it says that all steps are done (PyTorch's steps can begin before TensorRT is there):"]
    commands += ["", f"    {RUN}", "", "and to take the results home:", "", "    tar -czf results.tar.gz results", ""]
    return "\n".join(["All files go into one folder; each command begins in it.", "", *lines, "", *commands])


def _rows(files: Sequence[Path]) -> list[list[Path]]:
    """The files of each transfer: a part each, and what is no part with the first."""
    parts = [file for file in files if ".part." in file.name]
    small = [file for file in files if file not in parts]
    return [[part, *(small if part is parts[0] else ())] for part in parts]


app = make_app("prepare_gpu", "Collect everything that a GPU machine without a network needs.", "OUT")


@app.default
def command(
    out: Path,
    /,
    *,
    data: Annotated[Path | None, Parameter(help="Labelled images for the trained networks.")] = None,
    also: Annotated[Path | None, Parameter(help="Folder of further parts to list, for instance TensorRT's.")] = None,
    network: Annotated[list[str] | None, Parameter(help="Config to take along; all of the plan by default.")] = None,
    images: Annotated[int | None, Parameter(help="Labelled images at most.")] = None,
    size: Annotated[int, Parameter(help="Largest part, MiB.")] = 45,
) -> None:
    """Collect everything that a GPU machine without a network needs."""
    known = [one.config for one in NETWORKS]
    if unknown := [name for name in network or () if name not in known]:
        raise OptionError(f"--network takes {', '.join(known)}: got {', '.join(unknown)}")
    chosen = [one for one in NETWORKS if network is None or one.config in network]
    machine = out / MACHINE
    shutil.rmtree(machine, ignore_errors=True)
    with progress_bar("preparing") as progress:
        prepare(chosen, machine / "networks", data, images, progress)
        progress("packing")
        copy_checkout(machine / "checkout")
        download_wheels(machine / "wheels")
        written = write_parts(machine, out / PARTS, size)
    checkout = sum(path.stat().st_size for path in (machine / "checkout").rglob("*") if path.is_file())
    page = list_transfers(written, also, checkout)
    (out / PARTS / TODO).write_text(page, encoding="utf-8")
    console.print(page, soft_wrap=True)


if __name__ == "__main__":
    run_command(app)
