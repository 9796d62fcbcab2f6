"""Rasters of any size: read in windows, labelled with the windows' scores blended, and written in windows.

A raster is labelled at its own resolution. Its columns are divided into stripes so wide that the scores of all windows
that a row of pixels lies in fit the memory; a stripe is labelled from top to bottom, and only the windows at its edges
run twice. The labels do not depend on the stripes.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts.outputs import WRITTEN_BY
from ffnet_deploy.core import stopping
from ffnet_deploy.core.contract import Contract, OutputKind, TestProtocol
from ffnet_deploy.core.errors import DataError, OptionError, StorageError
from ffnet_deploy.core.files import atomic_path
from ffnet_deploy.core.label_maps import LabelMap, ignore_label, label_type
from ffnet_deploy.core.optional import optional
from ffnet_deploy.core.progress import Progress, no_progress
from ffnet_deploy.engines.engine import Engine
from ffnet_deploy.evaluation.finishing import finish, pruned_label_map
from ffnet_deploy.evaluation.protocol import (
    PredictOptions,
    Prepared,
    View,
    check_protocol,
    checked_scores,
    run_network,
)
from ffnet_deploy.evaluation.windows import Box, ScoredWindow, ScoreMap, whole_map, window_boxes

MEMORY = 2 << 30
"""Bytes that labelling a raster takes unless told otherwise."""

_BLOCK = 1024
"""Columns that are labelled at once; a multiple of the tiles of the file that is written."""
_TILE = 256
_MAX_WINDOWS = 1 << 20
"""Most windows of a raster: 340,000 x 340,000 pixels in windows of 512; a damaged header may tell of more."""


@dataclass(frozen=True)
class RasterResult:
    """What was written, and how far its windows agree.

    Attributes:
        size: (height, width) of the raster.
        windows: Number of windows that the network ran on.
        seam_error: Share of the pixels in the overlap of two neighbouring windows which the two label differently,
            0 to 1. What the network sees around a pixel ends at the window, so it is seldom 0.
        seconds: Wall time of reading, predicting, blending and writing.
        notes: What to know of the labels, in words.
    """

    size: tuple[int, int]
    windows: int
    seam_error: float
    seconds: float
    notes: tuple[str, ...] = ()


def predict_raster(
    engine: Engine,
    source: Path,
    out: Path,
    protocol: TestProtocol | None = None,
    options: PredictOptions | None = None,
    memory: int = MEMORY,
    progress: Progress = no_progress,
) -> RasterResult:
    """Write the class of each pixel of the raster `source` as a GeoTIFF with the classes' colours.

    Windows have the crop and stride of a sliding protocol; otherwise the artefact's input size, two thirds of it apart.
    Where they overlap their scores are averaged, each with less weight towards its window's border. Georeference and
    size are kept; what is no data in `source` gets the ignore label (255, or 65535 above 255 classes), which is the
    no-data value of `out`. A raster smaller than a window is continued by its mirror image.

    Args:
        engine: Runs the network.
        source: Raster that rasterio reads: three 8-bit bands or more, of which the first three are red, green, blue.
        out: GeoTIFF to write, atomically.
        protocol: Crop and stride of the windows; None takes the artefact's own.
        options: Batch of windows; there is one pass over a raster.
        memory: Bytes of the process: half at most for scores, an eighth for GDAL's cache, the rest for the network.
        progress: Told of the windows done.

    Raises:
        OptionError: the artefact gives labels only, several passes or thresholds are asked for, or `memory` is too
            small for one stripe.
        DataError: the raster cannot be read, or has other bands.
        MissingPackageError: rasterio is not installed.
        StorageError: the output cannot be written.
    """
    rasterio = optional("rasterio", extra="raster", purpose="reading and writing rasters")
    contract, begin = engine.contract, time.perf_counter()
    protocol, options = _sliding(contract, protocol or contract.protocol), options or PredictOptions()
    check_protocol(contract, protocol, options)
    if contract.output is OutputKind.LABELS:
        raise OptionError(
            "the scores of a raster's windows are blended, and this artefact gives labels only.\n"
            "  to do    export it with --output logits"
        )
    if options.passes > 1 or options.needs_scores:
        raise OptionError("a raster is labelled in one pass: leave out --multi-scale, --flip and --threshold")
    assert protocol.crop is not None and protocol.stride is not None  # `_sliding` sets both
    with (
        rasterio.Env(GDAL_CACHEMAX=max(memory // 8, 1 << 20)),
        _opened(rasterio, source) as raster,
        atomic_path(out) as temporary,
        _LabelFile(rasterio, temporary, out, raster, contract) as labelled,
    ):
        size = max(raster.height, protocol.crop[0]), max(raster.width, protocol.crop[1])
        _check_extent(raster, size, protocol.stride, memory)
        boxes = window_boxes(size, protocol.crop, protocol.stride)
        run = _Windows(engine, rasterio, raster, options.batch)
        (first,) = run.scored(boxes[:1])
        stripes = _stripes(boxes, size[1], first, memory)
        inside = [[box for box in boxes if _shared(box, stripe)] for stripe in stripes]
        total, done, seams = sum(map(len, inside)), 0, _Seams()
        for stripe, stripe_boxes in zip(stripes, inside, strict=True):
            held: list[ScoredWindow] = []
            rows = [list(row) for _, row in groupby(stripe_boxes, key=lambda box: box.top)]
            finished = 0
            for row, following in zip(rows, (*(row[0].top for row in rows[1:]), size[0]), strict=True):
                for start in range(0, len(row), options.batch):
                    stopping.check()
                    held += run.scored(row[start : start + options.batch])
                    done += len(row[start : start + options.batch])
                    progress(f"labelling {source.name}", done, total)
                seams.add(held[-len(row) :], stripe)
                for left in range(stripe.start, stripe.stop, _BLOCK):
                    block = Box(finished, left, following - finished, min(_BLOCK, stripe.stop - left))
                    labelled.write(_blended(held, block), block)
                finished = following
                held = [window for window in held if window.box.bottom > finished]
    return RasterResult(
        (raster.height, raster.width), total, seams.share, time.perf_counter() - begin, tuple(run.notes)
    )


def _sliding(contract: Contract, protocol: TestProtocol) -> TestProtocol:
    """`protocol` with windows of the artefact's input size, two thirds of it apart, unless it has some of its own."""
    if protocol.mode == "slide":
        return protocol
    height, width = contract.height.opt, contract.width.opt
    stride = -(-height * 2 // 3), -(-width * 2 // 3)
    return replace(protocol, mode="slide", crop=(height, width), stride=stride)


@contextmanager
def _opened(rasterio: Any, source: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # of a raster without, here and there
        try:
            raster = rasterio.open(source)
        except rasterio.errors.RasterioError as error:
            raise _unreadable(source, error) from error
        with raster:
            kinds = raster.dtypes[:3]
            if len(kinds) < 3 or set(kinds) != {"uint8"}:
                raise DataError(
                    f"the raster {source} has {raster.count} bands of {', '.join(dict.fromkeys(raster.dtypes))}; "
                    "expected red, green and blue of uint8, the first three.\n"
                    "  to do    gdal_translate -b 1 -b 2 -b 3 -ot Byte -scale, with the numbers of its bands"
                )
            yield raster


def _check_extent(raster: Any, size: tuple[int, int], stride: tuple[int, int], memory: int) -> None:
    """Raise `DataError` where a raster has too many windows, or is stored in blocks that the memory does not hold."""
    if size[0] * size[1] > _MAX_WINDOWS * stride[0] * stride[1]:
        raise DataError(
            f"the raster {raster.name} has {raster.width}x{raster.height} pixels, and is labelled in at most "
            f"{_MAX_WINDOWS} windows.\n  to do    check it with gdalinfo, or give a longer --stride or parts of it"
        )
    height, width = max(raster.block_shapes, key=lambda shape: shape[0] * shape[1])
    if height * width * raster.count > memory // 4:
        raise DataError(
            f"the raster {raster.name} is stored in blocks of {width}x{height}, which are read as a whole: too large "
            f"for {memory >> 20} MiB.\n  to do    gdal_translate -co TILED=YES"
        )


def _unreadable(source: Path, error: Exception) -> DataError:
    return DataError(f"the raster {source} cannot be read: {error}.\n  to do    open it with gdalinfo -checksum")


class _LabelFile:
    """The GeoTIFF of labels: the size and place of a raster, and the colours of the classes.

    GDAL says nothing of blocks that found no room on the disk when it wrote them, late: what was written is read again.

    Args:
        rasterio: The package.
        path: Where it is written.
        out: What errors call it.
        raster: The source.
        contract: Of the network.
    """

    def __init__(self, rasterio: Any, path: Path, out: Path, raster: Any, contract: Contract) -> None:
        self._rasterio, self._raster, self._path, self._out = rasterio, raster, path, out
        kind = label_type(len(contract.classes))
        self._written = np.zeros(np.iinfo(kind).max + 1, np.int64)
        self._file = rasterio.open(
            path, "w", driver="GTiff", width=raster.width, height=raster.height, count=1, dtype=kind.name,
            crs=raster.crs, transform=raster.transform, nodata=np.iinfo(kind).max, tiled=True, blockxsize=_TILE,
            blockysize=_TILE, compress="deflate", bigtiff="if_safer",
        )  # fmt: skip
        points, crs = raster.gcps
        if points:
            self._file.gcps = points, crs
        if raster.rpcs is not None:
            self._file.rpcs = raster.rpcs
        self._file.update_tags(TIFFTAG_SOFTWARE=WRITTEN_BY)
        self._file.write_colormap(1, {number: (*colour, 255) for number, colour in enumerate(contract.palette)})

    def write(self, labels: LabelMap, block: Box) -> None:
        """Write what of `block` lies in the raster, where it has data.

        Raises:
            DataError: the raster cannot be read.
        """
        if block.top >= self._raster.height or block.left >= self._raster.width:
            return
        window = _inside(self._rasterio, self._raster, block)
        kept = labels[: int(window.height), : int(window.width)]
        try:
            valid = self._raster.dataset_mask(window=window)
        except self._rasterio.errors.RasterioError as error:
            raise _unreadable(Path(self._raster.name), error) from error
        kept[valid == 0] = ignore_label(labels)
        self._file.write(kept, 1, window=window)
        self._written += np.bincount(kept.ravel(), minlength=self._written.size)

    def __enter__(self) -> "_LabelFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None and not np.array_equal(self._read_again(), self._written):
            raise StorageError(
                f"no room left to write {self._out}.\n  to do    free some disk space, or write elsewhere"
            )

    def _read_again(self) -> NDArray[np.int64]:
        """How many pixels of each label the file has; fewer where a part of it cannot be read."""
        found = np.zeros_like(self._written)
        with suppress(self._rasterio.errors.RasterioError), self._rasterio.open(self._path) as file:
            for top in range(0, file.height, _TILE):
                rows = _inside(self._rasterio, file, Box(top, 0, _TILE, file.width))
                found += np.bincount(file.read(1, window=rows).ravel(), minlength=found.size)
        return found


class _Windows:
    """Runs the network on windows of a raster.

    Attributes:
        notes: What was noticed of its output.
    """

    def __init__(self, engine: Engine, rasterio: Any, raster: Any, batch: int) -> None:
        self.notes: dict[str, None] = {}
        self._engine, self._rasterio, self._raster, self._batch = engine, rasterio, raster, batch

    def scored(self, boxes: Sequence[Box]) -> list[ScoredWindow]:
        """The scores of each window, in the host's memory."""
        views = [View(box.size, (Box(0, 0, *box.size),), (self._pixels(box),)) for box in boxes]
        prepared = [Prepared(view.size, (view,)) for view in views]
        scored = []
        for box, (output,) in zip(boxes, run_network(self._engine, prepared, self._batch), strict=True):
            on_host = output if isinstance(output, np.ndarray) else output.cpu().numpy()
            scores = checked_scores(on_host, self._engine.contract, lambda note: self.notes.update({note: None}))
            scored.append(ScoredWindow(box, scores))
        return scored

    def _pixels(self, box: Box) -> NDArray[np.uint8]:
        """What the network sees of `box`, uint8 (height, width, 3) BGR; beyond the raster's edges its mirror image."""
        window = _inside(self._rasterio, self._raster, box)
        try:
            bands = self._raster.read((3, 2, 1), window=window)
        except self._rasterio.errors.RasterioError as error:
            raise _unreadable(Path(self._raster.name), error) from error
        image = np.ascontiguousarray(np.moveaxis(bands, 0, -1))
        below, beside = box.height - image.shape[0], box.width - image.shape[1]
        if below or beside:
            image = cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_REFLECT).astype(np.uint8, copy=False)
        return image


def _inside(rasterio: Any, raster: Any, box: Box) -> Any:
    """The window of `raster` that `box` shows."""
    height, width = min(box.bottom, raster.height) - box.top, min(box.right, raster.width) - box.left
    return rasterio.windows.Window(box.left, box.top, width, height)


def _shared(box: Box, columns: range) -> bool:
    return box.left < columns.stop and box.right > columns.start


def _stripes(boxes: Sequence[Box], width: int, first: ScoredWindow, memory: int) -> list[range]:
    """The columns of each stripe, so many that what is kept of their windows takes half of `memory` at most.

    Args:
        boxes: All windows.
        width: Columns in all.
        first: One of the windows.
        memory: Bytes.
    """
    tops = sorted({box.top for box in boxes})
    deep = max(sum(top - first.box.height < other <= top for other in tops) for top in tops)
    kept: int = deep * first.scores.nbytes + 2 * first.box.height * first.box.width  # scores, and labels to compare
    row = [box for box in boxes if box.top == 0]

    def needed(columns: range) -> int:
        return 2 * sum(_shared(box, columns) for box in row) * kept

    stripes, start = list[range](), 0
    while start < width:
        columns = range(start, min(start + _BLOCK, width))
        if needed(columns) > memory:
            raise OptionError(
                f"{memory >> 20} MiB are too little for windows of {first.box.height}x{first.box.width}: to blend "
                f"their scores takes {(needed(columns) >> 20) + 1} MiB.\n"
                "  to do    give so much by --memory, smaller windows by --crop, or a longer --stride"
            )
        while columns.stop < width and needed(wider := range(start, min(columns.stop + _BLOCK, width))) <= memory:
            columns = wider
        stripes.append(columns)
        start = columns.stop
    return stripes


def _blended(windows: Sequence[ScoredWindow], block: Box) -> LabelMap:
    """The labels of `block`, (height, width), by the windows that show a part of it."""
    around = [one for one in windows if _shared(one.box, range(block.left, block.right)) and one.box.top < block.bottom]
    top, left = min(one.box.top for one in around), min(one.box.left for one in around)
    size = max(one.box.bottom for one in around) - top, max(one.box.right for one in around) - left
    moved = tuple(replace(one, box=replace(one.box, top=one.box.top - top, left=one.box.left - left)) for one in around)
    part = slice(block.top - top, block.bottom - top), slice(block.left - left, block.right - left)
    return pruned_label_map(ScoreMap(size, moved, feathered=True), size, part)


class _Seams:
    """Counts on how many of the pixels that two neighbouring windows show their labels differ."""

    def __init__(self) -> None:
        self._pixels = self._differing = 0
        self._above: dict[int, tuple[Box, LabelMap]] = {}

    @property
    def share(self) -> float:
        """Share of the pixels that differ, 0 to 1; 0 where no windows overlap."""
        return self._differing / self._pixels if self._pixels else 0.0

    def add(self, row: Sequence[ScoredWindow], stripe: range) -> None:
        """Compare a row of windows with each other and with the row above; what begins in another stripe counts there.

        Args:
            row: All windows of the stripe that begin in one row of pixels.
            stripe: Columns.
        """
        labelled = {one.box.left: (one.box, finish([whole_map(one.scores, one.box.size)], one.box.size)) for one in row}
        previous = None
        for left, current in labelled.items():
            for other in (previous, self._above.get(left) if row[0].box.top > 0 else None):
                if other is not None and left in stripe:
                    self._compare(other, current)
            previous = current
        self._above = labelled

    def _compare(self, first: tuple[Box, LabelMap], second: tuple[Box, LabelMap]) -> None:
        (one, labels), (other, others) = first, second
        top, bottom = max(one.top, other.top), min(one.bottom, other.bottom)
        left, right = max(one.left, other.left), min(one.right, other.right)
        if top < bottom and left < right:
            ours = labels[top - one.top : bottom - one.top, left - one.left : right - one.left]
            theirs = others[top - other.top : bottom - other.top, left - other.left : right - other.left]
            self._pixels += ours.size
            self._differing += int((ours != theirs).sum())
