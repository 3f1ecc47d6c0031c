"""Open a sketch of any kind: the one way to read a sketch, for every command.

A stroke log and the files of other programs (GeoJSON, painted label images, tables) give the same `Sketch`. One line
shows the user how a file was understood, before training on it:

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
"""The meaning of places where nothing is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SketchReading:
    """How to read sketch files.

    Attributes:
        kind: a key of KINDS, for files that cannot be recognised by their contents; None recognises each file.
        classes: the meaning of names in a file: classes of GeoJSON, "none" for annotations without a class, or values
            of a label image, such as {"255": "background"}.
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
        sized: whether the size of the image is known; else the sketch just contains all marks.
        note: a further remark for the user.
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
    path: str | os.PathLike[str], *, shape: tuple[int, ...] | None = None, reading: SketchReading | None = None
) -> SketchFile:
    """Open a sketch of any kind.

    Args:
        shape: (y, x) or (z, y, x) of the image at level 0; None where it is not known. Label images have their own.
        reading: how to read it; None recognises it by its contents.

    Raises:
        MissingDataError: no such file.
        InputError: a file of unknown kind, a damaged one, one of another size, or one that needs the image's size.
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
    if shape is not None and len(shape) == 3 and kind not in ("strokes", "geojson"):
        raise InputError.of(
            found=f"{place} is {KINDS[kind]}, which names no plane, for a volume",
            expected="strokes in planes of the volume: a stroke log with points [z, y, x], or GeoJSON with planes",
            fix="draw on the volume, or train on a plane without --volume",
        )
    return _READERS[kind](_Source(path=place, kind=kind, shape=shape, classes=reading.classes))


def sketch_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return all files that a sketch is read from, its own first."""
    place = local_path(os.fspath(path))
    return (place, *companions(place))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A file to open, its kind, the shape of its image where known, and the meaning of its classes."""

    path: Path
    kind: str
    shape: tuple[int, ...] | None
    classes: Mapping[str, str]

    @property
    def size(self) -> tuple[int, ...]:
        """The image's size; an error where it is not known."""
        if self.shape is None:
            raise InputError.of(
                found=f"{self.path} is {KINDS[self.kind]}, which lacks the size of its image, and no --image",
                expected="the image that was annotated",
                fix="name it with --image",
            )
        return self.shape

    def opened(self, sketch: Sketch, *, sized: bool = True, note: str = "") -> SketchFile:
        """Return the sketch of this file."""
        return SketchFile(path=str(self.path), kind=self.kind, sketch=sketch, sized=sized, note=note)


def _kind(path: Path, wanted: str | None) -> str:
    """Return the wanted kind if the file can be of that kind, or the recognised one."""
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
            expected=f"{KINDS[wanted]}, because of --kind {wanted}",
            fix="leave --kind out; for files of several kinds, first convert each to a stroke log by `sketch import`",
        )
    return wanted or found


def _from_strokes(source: _Source) -> SketchFile:
    if source.shape is not None:
        return source.opened(open_sketch(source.path, shape=source.shape))
    size: tuple[int, ...] = ()  # of an image that contains all marks, with the radius of every brush
    for event in read_events(source.path):
        if not isinstance(event, Undo):
            reach = 2 + (event.radius_px if isinstance(event, Stroke) else 0.0)
            far = [math.ceil(at + reach) for at in extent_of(event)[1]]
            size = tuple(map(max, zip(size or (1,) * len(far), far, strict=True)))
    return source.opened(open_sketch(source.path, shape=size or (1, 1)), sized=False)


def _from_painting(source: _Source, zero: Literal["background", "unknown"]) -> SketchFile:
    labels = readers.read_label_image(source.path)
    shape = _own_shape(source, labels)
    for name, meaning in source.classes.items():
        if not name.isdecimal():
            raise InputError.of(
                found=f"--class {name}={meaning} for {source.path}, a label image",
                expected="a value of its pixels",
                fix="write --class 255=background",
            )
    meanings = {int(name): meaning for name, meaning in source.classes.items()}
    others = labels[~np.isin(labels, list(meanings))] if meanings else labels
    few = few_values(others)
    if not meanings:
        fix = f"write 0 where nothing is painted, or name the background, as in --class {(few or (1,))[0]}=background"
        require_background(few, f"label image {source.path}", fix)
    note = ""
    if is_mask(few):
        value = max(few or ())
        numbered = label_components(labels == value)
        labels = labels.astype(np.int64)  # ids of components lie above all named values
        labels[numbered > 0] = numbered[numbered > 0] + max((0, *meanings))
        note = f"the connected components of the value {value} are the objects"
    events = readers.events_from_labels(labels, readers.Stamp.now(), zero=zero, meanings=meanings)
    return source.opened(Sketch(shape=shape, events=events), note=note)


def _own_shape(source: _Source, labels: npt.NDArray[np.integer]) -> tuple[int, int]:
    """Return the shape of a label image, which has to be that of its image."""
    own = (labels.shape[0], labels.shape[1])
    if source.shape is not None and source.shape != own:
        raise InputError.of(
            found=f"{source.path} of {own}", expected=f"{source.shape}, as the image", fix="check that they belong"
        )
    return own


def _from_sketchpose(source: _Source) -> SketchFile:
    events = readers.events_from_sketchpose(source.path, readers.Stamp.now())
    shape = _own_shape(source, readers.read_label_image(source.path))
    others = companions(source.path)
    note = f"read together with {', '.join(path.name for path in others)}" if others else ""
    return source.opened(Sketch(shape=shape, events=events), note=note)


def _from_geojson(source: _Source) -> SketchFile:
    collection = geojson.read_geojson(source.path)
    stamp, classes = readers.Stamp.now(), dict(source.classes)
    events = geojson.events_from_geojson(collection, stamp, shape=source.size, classes=classes)
    return source.opened(Sketch(shape=source.size, events=events))


def _from_table(source: _Source, read: Callable[[Path, readers.Stamp], tuple[Event, ...]]) -> SketchFile:
    return source.opened(Sketch(shape=source.size, events=read(source.path, readers.Stamp.now())))


_READERS: Mapping[str, Callable[[_Source], SketchFile]] = {
    "strokes": _from_strokes,
    "geojson": _from_geojson,
    "objects": lambda source: _from_painting(source, "unknown"),
    "labels": lambda source: _from_painting(source, "background"),
    "sketchpose": _from_sketchpose,
    "points": lambda source: _from_table(source, readers.events_from_points),
    "boxes": lambda source: _from_table(source, readers.events_from_boxes),
}
