"""The panels of one sample: image, ground truth, what each contender made of it, and where they differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ffnet_deploy.report.data import Panel
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


@dataclass(frozen=True)
class Views:
    """One image in all its forms.

    Attributes:
        image: uint8 (height, width, 3), BGR.
        truth: uint8 (height, width), 255 not scored; None where it is not labelled.
        predicted: uint8 (height, width) of each contender.
    """

    image: Image
    truth: Labels | None
    predicted: tuple[Labels, ...]

    @property
    def maps(self) -> tuple[Labels, ...]:
        """All label maps."""
        return self.predicted if self.truth is None else (self.truth, *self.predicted)


def panels(
    name: str, views: Views, palette: tuple[Colour, ...], contenders: Sequence[str], widest: int
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
        out.append(labelled(f"labels-{number}", contenders[number], predicted))
    for layer, caption, values, keys in _differences(views, contenders):
        alt = f"{caption} on {name}: {shares(values, keys)}"
        out.append(panel(layer, caption, alt, map_uri(values, size, tuple(key.colour for key in keys))))
    return tuple(out)


def _differences(views: Views, contenders: Sequence[str]) -> Iterator[tuple[str, str, Labels, tuple[Key, ...]]]:
    """Layer, caption, values and their keys: each contender against the first, or a lone one against the truth."""
    first, *others = views.predicted
    if not others and views.truth is not None:
        yield "errors", "Errors against ground truth", hit_map(first, views.truth), tuple(HITS.values())
    for number, predicted in enumerate(others, 1):
        caption = f"Difference of {contenders[number]} to {contenders[0]}"
        yield f"difference-{number}", caption, change_map(first, predicted, views.truth), tuple(CHANGES.values())


def shares(values: Labels, keys: Sequence[Key]) -> str:
    """How much of the map each kind of pixel takes, in words."""
    pixels = np.bincount(values.ravel(), minlength=len(keys))
    parts = [f"{share(100.0 * int(n) / values.size)} {key.meaning}" for key, n in zip(keys, pixels, strict=True) if n]
    return listed(parts)
