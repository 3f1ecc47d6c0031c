"""Open a sketch of any kind: the one way in which every command that takes a sketch reads it.

A stroke log and what other programs write (GeoJSON, painted label images, tables) give the same `Sketch`. How a file
was understood is one line, for the user to see before anything is learned from it:

    cells.png: a label image of some objects, 4 objects, px: 0 background, 812 foreground, ...; 0 means unknown
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.annotations import geojson, readers
from sketchscale.annotations.events import CLASSES, Event, Stroke, Undo, read_events
from sketchscale.annotations.kinds import FAMILIES, KINDS, companions, kind_of, unknown_kind
from sketchscale.annotations.painting import extent_of
from sketchscale.annotations.sketch import Sketch, open_sketch
from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.io.files.masks import few_values, is_mask, label_components, require_background
from sketchscale.io.stores.addresses import local_path

__all__ = ["SketchFile", "SketchReading", "open_sketch_file", "sketch_files"]

_REST = {
    "strokes": "what is not drawn is unknown",
    "geojson": "what is not drawn is unknown",
    "objects": "0 means unknown",
    "labels": "0 means background",
    "sketchpose": "0 means unknown, 1 background, 2 cells",
    "points": "what is not clicked is unknown",
    "boxes": "what is not drawn in the boxes is background",
}
"""What it means that nothing was drawn somewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchReading:
    """How sketch files are to be read.

    Attributes:
        kind: a key of KINDS, for files whose contents do not show it; None recognises each file.
        classes: what the names in a file mean here: classes of GeoJSON, "none" for annotations without a class, or
            values of a label image, such as {"255": "background"}.
    """

    kind: str | None = None
    classes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise UnknownNameError.among("kind of sketch", self.kind, KINDS)
        for meaning in self.classes.values():
            if meaning not in CLASSES:
                raise UnknownNameError.among("class", meaning, CLASSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchFile:
    """A sketch, and how its file was understood.

    Attributes:
        kind: a key of KINDS.
        sized: whether the size of the image is known; else the sketch is as large as what was drawn.
        note: what else is to be said.
    """

    path: str
    kind: str
    sketch: Sketch
    sized: bool = True
    note: str = ""

    @property
    def line(self) -> str:
        """How the file was understood, in one line."""
        summary = self.sketch.summary()
        counts = ", ".join(f"{n} {name}" for name, n in summary.pixels.items())
        if self.sized:
            counts += f", {math.prod(summary.shape) - sum(summary.pixels.values())} unknown"
        marks = f"{sum(summary.events.values())} marks, " if self.kind in ("strokes", "geojson") else ""
        note = f"; {self.note}" if self.note else ""
        return (
            f"{self.path}: {KINDS[self.kind]}, {marks}{summary.objects} objects, px: {counts}; {_REST[self.kind]}{note}"
        )


def open_sketch_file(
    path: str | os.PathLike[str], *, shape: tuple[int, int] | None = None, reading: SketchReading | None = None
) -> SketchFile:
    """Open a sketch of any kind.

    Args:
        shape: (y, x) of the image at level 0; None where it is not known. Label images say it themselves.
        reading: how to read it; recognised by its contents when None.

    Raises:
        MissingDataError: no such file.
        InputError: a file of no known kind, damaged, of another size, or one that needs the image's size.
    """
    reading = reading or SketchReading()
    place = local_path(os.fspath(path))
    kind = _kind(place, reading.kind)
    if reading.classes and kind not in ("geojson", "objects", "labels"):
        raise InputError.of(
            found=f"--class for {place}, which is {KINDS[kind]}",
            expected="--class with GeoJSON and label images only",
            fix="leave --class out",
        )
    return _READERS[kind](_Source(path=place, kind=kind, shape=shape, classes=reading.classes))


def sketch_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """All files that a sketch is read from: its own first."""
    place = local_path(os.fspath(path))
    return (place, *companions(place))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A file to open, its kind, the (y, x) of its image where it is known, and what its classes mean."""

    path: Path
    kind: str
    shape: tuple[int, int] | None
    classes: Mapping[str, str]

    @property
    def size(self) -> tuple[int, int]:
        if self.shape is None:
            raise InputError.of(
                found=f"{self.path} is {KINDS[self.kind]}, which does not say the size of its image, and no --image",
                expected="the image that was annotated",
                fix="name it with --image",
            )
        return self.shape

    def opened(self, sketch: Sketch, *, sized: bool = True, note: str = "") -> SketchFile:
        return SketchFile(path=str(self.path), kind=self.kind, sketch=sketch, sized=sized, note=note)


def _kind(path: Path, wanted: str | None) -> str:
    if path.is_dir():
        raise InputError.of(
            found=f"sketch {path} is a folder", expected="a file with an annotation", fix="give the file"
        )
    if not path.is_file():
        raise MissingDataError(f"sketch {path} does not exist; expected: a file with an annotation")
    found = kind_of(path)
    if not found and wanted is None:
        raise unknown_kind(path)
    if wanted is not None and found and FAMILIES.get(found, found) != FAMILIES.get(wanted, wanted):
        raise InputError.of(
            found=f"{path} seems to be {KINDS[found]}",
            expected=f"{KINDS[wanted]}, as --kind {wanted} says",
            fix="leave --kind out; of several kinds, bring each into a stroke log by `sketch import` first",
        )
    return wanted or found


def _from_strokes(source: _Source) -> SketchFile:
    if source.shape is not None:
        return source.opened(open_sketch(source.path, shape=source.shape))
    drawn = _extent(read_events(source.path))
    return source.opened(open_sketch(source.path, shape=drawn), sized=False)


def _extent(events: tuple[Event, ...]) -> tuple[int, int]:
    """An image that holds the events whole, with the radius of every brush."""
    ends = [_end(event) for event in events if not isinstance(event, Undo)]
    return max((y for y, _ in ends), default=1), max((x for _, x in ends), default=1)


def _end(event: Event) -> tuple[int, int]:
    reach = 2 + (event.radius_px if isinstance(event, Stroke) else 0.0)
    y, x = extent_of(event)[1]
    return max(1, math.ceil(y + reach)), max(1, math.ceil(x + reach))


def _from_painting(source: _Source, zero: Literal["background", "unknown"]) -> SketchFile:
    labels = readers.read_label_image(source.path)
    shape = _own_shape(source, labels)
    meanings = _meanings(source)
    others = labels[~np.isin(labels, list(meanings))] if meanings else labels
    few = few_values(others)
    if not meanings:
        fix = f"write 0 where nothing is painted, or name the background, as in --class {(few or (1,))[0]}=background"
        require_background(few, f"label image {source.path}", fix)
    note = ""
    if is_mask(few):
        value = max(few or ())
        labels = _pieces(labels, value, meanings)
        note = f"the connected pieces of the value {value} are the objects"
    events = readers.events_from_labels(labels, readers.Stamp.now(), zero=zero, meanings=meanings)
    return source.opened(Sketch(shape=shape, events=events), note=note)


def _pieces(labels: npt.NDArray[np.integer], value: int, meanings: Mapping[int, str]) -> npt.NDArray[np.int64]:
    """The pieces of one value, under ids that no named value has; other pixels as they were."""
    numbered = label_components(labels == value)
    found = labels.astype(np.int64)
    found[numbered > 0] = numbered[numbered > 0] + max((0, *meanings))
    return found


def _meanings(source: _Source) -> dict[int, str]:
    """The values of a label image that were given a meaning."""
    for name in source.classes:
        if not name.isdecimal():
            raise InputError.of(
                found=f"--class {name}={source.classes[name]} for {source.path}, a label image",
                expected="a value of its pixels",
                fix="write --class 255=background",
            )
    return {int(name): meaning for name, meaning in source.classes.items()}


def _own_shape(source: _Source, labels: npt.NDArray[np.integer]) -> tuple[int, int]:
    own = (labels.shape[0], labels.shape[1])
    if source.shape is not None and source.shape != own:
        raise InputError.of(
            found=f"{source.path} of {own}", expected=f"{source.shape}, as the image", fix="check that they belong"
        )
    return own


def _from_sketchpose(source: _Source) -> SketchFile:
    events = readers.events_from_sketchpose(source.path, readers.Stamp.now())
    shape = _own_shape(source, readers.read_label_image(source.path))
    beside = companions(source.path)
    note = f"read together with {', '.join(path.name for path in beside)}" if beside else ""
    return source.opened(Sketch(shape=shape, events=events), note=note)


def _from_geojson(source: _Source) -> SketchFile:
    collection = geojson.read_geojson(source.path)
    stamp, classes = readers.Stamp.now(), dict(source.classes)
    events = geojson.events_from_geojson(collection, stamp, shape=source.size, classes=classes)
    return source.opened(Sketch(shape=source.size, events=events))


def _from_points(source: _Source) -> SketchFile:
    events = readers.events_from_points(source.path, readers.Stamp.now())
    return source.opened(Sketch(shape=source.size, events=events))


def _from_boxes(source: _Source) -> SketchFile:
    events = readers.events_from_boxes(source.path, readers.Stamp.now())
    return source.opened(Sketch(shape=source.size, events=events))


_READERS: Mapping[str, Callable[[_Source], SketchFile]] = {
    "strokes": _from_strokes,
    "geojson": _from_geojson,
    "objects": lambda source: _from_painting(source, "unknown"),
    "labels": lambda source: _from_painting(source, "background"),
    "sketchpose": _from_sketchpose,
    "points": _from_points,
    "boxes": _from_boxes,
}
