"""The sample sheet of a synthesis: inputs and outputs of its two networks, as a PNG file in memory.

A row of a drawn layout                                    A row of a real crop

    maps       the layout's h, v and m                         image      the crop
    painted    the generator's image of them                   points     the crop, its points and predicted outlines
    outlines   the same below the layout's outlines            maps       the mask network's output for the crop
    read       the mask network's output for it                repainted  the generator's image of these maps

Maps have one colour per direction from the object's centre, white at the centre and full at the rim, black outside: an
object is a colour wheel, and touching objects meet in opposite colours. Where m is uncertain the map is darker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sketchscale.errors import InputError
from sketchscale.reports.pictures import outline_layer, png_file, to_rgb

__all__ = ["Panel", "SheetRow", "below_outlines", "draw_sheet", "drawn_row", "map_colors", "map_rims", "real_row"]

Floats = npt.NDArray[np.float32]
Rgb = npt.NDArray[np.uint8]

_GAP, _LINE = 8, 16
_POINT, _RIM, _GROUND, _INK = "#ffd43b", "#000000", "#202428", "#ffffff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A picture of a row.

    Attributes:
        rgb: uint8 (y, x, 3).
        title: one short word, above it.
        points: (n, 2) of (y, x), px; drawn as dots.
    """

    rgb: Rgb
    title: str = ""
    points: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """Panels side by side below a line of text; no line where it is None."""

    panels: tuple[Panel, ...]
    caption: str | None = ""


def drawn_row(maps: Floats, painted: Floats, read: Floats, caption: str = "layout") -> SheetRow:
    """Return the row of a layout, see the module.

    Args:
        maps, read: (3, y, x), h and v in [-1, 1], m in [0, 1].
        painted: (c, y, x) in [0, 1].
    """
    rgb = _shown(painted)
    panels = (
        Panel(rgb=map_colors(maps), title="maps"),
        Panel(rgb=rgb, title="painted"),
        Panel(rgb=_outlined(rgb, maps), title="outlines"),
        Panel(rgb=map_colors(read), title="read"),
    )
    return SheetRow(panels=panels, caption=caption)


def real_row(
    image: Floats, points: npt.NDArray[np.float64], maps: Floats, repainted: Floats, caption: str = "image"
) -> SheetRow:
    """Return the row of a real crop, see the module.

    Args:
        image, repainted: (c, y, x) in [0, 1]. points: (n, 2) of (y, x), px; may be empty.
        maps: (3, y, x), read in the image: h and v in [-1, 1], m in [0, 1].
    """
    rgb = _shown(image)
    panels = (
        Panel(rgb=rgb, title="image"),
        Panel(rgb=_outlined(rgb, maps), title="points", points=points),
        Panel(rgb=map_colors(maps), title="maps"),
        Panel(rgb=_shown(repainted), title="repainted"),
    )
    return SheetRow(panels=panels, caption=caption)


def _shown(image: Floats) -> Rgb:
    return to_rgb(image, [(0.0, 1.0)] * len(image))


def _outlined(rgb: Rgb, maps: Floats) -> Rgb:
    """Return the picture below the rims of the maps' objects."""
    # each pixel of a rim becomes a separate object, so that all of them are outlines
    rims = map_rims(maps)
    return below_outlines(rgb, rims * (1 + np.arange(rims.size).reshape(rims.shape)))


def below_outlines(rgb: Rgb, labels: npt.NDArray[np.integer[Any]]) -> Rgb:
    """Return a picture with the outlines of labels drawn into it."""
    picture = Image.fromarray(rgb).convert("RGBA")
    picture.alpha_composite(Image.fromarray(outline_layer(labels)))
    return np.asarray(picture.convert("RGB"))


def map_colors(maps: Floats) -> Rgb:
    """Return maps as a picture, uint8 (y, x, 3); see the module.

    Args:
        maps: (3, y, x), h and v in [-1, 1], m in [0, 1]; values outside are clipped.

    >>> map_colors(np.array([[[0.0, 1.0]], [[0.0, 0.0]], [[1.0, 1.0]]])).tolist()
    [[[255, 255, 255], [255, 0, 0]]]
    """
    h, v, m = np.nan_to_num(maps.astype(np.float32))
    hue = np.arctan2(v, h) / (2 * np.pi) % 1.0 * 6
    far = np.clip(np.hypot(h, v), 0, 1)
    shade = np.stack([np.clip(np.abs((hue + shift) % 6 - 3) - 1, 0, 1) for shift in (0, 4, 2)], -1)
    colors: npt.NDArray[Any] = 255 * np.clip(m, 0, 1)[..., None] * (1 - far[..., None] * (1 - shade))
    return np.round(colors).astype(np.uint8)


def map_rims(maps: Floats) -> npt.NDArray[np.bool_]:
    """Return the rims of the maps' objects, bool (y, x).

    A pixel with m above one half is on a rim if a neighbour (sharing an edge) has no such m, or if h falls by more than
    1 to its neighbour on the right, or v to the one below: both rise within an object and fall from 1 to -1 between
    objects. The pixels on both sides of such a fall are on a rim; the array's border does not count.

    >>> map_rims(np.array([[[0.0, 1.0, -1.0, 0.0, 0.0]], [[0.0] * 5], [[1.0] * 5]]))[0].tolist()
    [False, True, True, False, False]
    """
    inside = maps[2] > 0.5
    rims = np.zeros(inside.shape, np.bool_)
    for axis, place in ((0, maps[1]), (1, maps[0])):
        every = (slice(None),) * axis
        before, after = (*every, slice(None, -1)), (*every, slice(1, None))
        parted = (inside[before] != inside[after]) | (place[before] - place[after] > 1)
        rims[before] |= parted
        rims[after] |= parted
    rims &= inside
    return rims


def draw_sheet(rows: Sequence[SheetRow], *, doubled: int = 256) -> bytes:
    """Return the rows below each other, as PNG bytes.

    Cells have the size of the largest panel; panels of at most `doubled` px are shown at twice their size.

    Raises:
        InputError: there is no row, or one has no panels.

    >>> draw_sheet([SheetRow(panels=(Panel(rgb=np.zeros((4, 4, 3), np.uint8)),))])[1:4]
    b'PNG'
    """
    if not rows or not all(row.panels for row in rows):
        raise InputError.of(found=f"{len(rows)} rows", expected="rows with panels, at least one", fix="draw a sample")
    panels = [panel for row in rows for panel in row.panels]
    side = tuple(max(panel.rgb.shape[axis] for panel in panels) for axis in (0, 1))
    scale = 2 if max(side) <= doubled else 1
    above = _LINE if any(row.caption is not None for row in rows) else 0
    height, width = side[0] * scale + _GAP + _LINE + above, side[1] * scale + _GAP
    columns = max(len(row.panels) for row in rows)
    sheet = Image.new("RGB", (columns * width + _GAP, len(rows) * height + _GAP), _GROUND)
    for number, row in enumerate(rows):
        corner = (_GAP, _GAP + number * height)
        _write(sheet, corner, row.caption or "")
        for place, panel in enumerate(row.panels):
            _paste(sheet, panel, (corner[0] + place * width, corner[1] + above), scale)
    return png_file(sheet)


def _paste(sheet: Image.Image, panel: Panel, corner: tuple[int, int], scale: int) -> None:
    """Write a title at (x, y), with the picture and its points below."""
    picture = Image.fromarray(np.repeat(np.repeat(panel.rgb, scale, axis=0), scale, axis=1))
    pen = ImageDraw.Draw(picture)
    for y, x in () if panel.points is None else panel.points:
        centre = ((x + 0.5) * scale, (y + 0.5) * scale)
        pen.ellipse([centre[0] - 3, centre[1] - 3, centre[0] + 3, centre[1] + 3], fill=_POINT, outline=_RIM)
    _write(sheet, corner, panel.title)
    sheet.paste(picture, (corner[0], corner[1] + _LINE))


def _write(sheet: Image.Image, corner: tuple[int, int], text: str) -> None:
    """Write a line of text at (x, y); the built-in font has ASCII only, other letters become question marks."""
    ImageDraw.Draw(sheet).text(corner, text.encode("ascii", "replace").decode(), fill=_INK)
