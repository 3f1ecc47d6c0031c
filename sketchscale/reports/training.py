"""Pictures of a running training, as PNG files in memory: the loss curve, and a preview of the result.

┌────────────┬────────────┬────────────┐     image with its strokes; predicted distance; image with the outlines
│  strokes   │  distance  │  outlines  │     of what is above the threshold
└────────────┴────────────┴────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from sketchscale.annotations.sketch import RasterSketch
from sketchscale.reports.pictures import PALETTE, outline_layer, png_file, sketch_layer, to_rgb

__all__ = ["draw_curve", "draw_preview"]

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 900, 420, 70, 24, 36
_GAP = 6
_INK, _GRID = "#222222", "#dddddd"


def draw_curve(curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> bytes:
    """Draw loss by step on a logarithmic axis.

    Args:
        curves: name and (step, loss) each; losses that are not positive are left out. Without any the frame is empty.

    >>> draw_curve([("training", [(1, 2.0), (2, 1.0)])])[:4]
    b'\\x89PNG'
    """
    kept = [(name, [(x, math.log10(y)) for x, y in points if y > 0 and math.isfinite(y)]) for name, points in curves]
    points = [p for _, line in kept for p in line] or [(0.0, 0.0)]
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    across = _axis(min(p[0] for p in points), max(p[0] for p in points), _LEFT, _WIDTH - 20)
    up = _axis(low, max(high, low + 0.1), _HEIGHT - _BOTTOM, _TOP)
    image = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    pen = ImageDraw.Draw(image)
    _draw_frame(pen, points, across, up)
    for place, (name, line) in enumerate(kept):
        at = [(across(x), up(y)) for x, y in line]
        for a, b in pairwise(at):
            pen.line([a, b], fill=PALETTE[place], width=2)
        pen.text((_WIDTH - 160, _TOP + 16 * place), name, fill=PALETTE[place])
    return png_file(image)


def _axis(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    return lambda value: start + (value - low) / ((high - low) or 1) * (stop - start)


def _draw_frame(
    pen: ImageDraw.ImageDraw,
    points: Sequence[tuple[float, float]],
    across: Callable[[float], float],
    up: Callable[[float], float],
) -> None:
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    for tick in np.linspace(low, max(high, low + 0.1), 5):
        pen.line([(_LEFT, up(tick)), (_WIDTH - 20, up(tick))], fill=_GRID)
        pen.text((8, up(tick) - 6), f"{10**tick:.3g}", fill=_INK)
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    for tick in np.linspace(first, last, 5):
        pen.text((across(tick) - 10, _HEIGHT - _BOTTOM + 8), f"{tick:.0f}", fill=_INK)
    pen.text((_LEFT, 4), "loss by step", fill=_INK)


def draw_preview(
    image: npt.NDArray[np.float32], raster: RasterSketch, distance: npt.NDArray[np.float32], threshold: float
) -> bytes:
    """Draw three pictures side by side, see the module.

    Args:
        image: (c, y, x), normalised, 0 to 1 shown as black to full.
        raster: the strokes, of the same size. distance: (y, x), px. threshold: px, foreground is above.
    """
    rgb = to_rgb(image, [(0.0, 1.0)] * len(image))
    components, _ = ndimage.label(distance > threshold)
    panels = [
        _over(rgb, sketch_layer(raster)),
        _distance_colors(distance, threshold),
        _over(rgb, outline_layer(components.astype(np.int32))),
    ]
    gap = np.full((rgb.shape[0], _GAP, 3), 255, np.uint8)
    joined = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    scale = 2 if rgb.shape[1] <= 256 else 1
    return png_file(Image.fromarray(np.repeat(np.repeat(joined, scale, axis=0), scale, axis=1)))


def _over(rgb: npt.NDArray[np.uint8], layer: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    alpha = layer[..., 3:].astype(np.float32) / 255
    mixed: npt.NDArray[Any] = rgb * (1 - alpha) + layer[..., :3] * alpha
    return np.asarray(mixed, np.uint8)


def _distance_colors(distance: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.uint8]:
    """Return colours: black at the threshold, orange up to the largest distance, blue down to 4 px below."""
    above = np.clip((distance - threshold) / max(float(distance.max()) - threshold, 1e-3), 0, 1)[..., None]
    below = np.clip((threshold - distance) / 4, 0, 1)[..., None]
    warm, cold = np.array([255, 180, 60], np.float32), np.array([40, 70, 150], np.float32)
    colors: npt.NDArray[Any] = above * warm + below * cold
    return np.asarray(np.clip(np.nan_to_num(colors), 0, 255), np.uint8)
