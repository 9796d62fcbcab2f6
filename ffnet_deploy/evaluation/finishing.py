"""From the network's scores to label maps: enlarge, average, softmax, and take the best class of each pixel.

Three ways give the same labels. `banded_label_map` computes every score of every pixel, a band of rows at a time, and
serves all cases on a CPU. `pruned_label_map` serves one score map without softmax and skips most of the work: enlarging
and averaging windows is a convex combination, so where all source positions of a pixel have the same best class, that
class is the answer, and elsewhere a class whose largest score around the pixel is below the smallest score of another
cannot win. `device_label_map` serves scores that an engine left on its GPU.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.label_maps import LabelMap, label_type
from ffnet_deploy.evaluation.resampling import bilinear_taps
from ffnet_deploy.evaluation.windows import ScoreMap, border_weights

BAND_VALUES = 500_000
"""Scores held at once while label maps are made: 2 MB of float32, which stay in a processor's cache."""
DEVICE_VALUES = 1 << 26
"""The same on a GPU: 256 MB of float32."""
OPEN_PIXEL, OPEN_TAP = 15, 4
"""A pixel whose source positions disagree costs as much as the scores of so many classes, and of so many more for each
source position: measured on a CPU with AVX-512."""


def finish(maps: Sequence[ScoreMap], size: tuple[int, int], softmax: bool = False) -> LabelMap:
    """The best class at each pixel of an image of `size` (height, width).

    Args:
        maps: Scores of the image: one map, or several whose scores are averaged.
        size: (height, width) of the image.
        softmax: Whether each map goes through a softmax over the classes before the average.
    """
    if not isinstance(maps[0].windows[0].scores, np.ndarray):
        return device_label_map(maps, size, softmax)
    if len(maps) == 1 and not softmax:
        return pruned_label_map(maps[0], size)
    return banded_label_map(maps, size, softmax)


def banded_label_map(maps: Sequence[ScoreMap], size: tuple[int, int], softmax: bool = False) -> LabelMap:
    """What `finish` gives, from the scores of all classes at all pixels; bands of rows share the machine's cores."""
    labels: LabelMap = np.empty(size, label_type(len(maps[0].windows[0].scores)))

    def fill(rows: slice) -> None:
        labels[rows] = _summed_rows(maps, size, rows, softmax).argmax(axis=-1)

    for _ in _threads().map(fill, _bands(maps[0], size, slice(0, size[0]))):
        pass
    return labels


def device_label_map(maps: Sequence[ScoreMap], size: tuple[int, int], softmax: bool = False) -> LabelMap:
    """What `finish` gives for scores that are PyTorch tensors, computed where these lie; label maps alone come back.

    Enlarging, averaging windows and turning mirrored images back are two matrix products.
    """
    passes = []
    for scored in maps:
        grid, rows, columns = score_grid(scored, size)
        of_rows, of_columns = rows.matrix(grid.shape[1]), columns.matrix(grid.shape[2])
        passes.append((grid.new_tensor(of_rows), grid, grid.new_tensor(of_columns).T))
    classes = len(passes[0][1])
    kind, step = label_type(classes), max(DEVICE_VALUES // (classes * size[1]), 1)
    bands = []
    for start in range(0, size[0], step):
        total: Any = 0
        for rows_matrix, grid, columns_matrix in passes:
            band = rows_matrix[start : start + step] @ grid @ columns_matrix
            total = total + (band.softmax(0) if softmax else band)
        labels = total.argmax(0)
        bands.append((labels.byte() if kind == np.uint8 else labels.int()).cpu().numpy())
    return np.concatenate(bands).astype(kind, copy=False)


def class_probabilities(maps: Sequence[ScoreMap], size: tuple[int, int], softmax: bool) -> NDArray[np.float32]:
    """The probability of each class at each pixel, float32 (classes, height, width), averaged over `maps`.

    Args:
        maps: Scores of the image.
        size: (height, width) of the image.
        softmax: Whether the scores are logits; otherwise they are probabilities already.
    """
    classes = len(maps[0].windows[0].scores)
    probabilities = np.empty((classes, *size), np.float32)

    def fill(rows: slice) -> None:
        band = _summed_rows(maps, size, rows, softmax)
        probabilities[:, rows] = np.moveaxis(band, -1, 0) / np.float32(len(maps))

    for _ in _threads().map(fill, _bands(maps[0], size, slice(0, size[0]))):
        pass
    return probabilities


def _bands(scored: ScoreMap, size: tuple[int, int], rows: slice) -> list[slice]:
    """`rows` of an image of `size` in bands that hold `BAND_VALUES` scores each."""
    step = max(BAND_VALUES // (len(scored.windows[0].scores) * size[1]), 1)
    return [slice(first, min(first + step, rows.stop)) for first in range(rows.start, rows.stop, step)]


def _summed_rows(
    maps: Sequence[ScoreMap], size: tuple[int, int], rows: slice, softmax: bool = False
) -> NDArray[np.float32]:
    """Some rows of all `maps` resized to `size`, summed: float32 (rows, width, classes)."""
    total: NDArray[np.float32] | None = None
    for one in maps:
        band = one.resized_rows(size, rows.start, rows.stop)
        if softmax:
            band = band - band.max(axis=-1, keepdims=True)
            np.exp(band, out=band)
            band /= band.sum(axis=-1, keepdims=True)
        total = band if total is None else total + band
    assert total is not None
    return total


class AxisTaps(NamedTuple):
    """Along one axis, for every target pixel: the source positions it is interpolated from, and their weights.

    Attributes:
        positions: Source positions, intp (target, taps), those of all windows numbered one after the other; where a
            pixel has fewer, its first again.
        weights: Weight of each, float32 (target, taps); they are not negative and sum to 1.
        cell: Number of each target pixel's cell, intp (target,): neighbours with the same positions share one.
        corners: The positions of each cell, intp (cells, taps).
    """

    positions: NDArray[np.intp]
    weights: NDArray[np.float32]
    cell: NDArray[np.intp]
    corners: NDArray[np.intp]

    def part(self, pixels: slice) -> "AxisTaps":
        """The taps of some of the target pixels."""
        return AxisTaps(self.positions[pixels], self.weights[pixels], self.cell[pixels], self.corners)

    def matrix(self, sources: int) -> NDArray[np.float32]:
        """The same as a matrix, float32 (target, sources), by which scores along the axis are multiplied."""
        matrix = np.zeros((len(self.positions), sources), np.float32)
        np.add.at(matrix, (np.arange(len(matrix))[:, None], self.positions), self.weights)
        return matrix


@lru_cache(maxsize=256)
def axis_taps(
    starts: tuple[int, ...],
    side: int,
    source: int,
    shown: int,
    target: int,
    mirrored: bool = False,
    feathered: bool = False,
) -> AxisTaps:
    """The taps of what `ScoreMap.resized_rows` does along one axis, in one step.

    Args:
        starts: Where each window begins.
        side: Pixels of a window.
        source: Scores that the network gives for a window.
        shown: Pixels shown to the network.
        target: Pixels of the image.
        mirrored: Whether the image was shown mirrored along this axis.
        feathered: Whether windows weigh less towards their borders.
    """
    matrix = np.zeros((shown, len(starts) * source))
    one, pixels = bilinear_taps(source, side), np.arange(side)
    weight_of = border_weights(side) if feathered else np.ones(side, np.float32)
    for number, start in enumerate(starts):
        np.add.at(matrix, (start + pixels, number * source + one.below), weight_of * (1.0 - one.weight))
        np.add.at(matrix, (start + pixels, number * source + one.above), weight_of * one.weight)
    matrix /= matrix.sum(axis=1, keepdims=True)  # overlapping windows are averaged
    if mirrored:
        matrix = matrix[::-1]
    if shown != target:
        taps = bilinear_taps(shown, target)
        weight = taps.weight.astype(np.float64)[:, None]
        matrix = matrix[taps.below] * (1 - weight) + matrix[taps.above] * weight

    pixel, position = np.nonzero(matrix)
    counts = np.bincount(pixel, minlength=target)
    begins = np.cumsum(counts) - counts
    positions = np.repeat(position[begins][:, None], counts.max(), axis=1)
    weights = np.zeros(positions.shape, np.float32)
    tap = np.arange(pixel.size) - begins[pixel]
    positions[pixel, tap] = position
    weights[pixel, tap] = matrix[pixel, position]
    opens_cell = np.r_[True, (positions[1:] != positions[:-1]).any(axis=1)]
    return AxisTaps(positions, weights, np.cumsum(opens_cell) - 1, positions[opens_cell])


def score_grid(scored: ScoreMap, size: tuple[int, int]) -> tuple[Any, AxisTaps, AxisTaps]:
    """The scores of all windows as one map, and the taps of its rows and columns for an image of `size`.

    Returns:
        Scores (classes, rows of windows * height, windows in a row * width), an array or a tensor as the windows' own;
        taps of the rows; of the columns.
    """
    first = scored.windows[0]
    tops = tuple(dict.fromkeys(window.box.top for window in scored.windows))
    lefts = tuple(dict.fromkeys(window.box.left for window in scored.windows))
    classes, height, width = first.scores.shape
    shape = classes, len(tops) * height, len(lefts) * width
    grid = np.empty(shape, np.float32) if isinstance(first.scores, np.ndarray) else first.scores.new_empty(shape)
    for window in scored.windows:
        top, left = tops.index(window.box.top) * height, lefts.index(window.box.left) * width
        grid[:, top : top + height, left : left + width] = window.scores
    rows = axis_taps(tops, first.box.height, height, scored.size[0], size[0], feathered=scored.feathered)
    columns = axis_taps(lefts, first.box.width, width, scored.size[1], size[1], scored.mirrored, scored.feathered)
    return grid, rows, columns


def pruned_label_map(scored: ScoreMap, size: tuple[int, int], part: tuple[slice, slice] | None = None) -> LabelMap:
    """What `finish` gives for one map, computing scores only where and of which classes it matters.

    Args:
        scored: Scores of the image, arrays.
        size: (height, width) of the image.
        part: Rows and columns of the image that are labelled, with both ends; None for all.
    """
    scores, rows, columns = score_grid(scored, size)
    down, across = part or (slice(0, size[0]), slice(0, size[1]))
    rows, columns = rows.part(down), columns.part(across)
    best = _best_at_source(scores)
    # where all the source positions of a pixel agree, their class is the pixel's
    beside = best[:, columns.positions[:, 0]]
    agree = np.ones(beside.shape, bool)
    for position in columns.positions.T[1:]:
        agree &= best[:, position] == beside
    labels: LabelMap = beside[rows.positions[:, 0]]
    step = max(BAND_VALUES // labels.shape[1], 1)
    open_cost = OPEN_PIXEL + OPEN_TAP * rows.weights.shape[1] * columns.weights.shape[1]

    def fill(start: int) -> None:
        band = slice(start, min(start + step, len(labels)))
        here = rows.part(band)
        settled = agree[here.positions[:, 0]]
        for position in here.positions.T[1:]:
            settled &= agree[position]
            settled &= beside[position] == labels[band]
        pixels = np.flatnonzero(~settled)
        if pixels.size * open_cost > settled.size * len(scores):  # noise, or windows that contradict each other
            for dense in _bands(scored, size, slice(down.start + band.start, down.start + band.stop)):
                values = _summed_rows([scored], size, dense)[:, across]
                labels[dense.start - down.start : dense.stop - down.start] = values.argmax(axis=-1)
        elif pixels.size:
            labels[band].reshape(-1)[pixels] = _winners(scores, here, columns, *np.divmod(pixels, labels.shape[1]))

    for _ in _threads().map(fill, range(0, len(labels), step)):
        pass
    return labels


def _winners(
    scores: NDArray[np.float32],
    rows: AxisTaps,
    columns: AxisTaps,
    pixel_rows: NDArray[np.intp],
    pixel_columns: NDArray[np.intp],
) -> NDArray[np.intp]:
    """The best class at each of the pixels given by their rows and columns, out of those that can win there."""
    classes, _, width = scores.shape
    flat = scores.reshape(classes, -1)

    # the classes that can win in each cell: their largest score around it reaches the best smallest one
    number = rows.cell[pixel_rows] * len(columns.corners) + columns.cell[pixel_columns]
    wanted = np.zeros(len(rows.corners) * len(columns.corners), bool)
    wanted[number] = True
    cells = np.flatnonzero(wanted)
    cell = (np.cumsum(wanted) - 1)[number]
    cell_rows, cell_columns = np.divmod(cells, len(columns.corners))
    corners = (rows.corners[cell_rows][:, :, None] * width + columns.corners[cell_columns][:, None]).reshape(
        cells.size, -1
    )
    largest = flat.take(corners[:, 0], axis=1)
    smallest = largest.copy()
    for corner in corners.T[1:]:
        values = flat.take(corner, axis=1)
        np.maximum(largest, values, out=largest)
        np.minimum(smallest, values, out=smallest)
    can_win = ~(largest < smallest.max(axis=0))
    of_cell, candidates = np.divmod(np.flatnonzero(np.ascontiguousarray(can_win.T)), classes)
    counts = can_win.sum(axis=0)
    begins = np.cumsum(counts) - counts
    around = flat.take(candidates[:, None] * flat.shape[1] + corners[of_cell])  # (candidates of all cells, corners)

    winner: NDArray[np.intp] = candidates[begins[cell]]
    trying = np.flatnonzero(counts[cell] > 1)
    entry, left = begins[cell[trying]], counts[cell[trying]]
    weights = rows.weights[pixel_rows[trying]][:, :, None] * columns.weights[pixel_columns[trying]][:, None]
    weights = weights.reshape(trying.size, corners.shape[1])
    highest = np.einsum("ij,ij->i", around.take(entry, axis=0), weights)
    while trying.size:
        entry, left = entry + 1, left - 1
        value = np.einsum("ij,ij->i", around.take(entry, axis=0), weights)
        better = value > highest
        winner[trying[better]] = candidates[entry[better]]
        more = left > 1
        trying, entry, left, weights = trying[more], entry[more], left[more], weights[more]
        highest = np.maximum(highest, value)[more]
    return winner


def _best_at_source(scores: NDArray[np.float32]) -> LabelMap:
    """The best class at each position of `scores` (classes, height, width); the first of equals."""
    best: LabelMap = np.zeros(scores.shape[1:], label_type(scores.shape[0]))
    highest = scores[0].copy()
    for number in range(1, scores.shape[0]):
        better = scores[number] > highest
        np.copyto(highest, scores[number], where=better)
        np.copyto(best, best.dtype.type(number), where=better)
    return best


@lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="finishing")
