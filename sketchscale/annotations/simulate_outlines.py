"""Draw outlines of objects into a sketch: exact to the pixel, or with a brush of any width by an unsteady hand.

`exact_outline` covers just the pixels outside an object that share an edge with it. `drawn_outline` follows the
interface itself, as a person does, and misses it by up to `jitter_px`:

    interface   ───────────────────        the line wanders about it, smoothly, along the outline;
    line        ──__──‾‾──__──             the brush covers radius_px at both sides of the line, and gaps are left out

Guarantee: no point of the line is farther from the interface than `jitter_px`, or than half a pixel if that is more
(the interface goes round corners of pixels, which the line cuts).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage import measure

from sketchscale.annotations.events import Point, Stroke
from sketchscale.errors import InputError

__all__ = ["Brush", "contours", "drawn_outline", "exact_outline", "moved"]

_ARC = 8
"""Points of an outline that a gap leaves out."""
_APART = 3
"""px: where another object is as near as that there are no gaps, as they would make one object of two."""
_CORNER = 0.5
"""px by which a line along the interface misses it at the corners of pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brush:
    """How outlines are drawn.

    Attributes:
        radius_px: of the brush; 0.5 for lines of one pixel.
        jitter_px: how far the line may miss the interface, below 8.
        gaps: share of the outline that is left out, from 0 to below 1.
    """

    radius_px: float = 0.5
    jitter_px: float = 0.0
    gaps: float = 0.0

    def __post_init__(self) -> None:
        if not (0.5 <= self.radius_px <= 50 and 0 <= self.jitter_px < 8 and 0 <= self.gaps < 1):
            raise InputError.of(
                found=f"a brush of radius {self.radius_px} px, jitter {self.jitter_px} px, gaps {self.gaps}",
                expected="0.5 to 50 px, 0 to below 8 px, 0 to below 1",
                fix="leave them at 0.5, 0, 0",
            )


def drawn_outline(
    truth: npt.NDArray[np.integer[Any]],
    inside: npt.NDArray[np.bool_],
    origin: tuple[int, int],
    brush: Brush,
    rng: np.random.Generator,
) -> Iterator[Stroke]:
    """Yield the outline of an object as a person draws it.

    Args:
        truth: object ids (y, x) of the whole image. inside: the object's mask in a box of it, with a margin.
        origin: where the box starts.
        rng: of jitter and gaps.
    """
    top, left = origin
    around = truth[top : top + inside.shape[0], left : left + inside.shape[1]]
    others = ndimage.binary_dilation((around > 0) & ~inside, iterations=_APART)
    for contour in contours(inside.astype(np.float64), 0.5):
        line = _steadied(contour, _wander(len(contour), brush.jitter_px, rng), around, brush.jitter_px)
        at = np.rint(contour).astype(int)
        for part in _parts(line, _kept(len(contour), brush.gaps, rng) | others[at[:, 0], at[:, 1]]):
            yield Stroke(points=moved(part, origin), radius_px=brush.radius_px, label="boundary")


def _parts(line: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_]) -> Iterator[list[list[float]]]:
    """Yield the runs of kept points."""
    for begin, stop in zip(*np.flatnonzero(np.diff(np.pad(kept, 1).astype(np.int8))).reshape(-1, 2).T, strict=True):
        yield line[begin:stop].tolist()


def _steadied(
    contour: npt.NDArray[np.float64],
    miss: npt.NDArray[np.float64],
    labels: npt.NDArray[np.integer[Any]],
    most: float,
) -> npt.NDArray[np.float64]:
    """Return a contour with offsets, smaller ones where a segment would be too far from the interface."""
    interface, limit = _interface(labels), max(most, _CORNER) - 1e-6
    share = np.ones(len(contour))
    while True:
        line: npt.NDArray[np.float64] = np.round((contour + share[:, None] * miss) * 8) / 8
        along = np.linspace(0, 1, 9)[:, None, None]
        distance, _ = interface.query((1 - along) * line[:-1] + along * line[1:])
        far = (distance > limit).any(axis=0)
        if not (share[:-1][far].any() or share[1:][far].any()):
            return line
        share[:-1][far] /= 2
        share[1:][far] /= 2
        share[share < 0.1] = 0


def _interface(labels: npt.NDArray[np.integer[Any]]) -> cKDTree:
    """Return points of all cracks between different labels, five on each."""
    points = []
    for axis in (0, 1):
        a, b = (np.moveaxis(labels, axis, 0)[s] for s in (np.s_[:-1], np.s_[1:]))
        at = np.argwhere(np.moveaxis(a != b, 0, axis)) + np.where(np.arange(2) == axis, 0.5, 0.0)
        points += [at + np.where(np.arange(2) == axis, 0.0, along) for along in (-0.5, -0.25, 0.0, 0.25, 0.5)]
    return cKDTree(np.concatenate(points))


def _wander(count: int, most: float, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return smooth random offsets (count, 2) around a contour, the largest of the length `most`."""
    if most == 0:
        return np.zeros((count, 2))
    noise = ndimage.gaussian_filter1d(rng.standard_normal((count, 2)), 3, axis=0, mode="wrap")
    offsets: npt.NDArray[np.float64] = noise * (most / max(1e-9, float(np.hypot(*noise.T).max())))
    return offsets


def _kept(count: int, gaps: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    if gaps == 0:
        return np.ones(count, np.bool_)
    arcs = rng.random(-(-count // _ARC)) >= gaps
    return np.repeat(arcs, _ARC)[:count]


def exact_outline(inside: npt.NDArray[np.bool_], origin: tuple[int, int]) -> Iterator[Stroke]:
    """Yield lines of one pixel over the pixels outside the object that share an edge with it."""
    ring = ndimage.binary_dilation(inside) & ~inside
    grown = (ring | inside).astype(np.float64)
    drawn = np.zeros_like(ring)
    # Just below 1: the contour runs through the outermost pixels of the grown object, not between pixels.
    for contour in contours(grown, 0.999):
        chain = [(y, x) for (y, x), _ in itertools.groupby(map(tuple, np.rint(contour).astype(int).tolist()))]
        for part in _runs(chain, ring):
            drawn[tuple(np.array(part).T)] = True
            yield Stroke(points=moved(_straightened(part), origin), radius_px=0.5, label="boundary")
    for y, x in np.argwhere(ring & ~drawn).tolist():
        yield Stroke(points=moved([(y, x)], origin), radius_px=0.5, label="boundary")


def contours(values: npt.NDArray[np.float64], level: float) -> list[npt.NDArray[np.float64]]:
    """Return the contour lines (n, 2) of an image at a level; none of an image one pixel thin."""
    if min(values.shape) < 2:
        return []
    # Two objects that touch at a corner only are two.
    return list(measure.find_contours(values, level, fully_connected="low"))  # type: ignore[no-untyped-call]


def _runs(chain: Sequence[tuple[int, int]], allowed: npt.NDArray[np.bool_]) -> Iterator[list[tuple[int, int]]]:
    """Yield the longest runs of a pixel chain that stay on allowed pixels, each step to one of the eight neighbours."""
    part: list[tuple[int, int]] = []
    for y, x in chain:
        if part and (not allowed[y, x] or max(abs(y - part[-1][0]), abs(x - part[-1][1])) > 1):
            yield part
            part = []
        if allowed[y, x]:
            part.append((y, x))
    if part:
        yield part


def _straightened(chain: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the chain without the pixels inside straight runs; a line through the rest covers the same pixels."""
    kept = [chain[0]]
    for before, here, after in zip(chain[:-2], chain[1:-1], chain[2:], strict=True):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return kept if len(chain) == 1 else [*kept, chain[-1]]


def moved(points: Sequence[Sequence[float]], origin: tuple[int, int]) -> tuple[Point, ...]:
    """Return points of a box as points of the image in which it starts at `origin`."""
    return tuple((p[0] + origin[0], p[1] + origin[1]) for p in points)
