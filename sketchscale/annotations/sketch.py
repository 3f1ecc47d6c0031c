"""The sketch: a person's annotation of an image, as an append-only log of vector events, rasterised when used.

A sketch holds little, but exactly: these pixels are background, these are inside one object, here runs a
boundary, everything in this box is labelled. It is kept as the person drew it (polyline, radius, class, user, time),
one JSON object a line, so that nothing is lost, two people can append to one log, and undo is an event too.

How the events become pixels, in the order of the log:

 1. A *stroke* covers the pixels whose centre lies within its radius of the polyline, and the pixel nearest to each
    vertex (so that a click is never empty). A *polygon* covers the pixels whose centre is inside (even-odd rule,
    so inner rings are holes). A *raster* event carries pixels (imports).
 2. Foreground and background: the later event wins. Where both were drawn on one pixel, or a stroke with the number
    of an object on another numbered object, that is a *conflict*, counted and placed by `Sketch.conflicts`; training
    refuses it unless the options let the last event win.
 3. A boundary lies above both, whatever the order: filling an object with a thick brush after drawing its outline
    does not eat the outline. Only erasing (class "unknown") takes it away, and settles conflicts as well. A line that
    crosses a boundary is parted by it; with the number of one object it is refused as a conflict is.
 4. In a *box* everything is labelled: what is neither foreground nor boundary there is background.
 5. Objects: an event may name its object by a number; the same number is the same object, other numbers are other
    objects. Foreground without a number: its 4-connected components; one that touches exactly one numbered object
    belongs to it, else it is an object of its own.

Guarantee: steps 2 and 5 look at the whole sketch, on sparse tiles, never at the box asked for. So
`rasterize(box)` equals `rasterize(whole)[box]`, ids included, and costs the memory of what was drawn.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import (
    UNKNOWN,
    ClassPoint,
    Event,
    LabelledBox,
    Polygon,
    Stroke,
    Undo,
    event_line,
    read_events,
)
from sketchscale.annotations.painting import Canvas, Conflict, extent_of, painted_tile
from sketchscale.annotations.planes import drawn_plane
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import Box, tile_cover, whole

__all__ = ["Conflict", "RasterSketch", "Sketch", "SketchSummary", "open_sketch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterSketch:
    """A sketch as pixels; of a volume with z before y.

    Attributes:
        labels: int32 (y, x): -1 unknown, 0 background, k > 0 foreground; k separates touching objects.
        boundary: bool (y, x): drawn boundary pixels; they belong to no object and `labels` is -1 there.
        ignored: bool (y, x): marked "unknown" and nothing drawn on it since: unknown to every loss, and left out of
            terms that hold for unknown pixels, too. None where nothing is.
        numbered: the ids in `labels` whose objects were numbered by the person: two of them differ for certain.
    """

    labels: npt.NDArray[np.int32]
    boundary: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_] | None = None
    numbered: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchSummary:
    """Counts for the command line and the report.

    Attributes:
        events: events in force, by kind.
        pixels: by class: background, foreground, boundary.
        objects: separate foreground objects.
        has_boundary_information: whether any boundary is known: a drawn one, or an interface between two labels.
    """

    image: str
    shape: tuple[int, ...]
    events: dict[str, int]
    pixels: dict[str, int]
    objects: int
    has_boundary_information: bool


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """The events on one image of `shape` (y, x) or (z, y, x).

    No slots: the painted tiles are kept on the object once they were asked for.

    Raises:
        InputError: an event lies outside the image, or names no plane of a volume.

    >>> line = Stroke(points=((2, 1), (2, 5)), radius_px=0.5, label="foreground")
    >>> Sketch(shape=(4, 7), events=(line,)).rasterize().labels[2].tolist()
    [-1, 1, 1, 1, 1, 1, -1]
    """

    shape: tuple[int, ...]
    events: tuple[Event, ...] = ()
    image: str = ""

    def __post_init__(self) -> None:
        for event in self.marks:
            _require_inside(event, self.shape)

    @cached_property
    def marks(self) -> tuple[Event, ...]:
        """The events in force: those that were not undone, without the undos, in order."""
        undone: set[str] = set()
        for event in reversed(self.events):
            if isinstance(event, Undo) and event.id not in undone:
                undone.add(event.target)
            elif isinstance(event, Undo):
                undone.discard(event.id)
        return tuple(e for e in self.events if not isinstance(e, Undo) and (not e.id or e.id not in undone))

    @property
    def boxes(self) -> tuple[LabelledBox, ...]:
        """The boxes in force in which everything is labelled."""
        return tuple(e for e in self.marks if isinstance(e, LabelledBox))

    @property
    def class_points(self) -> tuple[ClassPoint, ...]:
        """The clicks in force that give classes of objects."""
        return tuple(e for e in self.marks if isinstance(e, ClassPoint))

    @property
    def numbered(self) -> frozenset[int]:
        """The ids of all objects that the person numbered, see RasterSketch."""
        return self._canvas.numbered

    @property
    def sha256(self) -> str:
        """The SHA-256 of the image's name, shape and events, as provenance records it."""
        head = json.dumps([self.image, self.shape]).encode()
        return hashlib.sha256(head + b"".join(event_line(e) for e in self.events)).hexdigest()

    @cached_property
    def _canvas(self) -> Canvas:
        return Canvas.paint(self.shape, self.marks)

    def rasterize(self, box: Box | None = None) -> RasterSketch:
        """Return the sketch as pixels; `box` defaults to the whole image and may not leave it.

        Object ids count from 1 in raster order of the whole image, so a box shows the ids of the whole.

        Raises:
            InputError: the box leaves the image.
        """
        box = whole(self.shape) if box is None else box
        if not whole(self.shape).contains(box):
            raise InputError.of(found=f"box {box}", expected=f"inside {whole(self.shape)}", fix="clip it to the image")
        labels, boundary = self._canvas.read_labels(box)
        for labelled in self.boxes:
            part = labelled.box.intersect(box).relative_to(box.start).slices
            labels[part][(labels[part] == UNKNOWN) & ~boundary[part]] = 0
        ignored = self._canvas.read_ignored(box) & (labels == UNKNOWN)
        return RasterSketch(
            labels=labels,
            boundary=boundary,
            ignored=ignored if ignored.any() else None,
            numbered=self.numbered,
        )

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return where foreground and background overlap, or a stroke and another object.

        There is one conflict for each event that came second.
        """
        return self._canvas.conflicts([e.id for e in self.marks])

    def check(self, on_conflict: Literal["refuse", "last"] = "refuse") -> None:
        """Refuse a sketch that contradicts itself; training.checks refuses one that a loss cannot use.

        Raises:
            InputError: overlapping classes or objects, or one numbered object on both sides of a boundary stroke;
                unless the last one, and a boundary, is to win.
        """
        if on_conflict == "last":
            return
        conflicts = self.conflicts()
        if conflicts:
            total = sum(c.pixels for c in conflicts)
            raise InputError.of(
                found=f"{_named(self.image)} calls {total} pixels both foreground and background, or two objects, "
                f"first {conflicts[0]}",
                expected="one class and one object for each pixel",
                fix="undo or erase one of them, or let the later one win with --on-conflict last",
            )
        numbered = (mark for mark in self.marks if isinstance(mark, Stroke) and mark.object is not None)
        for stroke in numbered:
            if (at := self._crossing(stroke)) is not None:
                raise InputError.of(
                    found=f"{_named(self.image)}: the stroke {stroke.id or '(no id)'} of object {stroke.object} crosses"
                    f" a boundary stroke at {list(at)}",
                    expected="an object on one side of its boundary",
                    fix="undo one of the two, or let the boundary part the stroke with --on-conflict last",
                )

    def _crossing(self, stroke: Stroke) -> tuple[int, ...] | None:
        """Return the first boundary pixel under a stroke's line with the stroke's object on the line at both sides.

        A brush is wider than its line: pixels of the brush beyond a boundary beside the line are no crossing.
        """
        if len(stroke.points) < 2:
            return None
        parts = [np.linspace(a, b, 2 + int(2 * math.dist(a, b))) for a, b in itertools.pairwise(stroke.points)]
        pixels = np.clip(np.floor(np.concatenate(parts) + 0.5).astype(int), 0, np.array(self.shape) - 1)
        start, stop = pixels.min(axis=0), pixels.max(axis=0) + 1
        raster = self.rasterize(Box(tuple(start.tolist()), tuple(stop.tolist())))
        on = tuple((pixels - start).T)
        drawn, inside = np.flatnonzero(raster.boundary[on]), np.flatnonzero(raster.labels[on] > 0)
        crossed = [i for i in drawn.tolist() if inside.size and inside[0] < i < inside[-1]]
        return tuple(pixels[crossed[0]].tolist()) if crossed else None

    def summary(self) -> SketchSummary:
        """Return counts of the sketch; it is read in tiles, so a large sketch is never in memory at once."""
        return self._summary

    @cached_property
    def _summary(self) -> SketchSummary:
        pixels = dict.fromkeys(("background", "foreground", "boundary"), 0)
        boundary_known = False
        for tile in self.annotated_tiles():
            raster = self.rasterize(tile.grow(1).clip(self.shape))
            inner = tile.relative_to(tile.grow(1).clip(self.shape).start).slices
            labels, boundary = raster.labels[inner], raster.boundary[inner]
            pixels["background"] += int((labels == 0).sum())
            pixels["foreground"] += int((labels > 0).sum())
            pixels["boundary"] += int(boundary.sum())
            wide = raster.labels
            swept = [np.moveaxis(wide, axis, 0) for axis in range(wide.ndim)]
            neighbours = [(one[1:], one[:-1]) for one in swept]
            boundary_known = boundary_known or bool(boundary.any())
            boundary_known = boundary_known or any(((a != b) & (a >= 0) & (b >= 0)).any() for a, b in neighbours)
        events: dict[str, int] = {}
        for event in self.marks:
            events[event.kind] = events.get(event.kind, 0) + 1
        return SketchSummary(
            image=self.image,
            shape=self.shape,
            events=events,
            pixels=pixels,
            objects=self._canvas.objects,
            has_boundary_information=boundary_known,
        )

    def annotated_tiles(self) -> Iterator[Box]:
        """Yield the boxes of a fixed grid that hold some annotation, in raster order."""
        boxes = [b.box for b in self.boxes]
        for tile in tile_cover(self.shape, painted_tile(len(self.shape))):
            if tile.index in self._canvas.tiles or any(b.intersect(tile.write).size for b in boxes):
                yield tile.write


def _named(image: str) -> str:
    return f"the sketch of image {image!r}" if image else "the sketch"


def open_sketch(path: str | os.PathLike[str], *, shape: tuple[int, ...], image: str | None = None) -> Sketch:
    """Open the sketch of one image from a log.

    Args:
        shape: (y, x) or (z, y, x) of the image's level 0.
        image: the image to take events of; None when the log is about one image only. Events that name no image count
            for every image.

    Raises:
        InputError: the log is about several images and none was chosen, or not about this one.
    """
    events = read_events(path)
    names = sorted({e.image for e in events if e.image})
    if image is None and len(names) > 1:
        raise InputError.of(found=f"sketch {path} is about {len(names)} images", expected="a choice", fix="name one")
    if image is not None and names and image not in names and not any(not e.image for e in events):
        raise UnknownNameError.among(f"image in sketch {path}", image, names)
    chosen = image if image is not None else (names[0] if names else "")
    return Sketch(shape=shape, image=chosen, events=tuple(e for e in events if e.image in ("", chosen)))


def _require_inside(event: Event, shape: tuple[int, ...]) -> None:
    low, high = extent_of(event)
    if len(low) != len(shape):
        volume = len(shape) == 3
        raise InputError.of(
            found=f"{event.kind} {event.id or '(no id)'} " + ("names no plane" if volume else "lies in a volume"),
            expected=f"points {'[z, y, x], as the image is a volume' if volume else '[y, x], as the image is a plane'}",
            fix="draw it in a plane of the volume" if volume else "train on the volume with --volume",
        )
    margins = [event.radius_px if isinstance(event, Stroke) else 0.0] * len(shape)
    if len(shape) == 3 and isinstance(event, Stroke | Polygon):
        margins[drawn_plane(event)[0]] = 0.0
    sides = zip(low, high, shape, margins, strict=True)
    if all(a >= -0.5 - margin and b <= n - 0.5 + margin for a, b, n, margin in sides):
        return
    name = f"image {event.image!r}" if event.image else "the image"
    span = " to ".join("[" + ", ".join(f"{at:g}" for at in corner) + "]" for corner in (low, high))
    raise InputError.of(
        found=f"{event.kind} {event.id or '(no id)'} from {span} leaves {name} of {' x '.join(map(str, shape))} px",
        expected=f"points [{'z, ' * (len(shape) - 2)}y, x] in level-0 pixels of the image",
        fix="check that the sketch belongs to this image and that y comes first, or undo the event",
    )
