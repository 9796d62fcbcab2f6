"""Pictures to look at: the prediction, side by side with image, truth and differences where there is truth; legend."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ffnet_deploy.artifacts.outputs import mark_png
from ffnet_deploy.core.contract import Contract
from ffnet_deploy.core.errors import DataError
from ffnet_deploy.core.files import write_bytes
from ffnet_deploy.core.label_maps import LabelMap, colour_table, ignore_label
from ffnet_deploy.core.label_sets import LabelSet
from ffnet_deploy.core.text import shown_line
from ffnet_deploy.evaluation.resampling import nearest

Picture = NDArray[np.uint8]
"""uint8 (height, width, 3), BGR."""

_NARROWEST, _WIDEST = 320, 960
_TALLEST = 1200
_MARGIN = 12
_SHEET_COLUMNS = 4
_CAPTION = 30
_LEGEND_ROW = 26
_SWATCH = 14
_BACKGROUND = (30, 27, 25)
_TEXT = (235, 235, 235)
_FAINT = (150, 150, 150)
_WRONG = (60, 60, 235)
_UNSCORED = (96, 88, 80)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.5
_BLEND = 0.6
"""Share of the class colour in overlays."""


def overlay_picture(image: Picture, predicted: LabelMap, labels: LabelMap | None, contract: Contract) -> Picture:
    """The prediction over the image, with the classes present below; with ground truth, all panels side by side.

    Args:
        image: uint8 (height, width, 3), BGR.
        predicted: class of each pixel, (height, width).
        labels: ground truth, (height, width), of the same type; None leaves all panels out but the prediction.
        contract: names and colours of the classes.
    """
    size = panel_size(image.shape[0], image.shape[1])
    share = "" if labels is None else right_share(predicted, labels)
    image, predicted = _fitted(image, size), nearest(predicted, size)
    panels = [("prediction", blended(image, predicted, contract.palette))]
    present = set(np.unique(predicted).tolist())
    if labels is not None:
        labels = nearest(labels, size)
        panels.insert(0, ("image", image))
        panels.append(("ground truth", blended(image, labels, contract.palette)))
        panels.append((f"differences ({share})", differences(image, predicted, labels)))
        present |= set(np.unique(labels).tolist())
    row = _captioned_row(panels)
    ignored = ignore_label(predicted)
    legend = legend_picture(sorted(present - {ignored}), contract, row.shape[1], unscored=ignored in present)
    return np.concatenate([row, legend])


def contact_sheet(samples: Sequence[tuple[str, Picture, LabelMap]], classes: LabelSet) -> Picture:
    """One picture of all `samples` (name, image BGR, labels), tinted by class, with the classes present below."""
    tiles, present = [], set()
    height = max(round(image.shape[0] * _NARROWEST / image.shape[1]) for _, image, _ in samples)
    for _, image, labels in samples:
        scale = min(_NARROWEST / image.shape[1], height / image.shape[0])
        size = max(round(image.shape[0] * scale), 1), max(round(image.shape[1] * scale), 1)
        tile = _canvas(height, _NARROWEST)
        tile[: size[0], : size[1]] = blended(_fitted(image, size), nearest(labels, size), classes.palette)
        tiles.append(tile)
        present |= set(np.unique(labels).tolist())
    names = [name[-36:] for name, _, _ in samples]
    columns = min(_SHEET_COLUMNS, len(tiles))
    tiles += [_canvas(height, _NARROWEST)] * (-len(tiles) % columns)
    captions = names + [""] * (len(tiles) - len(names))
    cells = list(zip(captions, tiles, strict=True))
    rows = [_captioned_row(cells[at : at + columns]) for at in range(0, len(cells), columns)]
    ignored = ignore_label(samples[0][2])
    legend = legend_picture(sorted(present - {ignored}), classes, rows[0].shape[1], unscored=ignored in present)
    return np.concatenate([*rows, legend])


def write_picture(path: Path, picture: Picture) -> None:
    """Write `picture` to the PNG file `path`, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    done, content = cv2.imencode(".png", picture)
    if not done:
        raise DataError(f"the picture {path} cannot be encoded as PNG")
    write_bytes(path, mark_png(content.tobytes()))


def panel_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) at which an image of that size is drawn: large enough to see, small enough for a screen."""
    factor = min(max(_NARROWEST / width, 1.0), _WIDEST / width, _TALLEST / height)
    return max(round(height * factor), 1), max(round(width * factor), 1)


def _fitted(image: Picture, size: tuple[int, int]) -> Picture:
    if image.shape[:2] == size:
        return image
    method = cv2.INTER_AREA if image.shape[0] > size[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method), dtype=np.uint8)


def blended(image: Picture, labels: LabelMap, palette: tuple[tuple[int, int, int], ...]) -> Picture:
    """`image` tinted with the colour of each pixel's class; ignored pixels darkened."""
    table = colour_table(labels, tuple((blue, green, red) for red, green, blue in palette), _UNSCORED)
    tinted = image.astype(np.float32) * (1 - _BLEND) + table[labels] * _BLEND
    picture: Picture = tinted.round().astype(np.uint8)
    return picture


def differences(image: Picture, predicted: LabelMap, labels: LabelMap) -> Picture:
    """`image` in faint grey, wrong pixels red, ignored pixels hatched."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
    drawn = np.repeat((70 + 0.45 * grey)[..., None], 3, axis=2)
    ignored = labels == ignore_label(labels)
    wrong = (predicted != labels) & ~ignored
    drawn[wrong] = 0.25 * drawn[wrong] + 0.75 * np.array(_WRONG, np.float32)
    rows, columns = np.indices(labels.shape)
    drawn[ignored] = np.where((((rows + columns) // 4) % 2)[ignored][:, None], 0.55, 0.35) * drawn[ignored]
    picture: Picture = drawn.round().astype(np.uint8)
    return picture


def right_share(predicted: LabelMap, labels: LabelMap) -> str:
    """The share of labelled pixels that are right, in words."""
    scored = labels != ignore_label(labels)
    if not scored.any():
        return "nothing labelled"
    return f"{100 * float((predicted == labels)[scored].mean()):.1f} % right"


def _captioned_row(panels: list[tuple[str, Picture]]) -> Picture:
    height, width = panels[0][1].shape[:2]
    canvas = _canvas(height + _CAPTION + _MARGIN, len(panels) * (width + _MARGIN) + _MARGIN)
    for number, (caption, panel) in enumerate(panels):
        left = _MARGIN + number * (width + _MARGIN)
        _write(canvas, caption, (left, _CAPTION - 10), _TEXT, width)
        canvas[_CAPTION : _CAPTION + height, left : left + width] = panel
    return canvas


def legend_picture(present: list[int], named: Contract | LabelSet, width: int, unscored: bool) -> Picture:
    """Swatch and name of each class in `present`, in as many columns as fit."""
    entries = [(named.classes[label], named.palette[label][::-1], _TEXT) for label in present]
    if unscored:
        entries.append(("not scored", _UNSCORED, _FAINT))
    column = max((_text_width(name) for name, _, _ in entries), default=0) + _SWATCH + 3 * _MARGIN
    columns = max((width - _MARGIN) // column, 1)
    canvas = _canvas(-(-len(entries) // columns) * _LEGEND_ROW + _MARGIN, width)
    for number, (name, colour, ink) in enumerate(entries):
        left, top = _MARGIN + number % columns * column, 4 + number // columns * _LEGEND_ROW
        cv2.rectangle(canvas, (left, top), (left + _SWATCH, top + _SWATCH), colour, cv2.FILLED)
        _write(canvas, name, (left + _SWATCH + 8, top + _SWATCH - 2), ink, width - left)
    return canvas


def _canvas(height: int, width: int) -> Picture:
    return np.full((height, width, 3), _BACKGROUND, np.uint8)


def _text_width(text: str) -> int:
    return int(cv2.getTextSize(shown_line(text), _FONT, _FONT_SCALE, 1)[0][0])


def _write(canvas: Picture, text: str, at: tuple[int, int], colour: tuple[int, int, int], room: int) -> None:
    """Write `text` with its baseline's left end at `at`, smaller where it is wider than `room` pixels."""
    text = shown_line(text)
    scale = _FONT_SCALE * min(1.0, room / max(_text_width(text), 1))
    cv2.putText(canvas, text, at, _FONT, scale, colour, 1, cv2.LINE_AA)


def write_overlay(path: Path, image: Picture, predicted: LabelMap, labels: LabelMap | None, contract: Contract) -> None:
    """Write `overlay_picture` to the PNG file `path`, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    write_picture(path, overlay_picture(image, predicted, labels, contract))
