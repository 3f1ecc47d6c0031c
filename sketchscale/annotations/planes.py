"""Planes of a volume, in which its strokes are drawn.

A person draws in sections, so a stroke or polygon of a volume lies in one plane. Its points are `[z, y, x]`, as those
of napari's shapes, with one coordinate the same for all: the plane's.

    [[7, 10, 12], [7, 10, 30]]     the xy plane of section 7
    [[4, 52, 12], [9, 52, 30]]     the xz plane of row 52
    [[4, 10, 80], [9, 30, 80]]     the yz plane of column 80

Of several constant coordinates the first one counts, so that a click, or a line along x, lies in its section, unless
the event names its `plane` ("xz"). The brush is a circle in pixels of its plane. QuPath's GeoJSON names the section of
a geometry as `"plane": {"z": 7}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import PLANES, ClassPoint, Event, LabelledBox, Point, Polygon, Raster, Stroke
from sketchscale.geometry import Box

__all__ = ["drawn_plane", "flattened", "lifted", "lowered", "raised"]


def drawn_plane(mark: Stroke | Polygon) -> tuple[int, int]:
    """Return the axis across the plane of a mark in a volume, and the index of the plane.

    >>> drawn_plane(Stroke(points=((4, 52, 12), (9, 52, 30)), radius_px=1, label="background"))
    (1, 52)
    """
    points = mark.points if isinstance(mark, Stroke) else [point for ring in mark.rings for point in ring]
    axes = [PLANES[mark.plane]] if mark.plane else PLANES.values()
    axis = next(axis for axis in axes if len({point[axis] for point in points}) == 1)
    return axis, math.floor(points[0][axis] + 0.5)


def flattened(mark: Stroke | Polygon, axis: int) -> Stroke | Polygon:
    """Return a mark of a volume as one of its plane: without the coordinate across it."""
    return _moved(mark, lambda point: (*point[:axis], *point[axis + 1 :]), plane="")


def raised(event: Event, axis: int, index: int) -> Event:
    """Return an event of a plane as one of the volume; its pixels stay in the plane.

    Args:
        axis, index: the axis across the plane, and where the plane is on it.

    >>> raised(Stroke(points=((1, 2),), radius_px=1, label="background"), 1, 52).points
    ((1, 52, 2),)
    """

    def place(point: Point, across: float = index) -> Point:
        return (*point[:axis], across, *point[axis:])

    if isinstance(event, Stroke | Polygon):
        return _moved(event, place, plane=next(name for name, across in PLANES.items() if across == axis))
    if isinstance(event, ClassPoint):
        return replace(event, point=place(event.point))
    if isinstance(event, LabelledBox | Raster):
        start, stop = place(event.start), place(event.stop, index + 1)
        return replace(event, start=tuple(map(int, start)), stop=tuple(map(int, stop)))
    return event


def lowered(event: Event) -> Event:
    """Return an event in a section of a volume as one of the plane."""
    if isinstance(event, Stroke | Polygon):
        return flattened(event, 0)
    if isinstance(event, ClassPoint):
        return replace(event, point=event.point[1:])
    if isinstance(event, LabelledBox | Raster):
        return replace(event, start=event.start[1:], stop=event.stop[1:])
    return event


def lifted(
    covers: Iterator[tuple[Box, npt.NDArray[np.bool_]]], axis: int, index: int
) -> Iterator[tuple[Box, npt.NDArray[np.bool_]]]:
    """Yield the boxes and masks of a plane as boxes and masks of the volume, one pixel thick."""
    for box, mask in covers:
        start, stop = (*box.start[:axis], index, *box.start[axis:]), (*box.stop[:axis], index + 1, *box.stop[axis:])
        yield Box(start, stop), np.expand_dims(mask, axis)


def _moved(mark: Stroke | Polygon, move: Callable[[Point], Point], *, plane: str) -> Stroke | Polygon:
    if isinstance(mark, Stroke):
        return replace(mark, points=tuple(map(move, mark.points)), plane=plane)
    return replace(mark, rings=tuple(tuple(map(move, ring)) for ring in mark.rings), plane=plane)
