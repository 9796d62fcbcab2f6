"""``ffnet-predict``: label maps and pictures of images, folders, videos, cameras and rasters."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.cli.console import FLAT, ExitCode, console, make_app, progress_bar, report_note, run_command
from ffnet_deploy.cli.evaluate import ProtocolFlags, RunFlags, show_saved, show_skipped
from ffnet_deploy.cli.options import (
    DATA,
    EVERYDAY,
    OUTPUT,
    PICTURES,
    PROTOCOL,
    PixelFlags,
    SaveFlags,
    option,
    parse_memory,
)
from ffnet_deploy.core.contract import weight_notes
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.files import write_bytes
from ffnet_deploy.core.label_maps import LabelMap, ignore_label
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.engines.source import Source, names_config
from ffnet_deploy.evaluation.datasets import Sample, open_images
from ffnet_deploy.evaluation.evaluate import EvaluateOptions, evaluate
from ffnet_deploy.evaluation.prediction_files import SaveOptions
from ffnet_deploy.evaluation.protocol import PredictOptions
from ffnet_deploy.evaluation.rasters import predict_raster
from ffnet_deploy.evaluation.video import is_video, predict_video

_NETWORK = "Exported graph or engine, or the name or file of a config."
_SOURCE = "Image, folder, pattern (in quotes), video, number of a camera, address (rtsp://...), or raster."

app = make_app(
    "ffnet-predict",
    "Label the pixels of images, videos, cameras or rasters with an exported network, or a config with its checkpoint.",
    "NETWORK SOURCE",
)


@dataclass(frozen=True)
class PredictFlags(PixelFlags):
    """Which labels count, how many images are predicted, and what is written besides label maps."""

    threshold: Annotated[tuple[str, ...], option(PROTOCOL, "[CLASS=]SHARE")] = ()
    """Least probability of a label, 0 to 1, for all classes or CLASS=SHARE for one. May be repeated."""
    limit: Annotated[int | None, option(DATA, "N")] = None
    """Predict the first N images or frames only."""
    csv: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """Write the share of each class in each image to this CSV file."""
    save_video: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """Write the video with the prediction over it to this .mp4 file. By default predictions/NAME.mp4."""
    save_raster: Annotated[Path | None, option(OUTPUT, "FILE")] = None
    """Label a raster of any size in windows of its own resolution, and write the classes to this GeoTIFF."""
    memory: Annotated[str, option(OUTPUT, "SIZE")] = "2GiB"
    """Memory within which --save-raster works, for instance 1500MiB."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.limit < 1:
            raise OptionError(f"--limit takes a number from 1: got {self.limit}")
        if self.save_video is not None and self.save_video.suffix.lower() != ".mp4":
            raise OptionError(f"--save-video takes a file that ends in .mp4: got {self.save_video}")
        if self.save_raster is not None and self.save_raster.suffix.lower() not in (".tif", ".tiff"):
            raise OptionError(f"--save-raster takes a file that ends in .tif: got {self.save_raster}")
        parse_memory(self.memory, "--memory")

    def predicting(self, options: PredictOptions, classes: Sequence[str]) -> PredictOptions:
        """`options` with the thresholds; those of single classes replace the one of all.

        Raises:
            OptionError: a threshold is no number.
        """
        if not self.threshold:
            return options
        of_all: dict[str, float] = {}
        of_one: dict[str, float] = {}
        for text in self.threshold:
            name, _, value = text.rpartition("=")
            try:
                (of_one if name else of_all).update(dict.fromkeys([name] if name else classes, float(value)))
            except ValueError as error:
                raise OptionError(f"--threshold takes SHARE or CLASS=SHARE, 0 to 1: got {text!r}") from error
        return replace(options, thresholds=of_all | of_one)


@app.default
def command(
    network: Annotated[str, option(EVERYDAY, help=_NETWORK)],
    source: Annotated[str, option(EVERYDAY, help=_SOURCE)],
    *,
    run: Annotated[RunFlags, FLAT] = RunFlags(),
    protocol: Annotated[ProtocolFlags, FLAT] = ProtocolFlags(),
    save: Annotated[SaveFlags, FLAT] = SaveFlags(),
    flags: Annotated[PredictFlags, FLAT] = PredictFlags(),
) -> int:
    """Predict what is named and write what is asked for, then say where it is."""
    flags.allow_pixels()
    opened = run.source_of(None, network) if names_config(network) else run.source_of(Path(network), None)
    outputs = Outputs(*opened.files, Path(source))
    outputs.claim_folder(run.engine_cache)
    job = Job(source, opened, outputs, protocol, save, flags)
    if flags.save_raster is not None:
        return job.label_raster(flags.save_raster)
    return job.label_video() if is_video(source) else job.label_images()


@dataclass(frozen=True)
class Job:
    """What the command line asks for.

    Attributes:
        source: What to label, as it was typed.
        network: Where the network comes from.
        outputs: What must not be overwritten.
        protocol: How images are resized and cut.
        save: Which files are written of each image.
        flags: Everything else.
    """

    source: str
    network: Source
    outputs: Outputs
    protocol: ProtocolFlags
    save: SaveFlags
    flags: PredictFlags

    def label_raster(self, out: Path) -> int:
        """Label a raster in windows, and say how well they fit together."""
        flags = self.flags
        if flags.save_video is not None or flags.csv is not None or self._saved().folders or flags.limit:
            raise OptionError("a raster becomes a raster: --limit and what else is written are of images and videos")
        self.outputs.claim(out, Kind.RASTER)
        with progress_bar() as progress, self.network.open(progress) as engine:
            how = self._how(engine)
            memory = parse_memory(flags.memory, "--memory")
            raster = predict_raster(engine, Path(self.source), out, how.protocol, how.predict, memory, progress)
        for note in (*engine.notes, *weight_notes(engine.contract.sources), *raster.notes):
            report_note(note)
        console.print(f"{raster.size[1]}x{raster.size[0]} pixels by {raster.windows} windows in {raster.seconds:.1f} s")
        console.print(f"seam error: neighbouring windows differ on {raster.seam_error:.2%} of the pixels they share")
        console.print(f"classes in {out}", soft_wrap=True)
        return ExitCode.DONE

    def label_video(self) -> int:
        """Write the video with the prediction over it."""
        flags, source = self.flags, self.source
        if flags.csv is not None or self._saved().folders:
            raise OptionError(
                "a video becomes a video: --csv, --save-images, --save-labels and --save-scores are of images"
            )
        out = flags.save_video or PICTURES / f"{'camera' if source.isdecimal() else Path(source).stem}.mp4"
        self.outputs.claim(out, Kind.VIDEO)
        with progress_bar() as progress, self.network.open(progress) as engine:
            how = self._how(engine)
            made = predict_video(engine, source, out, how.protocol, how.predict, flags.limit, progress)
        for note in (*engine.notes, *weight_notes(engine.contract.sources)):
            report_note(note)
        console.print(f"{made.frames} frames in {made.seconds:.1f} s ({made.rate:.1f} frames a second)")
        console.print(f"video in {out}", soft_wrap=True)
        return ExitCode.DONE

    def label_images(self) -> int:
        """Label images, leaving out those that cannot be read."""
        flags, saved = self.flags, self._saved()
        if flags.save_video is not None:
            raise OptionError(f"--save-video is of videos and cameras; {self.source} is read as images")
        for folder in saved.folders:
            self.outputs.claim_folder(folder)
        self.outputs.claim(flags.csv, Kind.SHARES)
        with progress_bar() as progress, self.network.open(progress) as engine:
            samples = open_images(Path(self.source), leave_out=saved.folders)
            shares = ClassShares(engine)
            found = evaluate(engine, samples, self._how(engine), progress, shares.add)
        if flags.csv is not None:
            write_bytes(flags.csv, shares.table())
        for note in (*engine.notes, *found.notes):
            report_note(note)
        console.print(f"{found.images} images in {found.seconds:.1f} s")
        show_saved(saved)
        if flags.csv is not None:
            console.print(f"class shares in {flags.csv}", soft_wrap=True)
        show_skipped(found)
        return ExitCode.SKIPPED if found.skipped else ExitCode.DONE

    def _saved(self) -> SaveOptions:
        # pictures of images are the default where nothing else comes of them
        elsewhere = self.flags.csv or self.flags.save_raster or is_video(self.source)
        return self.save.options(labelled=bool(elsewhere))

    def _how(self, engine: Engine) -> EvaluateOptions:
        how = self.protocol.options(engine.contract.protocol, self.flags.limit, self._saved())
        return replace(how, predict=self.flags.predicting(how.predict, engine.contract.classes))


class ClassShares:
    """The share of each class in each image, in the order in which they were predicted."""

    def __init__(self, engine: Engine) -> None:
        self._classes = engine.contract.classes
        self._rows: list[tuple[str, list[float]]] = []

    def add(self, sample: Sample, image: NDArray[np.uint8], labels: LabelMap, truth: LabelMap | None) -> None:
        """Count the classes of one label map (see `evaluate.Watch`)."""
        counts = np.bincount(labels.ravel(), minlength=ignore_label(labels) + 1) / labels.size
        self._rows.append((sample.name, [counts[-1], *counts[: len(self._classes)]]))

    def table(self) -> bytes:
        """The CSV file: a row an image, a column a class, shares of 1."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "no class", *self._classes])
        writer.writerows([name, *(f"{share:.6f}" for share in shares)] for name, shares in self._rows)
        return text.getvalue().encode("utf-8", "surrogateescape")


def main() -> None:
    """Entry point of ``ffnet-predict``."""
    run_command(app)


if __name__ == "__main__":
    main()
