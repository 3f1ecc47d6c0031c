"""A contact sheet: small pictures of one study side by side, with outlines and a line of text each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.reports.pictures import to_rgb
from sketchscale.reports.synthesis import Panel, SheetRow, below_outlines, draw_sheet

__all__ = ["Crop", "contact_sheet"]


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
    """Return the crops in rows, as PNG bytes; see `draw_sheet`.

    Raises:
        InputError: there is no crop, or no column.

    >>> crop = Crop(pixels=np.ones((1, 4, 4), np.float32), labels=np.zeros((4, 4), np.uint32), caption="1")
    >>> contact_sheet([crop])[1:4]
    b'PNG'
    """
    if not crops or columns < 1:
        raise InputError(f"{len(crops)} crops in {columns} columns; expected: at least one of each")
    panels = []
    for crop in crops:
        rgb = to_rgb(crop.pixels, [(0.0, 1.0)] * len(crop.pixels))
        panels.append(Panel(rgb=below_outlines(rgb, crop.labels), title=crop.caption))
    rows = range(0, len(panels), columns)
    return draw_sheet([SheetRow(panels=tuple(panels[i : i + columns]), caption=None) for i in rows], doubled=0)
