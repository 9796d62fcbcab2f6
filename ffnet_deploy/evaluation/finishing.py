"""From the network's scores to label maps on a CPU: enlarge, average, softmax, and take the best class of each pixel.

Two ways give the same labels. `banded_label_map` computes every score of every pixel, a band of rows at a time, and
serves all cases. `pruned_label_map` serves one score map without softmax and skips most of the work: bilinear enlarging
is a convex combination, so where all source positions of a pixel have the same best class, that class is the answer,
and elsewhere a class whose largest score around the pixel is below the smallest score of another cannot win.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.label_maps import LabelMap, label_type
from ffnet_deploy.evaluation.resampling import bilinear_taps
from ffnet_deploy.evaluation.windows import ScoreMap

BAND_VALUES = 500_000
"""Scores held at once while label maps are made: 2 MB of float32, which stay in a processor's cache."""


def finish(maps: Sequence[ScoreMap], size: tuple[int, int], softmax: bool = False) -> LabelMap:
    """The best class at each pixel of an image of `size` (height, width).

    Args:
        maps: Scores of the image: one map, or several whose scores are averaged.
        size: (height, width) of the image.
        softmax: Whether each map goes through a softmax over the classes before the average.
    """
    if len(maps) == 1 and not softmax and len(maps[0].windows) == 1:
        return pruned_label_map(maps[0], size)
    return banded_label_map(maps, size, softmax)


def banded_label_map(maps: Sequence[ScoreMap], size: tuple[int, int], softmax: bool = False) -> LabelMap:
    """What `finish` gives, from the scores of all classes at all pixels; bands of rows share the machine's cores."""
    classes = maps[0].windows[0].scores.shape[0]
    labels: LabelMap = np.empty(size, label_type(classes))
    step = max(BAND_VALUES // (classes * size[1]), 1)

    def fill(start: int) -> None:
        stop = min(start + step, size[0])
        total: NDArray[np.float32] | None = None
        for one in maps:
            band = one.resized_rows(size, start, stop)
            if softmax:
                band = band - band.max(axis=-1, keepdims=True)
                np.exp(band, out=band)
                band /= band.sum(axis=-1, keepdims=True)
            total = band if total is None else total + band
        assert total is not None
        labels[start:stop] = total.argmax(axis=-1)

    for _ in _threads().map(fill, range(0, size[0], step)):
        pass
    return labels


class AxisTaps(NamedTuple):
    """Along one axis, for every target pixel: the first source position it is interpolated from, and all weights.

    Attributes:
        first: First of `weights.shape[1]` neighbouring source positions, intp (target,).
        weights: Weight of each, float32 (target, positions); they are not negative and sum to 1.
    """

    first: NDArray[np.intp]
    weights: NDArray[np.float32]


@lru_cache(maxsize=256)
def composed_taps(sizes: tuple[int, ...]) -> AxisTaps:
    """The taps of bilinear resizes in a row, from ``sizes[0]`` over ... to ``sizes[-1]`` positions."""
    matrix = np.eye(sizes[0])
    for source, target in pairwise(sizes):
        if source != target:
            taps = bilinear_taps(source, target)
            weight = taps.weight.astype(np.float64)[:, None]
            matrix = matrix[taps.below] * (1 - weight) + matrix[taps.above] * weight
    used = matrix > 0
    first = used.argmax(axis=1)
    reach = int((sizes[0] - used[:, ::-1].argmax(axis=1) - first).max())
    first = np.minimum(first, sizes[0] - reach)  # the taps of the last positions begin earlier, with zero weights
    weights = np.take_along_axis(matrix, first[:, None] + np.arange(reach), axis=1)
    return AxisTaps(first.astype(np.intp), np.ascontiguousarray(weights, dtype=np.float32))


def pruned_label_map(scored: ScoreMap, size: tuple[int, int]) -> LabelMap:
    """What `finish` gives for one map of one window, computing scores only where and of which classes it matters."""
    scores = scored.windows[0].scores
    if scored.mirrored:
        scores = scores[:, :, ::-1]
    scores = np.ascontiguousarray(scores)
    classes, height, width = scores.shape
    best = _best_at_source(scores)
    rows = composed_taps((height, scored.size[0], size[0]))
    columns = composed_taps((width, scored.size[1], size[1]))
    row_reach, column_reach = rows.weights.shape[1], columns.weights.shape[1]

    # where all the source positions of a pixel agree, their class is the pixel's
    beside = best[:, columns.first]
    agree = np.ones(beside.shape, bool)
    for step in range(1, column_reach):
        agree &= (best[:, columns.first + step] == beside) | (columns.weights[:, step] == 0)
    labels: LabelMap = beside[rows.first]
    settled = agree[rows.first]
    for step in range(1, row_reach):
        below = rows.first + step
        settled &= ((beside[below] == labels) & agree[below]) | (rows.weights[:, step] == 0)[:, None]

    open_rows, open_columns = np.nonzero(~settled)
    if open_rows.size == 0:
        return labels
    # the classes that can win in each patch of source positions: their largest score reaches the best smallest one
    position = rows.first[open_rows] * width + columns.first[open_columns]
    patches, patch = np.unique(position, return_inverse=True)
    flat = scores.reshape(classes, height * width)
    offsets = [down * width + across for down in range(row_reach) for across in range(column_reach)]
    largest = flat[:, patches + offsets[0]]
    smallest = largest.copy()
    for offset in offsets[1:]:
        values = flat[:, patches + offset]
        np.maximum(largest, values, out=largest)
        np.minimum(smallest, values, out=smallest)
    can_win = largest >= smallest.max(axis=0)
    _, candidates = np.nonzero(can_win.T)
    counts = can_win.sum(axis=0)
    begins = np.cumsum(counts) - counts

    # pixels with many candidates first, so that those which still have one to try are always a prefix
    order = np.argsort(-counts[patch], kind="stable")
    open_rows, open_columns, patch, position = open_rows[order], open_columns[order], patch[order], position[order]
    row_weights, column_weights = rows.weights[open_rows].T.copy(), columns.weights[open_columns].T.copy()
    weights = [
        row_weights[down] * column_weights[across] for down in range(row_reach) for across in range(column_reach)
    ]
    values_of, begin, count = scores.reshape(-1), begins[patch], counts[patch]
    winner = np.zeros(position.shape, labels.dtype)
    highest = np.full(position.shape, -np.inf, np.float32)
    for number in range(int(count[0])):
        here = slice(0, int(np.searchsorted(-count, -number, side="left")))
        candidate = candidates[begin[here] + number]
        base = candidate * (height * width) + position[here]
        value = values_of.take(base) * weights[0][here]
        for offset, weight in zip(offsets[1:], weights[1:], strict=True):
            value += values_of.take(base + offset) * weight[here]
        better = value > highest[here]
        np.copyto(highest[here], value, where=better)
        np.copyto(winner[here], candidate.astype(labels.dtype), where=better)
    labels[open_rows, open_columns] = winner
    return labels


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
