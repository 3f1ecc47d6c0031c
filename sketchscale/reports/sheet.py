"""A contact sheet: small pictures of one study side by side, with outlines and a line of text each."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sketchscale.errors import InputError
from sketchscale.reports.pictures import outline_layer, to_rgb

__all__ = ["Crop", "contact_sheet"]

_GAP, _LINE = 8, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """One small picture.

    Attributes:
        pixels: (c, y, x), normalised: 0 is shown black, 1 full.
        labels: (y, x), outlined.
        caption: one short line.
    """

    pixels: npt.NDArray[np.float32]
    labels: npt.NDArray[np.integer[Any]]
    caption: str = ""


def contact_sheet(crops: Sequence[Crop], *, columns: int = 5) -> bytes:
    """The crops in rows, as PNG bytes; cells are as large as the largest crop.

    Raises:
        InputError: no crop, or no column.

    >>> crop = Crop(pixels=np.ones((1, 4, 4), np.float32), labels=np.zeros((4, 4), np.uint32), caption="1")
    >>> contact_sheet([crop])[1:4]
    b'PNG'
    """
    if not crops or columns < 1:
        raise InputError(f"{len(crops)} crops in {columns} columns; expected: at least one of each")
    columns = min(columns, len(crops))
    height = max(crop.labels.shape[0] for crop in crops) + _LINE + _GAP
    width = max(crop.labels.shape[1] for crop in crops) + _GAP
    rows = -(-len(crops) // columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "#202428")
    for number, crop in enumerate(crops):
        row, column = divmod(number, columns)
        _paste(sheet, crop, (_GAP + column * width, _GAP + row * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _paste(sheet: Image.Image, crop: Crop, corner: tuple[int, int]) -> None:
    """A caption at (x, y) with the picture below it."""
    rgb = to_rgb(crop.pixels, [(0.0, 1.0)] * len(crop.pixels))
    picture = Image.fromarray(rgb).convert("RGBA")
    picture.alpha_composite(Image.fromarray(outline_layer(crop.labels)))
    ImageDraw.Draw(sheet).text(corner, crop.caption.encode("ascii", "replace").decode(), fill="#ffffff")
    sheet.paste(picture.convert("RGB"), (corner[0], corner[1] + _LINE))
