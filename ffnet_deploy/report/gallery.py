"""Pictures of a report: label maps kept while engines are scored, and the panels made of them."""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import OptionError
from ffnet_deploy.core.label_maps import ignore_label
from ffnet_deploy.evaluation.datasets import Sample
from ffnet_deploy.evaluation.evaluate import Watch
from ffnet_deploy.report.data import Gallery, GallerySample, Panel
from ffnet_deploy.report.format import listed, share
from ffnet_deploy.report.pictures import (
    CHANGES,
    HITS,
    Colour,
    Image,
    Key,
    Labels,
    change_map,
    hit_map,
    map_uri,
    panel_size,
    photo_uri,
)

_NARROWEST = 96
"""Pixels below which panels do not shrink, whatever the budget."""


@dataclass(frozen=True)
class GalleryOptions:
    """How many samples, and how large.

    Attributes:
        count: Largest number of samples, evenly spaced over the data set; 0 for none.
        widest: Longer side of a panel in pixels.
        budget: Bytes that all pictures together may take; they shrink until they do.
    """

    count: int = 12
    widest: int = 768
    budget: int = 7_000_000

    def __post_init__(self) -> None:
        if self.count < 0 or self.widest < _NARROWEST or self.budget < 1:
            raise OptionError(f"a gallery takes a count from 0 and panels from {_NARROWEST} pixels: got {self}")


@dataclass(frozen=True)
class _Packed:
    """A label map in a hundredth of its memory."""

    size: tuple[int, ...]
    dtype: str
    content: bytes

    @classmethod
    def of(cls, labels: Labels) -> "_Packed":
        return cls(labels.shape, labels.dtype.str, zlib.compress(labels.tobytes(), 1))

    def unpacked(self) -> Labels:
        return np.frombuffer(zlib.decompress(self.content), self.dtype).reshape(self.size)


@dataclass
class _Seen:
    """What is kept of one image that the gallery shows."""

    image: Image
    truth: _Packed | None
    predicted: list[_Packed] = field(default_factory=list)


@dataclass
class _Count:
    same: int = 0
    pixels: int = 0


class PredictionCollector:
    """Keeps what a report needs of every prediction: agreement over all images, pictures of a few.

    Args:
        names: of the samples, in order.
        options: how many samples and how large.
        compares: whether further candidates follow the first; label maps of all its images are kept for them.
    """

    def __init__(self, names: Sequence[str], options: GalleryOptions | None = None, compares: bool = True) -> None:
        self._compares = compares
        self.options = options or GalleryOptions()
        self._names = tuple(names)
        self._chosen: dict[str, _Seen | None] = dict.fromkeys(evenly_spaced(self._names, self.options.count))
        self._first: dict[str, _Packed] = {}
        self._counts: list[_Count] = []

    def next_candidate(self) -> Watch:
        """What is to watch the evaluation of the next candidate; the first is what others are compared with."""
        self._counts.append(_Count())
        return self._watch

    def _watch(self, source: Sample, image: Image, predicted: Labels, truth: Labels | None) -> None:
        if not self._compares and source.name not in self._chosen:
            return
        packed = _Packed.of(predicted)
        if len(self._counts) == 1:
            self._first[source.name] = packed
        first = self._first[source.name]
        same = predicted.size if packed == first else int((first.unpacked() == predicted).sum())
        self._counts[-1].same += same
        self._counts[-1].pixels += predicted.size
        if source.name in self._chosen:
            seen = self._chosen[source.name] or _Seen(image.copy(), None if truth is None else _Packed.of(truth))
            seen.predicted.append(packed)
            self._chosen[source.name] = seen

    def agreement(self, candidate: int) -> float:
        """Pixels that the candidate of that number labels as the first does, over all images, percent."""
        count = self._counts[candidate]
        return 100.0 * count.same / count.pixels

    def gallery(self, contract: Contract, names: Sequence[str]) -> Gallery:
        """The chosen samples with their pictures, for candidates called `names`."""
        views = {
            name: Views(
                seen.image,
                None if seen.truth is None else seen.truth.unpacked(),
                tuple(packed.unpacked() for packed in seen.predicted),
            )
            for name, seen in self._chosen.items()
            if seen is not None
        }
        widest = self.options.widest
        while True:
            samples = tuple(_sample(name, view, contract, names, widest) for name, view in views.items())
            total = sum(len(panel.uri) for sample in samples for panel in sample.panels)
            if total <= self.options.budget or widest <= _NARROWEST:
                break
            widest = max(int(widest * min(math.sqrt(self.options.budget / total), 0.95) * 0.97), _NARROWEST)
        choice = "evenly spaced, chosen before anything was predicted, the worst first"
        return Gallery(tuple(sorted(samples, key=_goodness)), len(self._names), choice)


def _goodness(sample: GallerySample) -> float:
    """Percent of equal labels of the candidate that differs most from the first, or of right ones of a lone one."""
    if len(sample.agreement) > 1:
        return min(sample.agreement[1:])
    return sample.right[0] if sample.right[0] is not None else 100.0


def evenly_spaced(names: Sequence[str], count: int) -> list[str]:
    """`count` of `names`, or all where there are fewer, at even steps from the first on."""
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def _sample(name: str, views: "Views", contract: Contract, names: Sequence[str], widest: int) -> GallerySample:
    first, truth = views.predicted[0], views.truth
    present = np.unique(np.concatenate([np.unique(part) for part in views.maps]))
    return GallerySample(
        name=name,
        panels=panels(name, views, contract.palette, names, widest),
        right=tuple(_right(predicted, truth) for predicted in views.predicted),
        agreement=tuple(_percent(first == predicted) for predicted in views.predicted),
        classes=tuple(int(label) for label in present if label < len(contract.classes)),
    )


def _right(predicted: Labels, truth: Labels | None) -> float | None:
    if truth is None or not (truth != ignore_label(truth)).any():
        return None
    return _percent((predicted == truth)[truth != ignore_label(truth)])


def _percent(values: NDArray[np.bool_]) -> float:
    return 100.0 * float(values.mean())


@dataclass(frozen=True)
class Views:
    """One image in all its forms.

    Attributes:
        image: The image, uint8 (height, width, 3), BGR.
        truth: The label map, uint8 (height, width), 255 not scored; None where it is not labelled.
        predicted: The label map of each candidate, uint8 (height, width).
    """

    image: Image
    truth: Labels | None
    predicted: tuple[Labels, ...]

    @property
    def maps(self) -> tuple[Labels, ...]:
        """All label maps."""
        return self.predicted if self.truth is None else (self.truth, *self.predicted)


def panels(
    name: str, views: Views, palette: tuple[Colour, ...], candidates: Sequence[str], widest: int
) -> tuple[Panel, ...]:
    """The panels of the sample `name`, at most `widest` pixels on their longer side."""
    size = panel_size(views.image.shape[0], views.image.shape[1], widest)

    def panel(layer: str, caption: str, alt: str, uri: str) -> Panel:
        return Panel(layer, caption, alt, uri, width=size[1], height=size[0])

    def labelled(layer: str, caption: str, values: Labels) -> Panel:
        return panel(layer, caption, f"{caption} of {name}, as label map", map_uri(values, size, palette))

    out = [panel("image", "Image", f"Image {name}", photo_uri(views.image, size))]
    if views.truth is not None:
        out.append(labelled("truth", "Ground truth", views.truth))
    for number, predicted in enumerate(views.predicted):
        out.append(labelled(f"labels-{number}", candidates[number], predicted))
    for layer, caption, values, keys in _differences(views, candidates):
        alt = f"{caption} on {name}: {shares(values, keys)}"
        out.append(panel(layer, caption, alt, map_uri(values, size, tuple(key.colour for key in keys))))
    return tuple(out)


def _differences(views: Views, candidates: Sequence[str]) -> Iterator[tuple[str, str, Labels, tuple[Key, ...]]]:
    """ProfileRow, caption, values and their keys: each candidate against the first, or a lone one against the truth."""
    first, *others = views.predicted
    if not others and views.truth is not None:
        yield "errors", "Errors against ground truth", hit_map(first, views.truth), tuple(HITS.values())
    for number, predicted in enumerate(others, 1):
        caption = f"Difference of {candidates[number]} to {candidates[0]}"
        yield f"difference-{number}", caption, change_map(first, predicted, views.truth), tuple(CHANGES.values())


def shares(values: Labels, keys: Sequence[Key]) -> str:
    """How much of the map each kind of pixel takes, in words."""
    pixels = np.bincount(values.ravel(), minlength=len(keys))
    parts = [f"{share(100.0 * int(n) / values.size)} {key.meaning}" for key, n in zip(keys, pixels, strict=True) if n]
    return listed(parts)
