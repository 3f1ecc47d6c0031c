"""Paint events onto sparse tiles, and find the objects of the whole sketch.

The image may have 10^10 pixels and the sketch 10^5, so nothing here is as large as the image: tiles exist where
something was drawn, objects are found on the sorted raster positions of drawn pixels. All tiles are painted before any
is read, so the pixels of a box cannot depend on which box is read.

What a pixel belongs to is decided by its centre and the event alone, in float64 and absolute coordinates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sketchscale.annotations.events import (
    BOUNDARY,
    FREE,
    UNKNOWN,
    ClassPoint,
    Event,
    LabelledBox,
    Point,
    Polygon,
    Raster,
    Stroke,
)
from sketchscale.annotations.planes import drawn_plane, flattened, lifted
from sketchscale.geometry import Box

__all__ = ["Canvas", "Conflict", "extent_of", "painted_tile", "polygon_masks", "stroke_masks"]

_TILES = {2: (512, 512), 3: (16, 128, 128)}
"""Shape of a painted tile, of planes and of volumes."""

_LONGEST_SEGMENT_PX = 256.0

_BAND = 512
"""Rows of a polygon that are filled at once."""

_Area: TypeAlias = Stroke | Polygon | Raster


def painted_tile(axes: int) -> tuple[int, ...]:
    """Return the shape of the tiles on which a plane or volume is painted."""
    return _TILES[axes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Pixels drawn as foreground and background, or as two objects; `event` is the later mark, `box` holds them all."""

    event: str
    pixels: int
    box: Box

    def __str__(self) -> str:
        return f"{self.pixels} px in {self.box} (event {self.event or '(no id)'})"


@dataclass(slots=True)
class _TilePixels:
    """The pixels of one tile.

    Attributes:
        area: -1, 0, k, or FREE.
        boundary: whether a boundary lies on the pixel.
        conflict: which mark (counted from 1) came second in a conflict there; 0 for none.
        ignored: whether the pixel was erased and nothing was drawn on it since.
    """

    area: npt.NDArray[np.int32]
    boundary: npt.NDArray[np.bool_]
    conflict: npt.NDArray[np.int32]
    ignored: npt.NDArray[np.bool_]

    @classmethod
    def blank(cls, shape: tuple[int, ...]) -> _TilePixels:
        """Return a tile on which nothing is drawn."""
        unmarked = np.zeros(shape, np.bool_)
        return cls(np.full(shape, UNKNOWN, np.int32), unmarked, np.zeros(shape, np.int32), unmarked.copy())

    def put(self, at: tuple[slice, ...], values: npt.NDArray[np.int32], number: int, *, line: bool) -> None:
        """Draw a mark's values over the box `at`; UNKNOWN leaves a pixel unchanged.

        A line with another object's number is a conflict, too; areas of neighbours may overlap, as their edges are
        rounded to pixels.
        """
        area, boundary, conflict = self.area[at], self.boundary[at], self.conflict[at]
        boundary |= values == BOUNDARY
        self.ignored[at] &= values == UNKNOWN
        inside = (values > 0) | (values == FREE)
        was_inside = (area > 0) | (area == FREE)
        clash = (inside & (area == 0)) | ((values == 0) & was_inside)
        if line:
            clash |= (values > 0) & (area > 0) & (values != area)
        conflict[clash] = number
        # Foreground without a number leaves the number that is there.
        write = (values == 0) | (values > 0) | ((values == FREE) & ~was_inside)
        area[write] = values[write]

    def erase(self, at: tuple[slice, ...], covered: npt.NDArray[np.bool_]) -> None:
        """Erase the covered pixels of the box `at`, with boundaries and conflicts."""
        self.area[at][covered] = UNKNOWN
        self.boundary[at][covered] = False
        self.conflict[at][covered] = 0
        self.ignored[at][covered] = True


class Canvas:
    """Sparse tiles of painted pixels by tile index.

    Attributes:
        objects: how many there are in the whole sketch.
        numbered: the ids of those whose number an event gives; the others are foreground without a number.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.tile = shape, painted_tile(len(shape))
        self.tiles: dict[tuple[int, ...], _TilePixels] = {}
        self.objects = 0
        self.numbered: frozenset[int] = frozenset()

    @classmethod
    def paint(cls, shape: tuple[int, ...], marks: Sequence[Event]) -> Canvas:
        """Return a canvas with all marks painted in order, and their objects numbered."""
        canvas = cls(shape)
        for number, mark in enumerate(marks, start=1):
            if isinstance(mark, Stroke | Polygon | Raster):
                for box, values in _values_by_box(mark, shape):
                    canvas._put(box, values, number, mark)
        canvas._number_objects()
        return canvas

    def _put(self, box: Box, values: npt.NDArray[np.int32], number: int, mark: _Area) -> None:
        for index in self._tiles_of(box):
            tile_box = self._box(index)
            part = box.intersect(tile_box)
            marked = values[part.relative_to(box.start).slices]
            if not (marked != UNKNOWN).any():
                continue
            tile = self.tiles.setdefault(index, _TilePixels.blank(tile_box.shape))
            at = part.relative_to(tile_box.start).slices
            if not isinstance(mark, Raster) and mark.label == "unknown":
                tile.erase(at, marked != UNKNOWN)
            else:
                tile.put(at, marked, number, line=isinstance(mark, Stroke))

    def _tiles_of(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Yield the indices of the tiles that overlap a box, in raster order."""
        if box.size:
            sides = zip(box.start, box.stop, self.tile, strict=True)
            yield from itertools.product(*(range(a // t, (b - 1) // t + 1) for a, b, t in sides))

    def _box(self, index: tuple[int, ...]) -> Box:
        start = tuple(i * t for i, t in zip(index, self.tile, strict=True))
        return Box(start, tuple(a + t for a, t in zip(start, self.tile, strict=True))).clip(self.shape)

    def read_labels(self, box: Box) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Return labels and drawn boundary of a box; labels are UNKNOWN on the boundary."""
        labels, boundary = np.full(box.shape, UNKNOWN, np.int32), np.zeros(box.shape, np.bool_)
        for index in self._tiles_of(box):
            if index in self.tiles:
                tile_box = self._box(index)
                part = box.intersect(tile_box)
                source, target = part.relative_to(tile_box.start).slices, part.relative_to(box.start).slices
                labels[target] = self.tiles[index].area[source]
                boundary[target] = self.tiles[index].boundary[source]
        labels[boundary] = UNKNOWN
        return labels, boundary

    def read_ignored(self, box: Box) -> npt.NDArray[np.bool_]:
        """Return the pixels of a box that were erased and on which nothing was drawn since."""
        ignored = np.zeros(box.shape, np.bool_)
        for index in self._tiles_of(box):
            if index in self.tiles:
                tile_box = self._box(index)
                part = box.intersect(tile_box)
                source, target = part.relative_to(tile_box.start).slices, part.relative_to(box.start).slices
                ignored[target] = self.tiles[index].ignored[source]
        return ignored

    def conflicts(self, ids: Sequence[str]) -> tuple[Conflict, ...]:
        """Return one conflict for each mark that came second; `ids` are those of all marks, in order."""
        pixels: dict[int, list[npt.NDArray[np.int64]]] = {}
        for index, tile in self.tiles.items():
            at = np.argwhere(tile.conflict)
            numbers = tile.conflict[tuple(at.T)]
            for number in np.unique(numbers).tolist():
                pixels.setdefault(number, []).append(at[numbers == number] + np.array(index) * self.tile)
        found = []
        for number, parts in sorted(pixels.items()):
            at = np.concatenate(parts)
            box = Box(tuple(at.min(axis=0).tolist()), tuple((at.max(axis=0) + 1).tolist()))
            found.append(Conflict(event=ids[number - 1], pixels=len(at), box=box))
        return tuple(found)

    def _number_objects(self) -> None:
        """Replace numbers given and free components by final ids, in raster order of their first pixel."""
        keys = [self._keys(index, self._visible(index) == FREE) for index in self.tiles]
        free = _Components.of(np.sort(np.concatenate(keys)) if keys else np.zeros(0, np.int64), self.shape)
        free.join_numbered(pair for index in self.tiles for pair in self._contacts(index))
        first: dict[int, int] = {}
        for key, name in self._named_pixels(free):
            first[name] = min(first.get(name, key), key)
        order = {name: i for i, name in enumerate(sorted(first, key=first.__getitem__), start=1)}
        self.objects = len(order)
        self.numbered = frozenset(i for name, i in order.items() if name > 0)
        for index in self.tiles:
            self._renumber(index, free, order)

    def _keys(self, index: tuple[int, ...], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Return the raster positions in the whole image of the pixels of a tile's mask."""
        keys = np.zeros(1, np.int64)
        for at, start, size in zip(np.nonzero(mask), self._box(index).start, self.shape, strict=True):
            keys = keys * size + (at + start)
        return keys

    def _visible(self, index: tuple[int, ...]) -> npt.NDArray[np.int32]:
        tile = self.tiles[index]
        return np.where(tile.boundary, np.int32(UNKNOWN), tile.area)

    def _contacts(self, index: tuple[int, ...]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]:
        """Yield the free pixels of a tile that have a numbered 4-neighbour, and these numbers."""
        if not (self._visible(index) == FREE).any():
            return
        box = self._box(index)
        grown = box.grow(1).clip(self.shape)
        labels, _ = self.read_labels(grown)
        missing = [
            (int(g == b), int(h == c)) for g, h, b, c in zip(grown.start, grown.stop, box.start, box.stop, strict=True)
        ]
        labels = np.pad(labels, missing, constant_values=UNKNOWN)
        inner = (slice(1, -1),) * labels.ndim
        for axis, side in itertools.product(range(labels.ndim), (slice(-2), slice(2, None))):
            neighbour = labels[(*inner[:axis], side, *inner[axis + 1 :])]
            touching = (labels[inner] == FREE) & (neighbour > 0)
            yield self._keys(index, touching), neighbour[touching]

    def _named_pixels(self, free: _Components) -> Iterator[tuple[int, int]]:
        """Yield (raster position, name) of the first pixel of each object in each tile; a name may be a number."""
        for index in self.tiles:
            visible = self._visible(index)
            for mask in (visible > 0, visible == FREE):
                keys = self._keys(index, mask)
                names = free.names(keys) if (visible[mask] < 0).any() else visible[mask].astype(np.int64)
                values, first = np.unique(names, return_index=True)
                yield from zip(keys[first].tolist(), values.tolist(), strict=True)

    def _renumber(self, index: tuple[int, ...], free: _Components, order: Mapping[int, int]) -> None:
        tile, visible = self.tiles[index], self._visible(index)
        loose = visible == FREE
        names = visible.astype(np.int64)
        names[loose] = free.names(self._keys(index, loose))
        inside = (visible > 0) | loose
        values, at = np.unique(names[inside], return_inverse=True)
        tile.area = np.minimum(visible, 0)
        tile.area[inside] = np.array([order[value] for value in values.tolist()], np.int32)[at]


class _Components:
    """Components of pixels that are given as sorted raster positions; no dense array is made.

    They are connected along the axes: through four neighbours of a plane, six of a volume.
    """

    def __init__(self, keys: npt.NDArray[np.int64], component: npt.NDArray[np.int64], count: int) -> None:
        self.keys, self.component = keys, component
        self.name = -1 - np.arange(count, dtype=np.int64)

    @classmethod
    def of(cls, keys: npt.NDArray[np.int64], shape: Sequence[int]) -> _Components:
        """Find the components of pixels in an image of this shape."""
        pairs = []
        for axis, size in enumerate(shape):
            step = math.prod(shape[axis + 1 :])
            source = np.flatnonzero(keys // step % size != size - 1)
            found = np.searchsorted(keys, keys[source] + step)
            hit = keys[np.minimum(found, keys.size - 1)] == keys[source] + step
            pairs.append((source[hit], found[hit]))
        rows, columns = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
        graph = coo_array((np.ones(rows.size, np.bool_), (rows, columns)), shape=(keys.size, keys.size))
        count, component = connected_components(graph, directed=False)
        return cls(keys, component, count)

    def join_numbered(self, contacts: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]]) -> None:
        """Give a component the number of the numbered object that it touches, if it touches exactly one."""
        touched: dict[int, set[int]] = {}
        for keys, numbers in contacts:
            at = self.component[np.searchsorted(self.keys, keys)]
            for component, number in np.unique(np.stack([at, numbers], axis=1), axis=0).tolist():
                touched.setdefault(component, set()).add(number)
        for component, found in touched.items():
            if len(found) == 1:
                self.name[component] = found.pop()

    def names(self, keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the object of each pixel: a number > 0, or the negative name of its component."""
        return self.name[self.component[np.searchsorted(self.keys, keys)]]


def _values_by_box(mark: _Area, shape: tuple[int, ...]) -> Iterator[tuple[Box, npt.NDArray[np.int32]]]:
    """Yield boxes of values that together are the mark; UNKNOWN marks pixels that it does not cover."""
    if isinstance(mark, Raster):
        yield mark.box, mark.values()
        return
    covers = _masks(mark, shape)
    if len(shape) == 3:
        axis, index = drawn_plane(mark)
        flat = flattened(mark, axis)
        covers = lifted(_masks(flat, (*shape[:axis], *shape[axis + 1 :])), axis, index)
    values = {"foreground": FREE if mark.object is None else mark.object, "boundary": BOUNDARY}
    value = values.get(mark.label, 0)  # an eraser's value only has to differ from UNKNOWN
    for box, mask in covers:
        if box.size:
            yield box, np.where(mask, np.int32(value), np.int32(UNKNOWN))


def _masks(mark: Stroke | Polygon, shape: tuple[int, ...]) -> Iterator[tuple[Box, npt.NDArray[np.bool_]]]:
    """Return the generator of a mark's pixels in a plane."""
    return stroke_masks(mark, shape) if isinstance(mark, Stroke) else polygon_masks(mark, shape)


def stroke_masks(stroke: Stroke, shape: tuple[int, ...]) -> Iterator[tuple[Box, npt.NDArray[np.bool_]]]:
    """Yield the pixels of a stroke as boxes with masks (bool, y, x); boxes overlap, and are empty outside the image."""
    for a, b in _segments(stroke.points):
        yield _capsule(a, b, stroke.radius_px, shape)
    for y, x in stroke.points:
        pixel = math.floor(y + 0.5), math.floor(x + 0.5)
        box = Box(pixel, (pixel[0] + 1, pixel[1] + 1)).clip(shape)
        yield box, np.ones(box.shape, np.bool_)


def _segments(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    """Yield the segments of a polyline; long ones are split so that each stays in few tiles."""
    if len(points) == 1:
        yield points[0], points[0]
    for (ay, ax), (by, bx) in itertools.pairwise(points):
        n = max(1, math.ceil(math.hypot(by - ay, bx - ax) / _LONGEST_SEGMENT_PX))
        stops = [(ay + (by - ay) * i / n, ax + (bx - ax) * i / n) for i in range(n)] + [(by, bx)]
        yield from itertools.pairwise(stops)


def _capsule(a: Point, b: Point, radius: float, shape: tuple[int, ...]) -> tuple[Box, npt.NDArray[np.bool_]]:
    """Return a box and the mask of its pixels with a centre within `radius` of the segment from a to b."""
    start = tuple(math.ceil(min(p, q) - radius) for p, q in zip(a, b, strict=True))
    stop = tuple(math.floor(max(p, q) + radius) + 1 for p, q in zip(a, b, strict=True))
    box = Box(start, stop).clip(shape)
    y, x = np.ogrid[box.slices]
    dy, dx = b[0] - a[0], b[1] - a[1]
    length2 = dy * dy + dx * dx
    along = np.clip(((y - a[0]) * dy + (x - a[1]) * dx) / length2, 0.0, 1.0) if length2 > 0 else 0.0
    return box, (y - a[0] - along * dy) ** 2 + (x - a[1] - along * dx) ** 2 <= radius * radius


def polygon_masks(polygon: Polygon, shape: tuple[int, ...]) -> Iterator[tuple[Box, npt.NDArray[np.bool_]]]:
    """Yield a polygon as bands of rows, each row filled between the crossings of its edges (even-odd rule)."""
    (y0, x0), (y1, x1) = extent_of(polygon)
    box = Box((math.ceil(y0), math.ceil(x0)), (math.floor(y1) + 1, math.floor(x1) + 1)).clip(shape)
    for top in range(box.start[0], box.stop[0], _BAND):
        band = Box((top, box.start[1]), (min(top + _BAND, box.stop[0]), box.stop[1]))
        yield band, _fill(polygon.rings, band)


def _fill(rings: Sequence[Sequence[Point]], band: Box) -> npt.NDArray[np.bool_]:
    parity = np.zeros((band.shape[0], band.shape[1] + 1), np.int32)
    for ring in rings:
        a = np.array(ring, dtype=np.float64)
        for (ay, ax), (by, bx) in zip(a, np.roll(a, -1, axis=0), strict=True):
            low, high = (ay, by) if ay < by else (by, ay)
            # Half open along y, so that a vertex between two edges counts once.
            y = np.arange(max(math.ceil(low), band.start[0]), min(math.ceil(high), band.stop[0]))
            if y.size:
                crossing = np.ceil(ax + (y - ay) * (bx - ax) / (by - ay)).astype(np.int64)
                column = np.clip(crossing - band.start[1], 0, band.shape[1])
                np.add.at(parity, (y - band.start[0], column), 1)
    inside: npt.NDArray[np.bool_] = np.cumsum(parity[:, :-1], axis=1) % 2 == 1
    return inside


def extent_of(event: Event) -> tuple[Point, Point]:
    """Return the smallest and the largest position of an event, without the radius of a stroke."""
    if isinstance(event, LabelledBox | Raster):
        return event.start, tuple(stop - 1 for stop in event.stop)
    points: Sequence[Point] = ((0.0, 0.0),)
    if isinstance(event, Stroke):
        points = event.points
    elif isinstance(event, Polygon):
        points = [p for ring in event.rings for p in ring]
    elif isinstance(event, ClassPoint):
        points = (event.point,)
    along = tuple(zip(*points, strict=True))
    return tuple(map(min, along)), tuple(map(max, along))
