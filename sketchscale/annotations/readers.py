"""Annotation made elsewhere, read into sketch events; see geojson.py for GeoJSON.

Every reader returns events; whoever called decides what to do with them (`append_events`, or a `Sketch`). Formats:

    labels      any 2-D integer image: TIFF, PNG, NPY; k > 0 object k, 0 background (or nothing said)
    points      CSV with columns y, x, class
    boxes       CSV with columns y0, x0, y1, x1 (stop exclusive), or a napari shapes CSV: everything inside is labelled
    sketchpose  <stem>_labels.png (1 background, 2 cells), <stem>_boundaries.png, <stem>_bbox.csv
"""

from __future__ import annotations

import csv
import dataclasses
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy import ndimage

from sketchscale.annotations.events import (
    BOUNDARY,
    CLASSES,
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
from sketchscale.annotations.painting import extent_of
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError, MissingDataError
from sketchscale.geometry import Box, tile_cover
from sketchscale.io.stores.addresses import local_path

__all__ = [
    "Stamp",
    "csv_number",
    "csv_rows",
    "events_from_boxes",
    "events_from_labels",
    "events_from_points",
    "events_from_sketchpose",
    "next_object",
    "outlines",
    "read_label_image",
    "stamped",
]

_RASTER_TILE = 1024
_DAB_RADIUS_PX = 1.5
_PAINTED = {"background": 0, "foreground": FREE, "boundary": BOUNDARY, "unknown": UNKNOWN}
"""Classes as pixel values of a raster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """Who, when, on which image; `prefix` makes the ids of one import unique in its log."""

    image: str = ""
    user: str = ""
    time: str = ""
    prefix: str = ""

    @classmethod
    def now(cls, *, image: str = "", user: str = "") -> Stamp:
        """Stamped with the current time (UTC, ISO 8601) and a prefix that no other import has."""
        return cls(image=image, user=user, time=datetime.now(UTC).isoformat(timespec="seconds"), prefix=_new_prefix())

    def fields(self, number: int) -> dict[str, str]:
        return {"id": f"{self.prefix}{number:05d}", "user": self.user, "time": self.time, "image": self.image}


def _new_prefix() -> str:
    return uuid.uuid4().hex[:8] + "-"


def stamped(events: Iterable[Event], stamp: Stamp) -> tuple[Event, ...]:
    """The events under new ids and the stamp's image; a user and time they name already stay."""
    found: list[Event] = []
    for number, event in enumerate(events):
        fields: dict[str, Any] = dict(stamp.fields(number))
        fields |= {name: said for name in ("user", "time") if (said := getattr(event, name))}
        found.append(dataclasses.replace(event, **fields))
    return tuple(found)


def next_object(events: Iterable[Event]) -> int:
    """The smallest object number above all that are in use; 1 for an empty log."""
    used = [e.object or 0 for e in events if isinstance(e, Stroke | Polygon)]
    used += [value for e in events if isinstance(e, Raster) for value, _ in e.runs]
    return max([0, *used]) + 1


# Label images


def read_label_image(path: str | Path) -> npt.NDArray[np.integer[Any]]:
    """A 2-D integer image from TIFF, PNG or NPY, as stored.

    Raises:
        MissingDataError: no such file.
        InputError: not readable, not integers, or not one plane.
    """
    path = local_path(path)
    if not path.is_file():
        raise MissingDataError(f"label image {path} does not exist; expected: TIFF, PNG or NPY; to fix: check the path")
    try:
        values = np.squeeze(_read_any(path))
    except Exception as error:  # image libraries raise a dozen types for a damaged or half-written file
        raise InputError(f"label image {path} cannot be read: {error}; expected: TIFF, PNG or NPY") from error
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise InputError.of(
            found=f"label image {path} has shape {values.shape} and type {values.dtype}",
            expected="one plane (y, x) of integers: 0 background, k > 0 object k",
            fix="save the object ids as a 16- or 32-bit grey image, not as colours",
        )
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _read_any(path: Path) -> npt.NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix in (".tif", ".tiff"):
        return np.asarray(tifffile.imread(path))
    if suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    with Image.open(path) as image:
        return np.asarray(image)


def events_from_labels(
    labels: npt.NDArray[np.integer[Any]],
    stamp: Stamp,
    *,
    zero: Literal["background", "unknown"] = "background",
    first_object: int = 1,
    meanings: Mapping[int, str] | None = None,
) -> tuple[Event, ...]:
    """A label image as raster events, one for each tile of 1024 px that says something.

    Args:
        labels: (y, x), integers; k > 0 object k; negative values say nothing.
        zero: what 0 means: "background" for a full annotation, "unknown" where only some objects are labelled (then
            their outlines are added as boundary, since a labelled object is a whole one).
        first_object: object k becomes number k - 1 + first_object; see `next_object`.
        meanings: classes of single values, which are no objects then, such as {255: "background"}.
    """
    values = np.where(labels > 0, labels.astype(np.int64) + (first_object - 1), np.minimum(labels, 0).astype(np.int64))
    values[labels < 0] = UNKNOWN
    if zero == "unknown":
        values[labels == 0] = UNKNOWN
    for value, meaning in (meanings or {}).items():
        values[labels == value] = _PAINTED[meaning]
    if values.size and values.max() >= 2**31:
        raise InputError.of(found=f"object id {values.max()}", expected="ids below 2^31", fix="renumber the labels")
    events = _raster_events(values, stamp)
    if zero == "background":
        return events
    return events + outlines(events, (labels.shape[0], labels.shape[1]), stamp)


def _raster_events(values: npt.NDArray[np.int64], stamp: Stamp, first: int = 0) -> tuple[Event, ...]:
    events: list[Event] = []
    for tile in tile_cover(values.shape, (_RASTER_TILE, _RASTER_TILE)):
        part = values[tile.write.slices]
        if (part != UNKNOWN).any():
            origin = (tile.write.start[0], tile.write.start[1])
            events.append(Raster.of(part, origin, **stamp.fields(first + len(events))))
    return tuple(events)


def outlines(events: Sequence[Event], shape: tuple[int, int], stamp: Stamp) -> tuple[Event, ...]:
    """Boundary pixels around whole objects: the unlabelled pixels that share an edge with an object.

    Where two objects touch, none is drawn: their numbers say it already, and neither loses a pixel.
    """
    sketch = Sketch(shape=shape, events=tuple(events))
    found: list[Event] = []
    for tile in tile_cover(shape, (_RASTER_TILE, _RASTER_TILE), halo=1):
        if not any(_box_of(e).grow(1).intersect(tile.write).size for e in sketch.marks):
            continue
        labels = sketch.rasterize(tile.read).labels
        ring = ndimage.binary_dilation(labels > 0) & (labels == UNKNOWN)
        ring = ring[tile.write.relative_to(tile.read.start).slices]
        if ring.any():
            origin = (tile.write.start[0], tile.write.start[1])
            values = np.where(ring, BOUNDARY, UNKNOWN)
            found.append(Raster.of(values, origin, **stamp.fields(len(events) + len(found))))
    return tuple(found)


def _box_of(event: Event) -> Box:
    (y0, x0), (y1, x1) = extent_of(event)
    margin = event.radius_px + 1 if isinstance(event, Stroke) else 1
    return Box((int(y0 - margin), int(x0 - margin)), (int(y1 + margin) + 1, int(x1 + margin) + 1))


# Tables


def events_from_points(path: str | Path, stamp: Stamp) -> tuple[Event, ...]:
    """A CSV with columns y, x, class (or axis-0, axis-1, class).

    A class of CLASSES is a dab of radius 1.5 px; any other name is the class of the object under the point.

    Raises:
        MissingDataError, InputError: absent; columns missing; a value that is no number, with its line.
    """
    rows = csv_rows(path, ({"y": "y", "x": "x", "class": "class"}, {"y": "axis-0", "x": "axis-1", "class": "class"}))
    events: list[Event] = []
    for line, row in rows:
        point, name = (csv_number(path, line, row["y"]), csv_number(path, line, row["x"])), row["class"].strip()
        if name in CLASSES:
            events.append(Stroke(points=(point,), radius_px=_DAB_RADIUS_PX, label=name))
        else:
            events.append(ClassPoint(point=point, name=name))
    return stamped(events, stamp)


def events_from_boxes(path: str | Path, stamp: Stamp) -> tuple[Event, ...]:
    """A CSV with columns y0, x0, y1, x1 in pixels, stop exclusive; or a napari shapes CSV (index, axis-0, axis-1).

    Raises:
        MissingDataError, InputError: as `events_from_points`.
    """
    plain = {name: name for name in ("y0", "x0", "y1", "x1")}
    napari = {"index": "index", "y": "axis-0", "x": "axis-1"}
    rows = csv_rows(path, (plain, napari))
    if rows and "index" in rows[0][1]:
        return _napari_boxes(path, rows, stamp)
    events = []
    for number, (line, row) in enumerate(rows):
        y0, x0, y1, x1 = (round(csv_number(path, line, row[name])) for name in plain)
        events.append(LabelledBox(start=(y0, x0), stop=(y1, x1), **stamp.fields(number)))
    return tuple(events)


def _napari_boxes(path: str | Path, rows: Sequence[tuple[int, dict[str, str]]], stamp: Stamp) -> tuple[Event, ...]:
    corners: dict[str, list[Point]] = {}
    for line, row in rows:
        corners.setdefault(row["index"], []).append(
            (csv_number(path, line, row["y"]), csv_number(path, line, row["x"]))
        )
    events = []
    for number, points in enumerate(corners.values()):
        y, x = [p[0] for p in points], [p[1] for p in points]
        start, stop = (max(0, round(min(y))), max(0, round(min(x)))), (round(max(y)) + 1, round(max(x)) + 1)
        events.append(LabelledBox(start=start, stop=stop, **stamp.fields(number)))
    return tuple(events)


def csv_rows(path: str | Path, headers: Sequence[Mapping[str, str]]) -> list[tuple[int, dict[str, str]]]:
    """(line, values by our name) of a CSV whose columns are those of one of the headers."""
    path = local_path(path)
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; expected: a CSV file; to fix: check the path")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = reader.fieldnames or ()
        for header in headers:
            if all(column in columns for column in header.values()):
                return [
                    (reader.line_num, {name: row[column] or "" for name, column in header.items()}) for row in reader
                ]
    expected = " or ".join(", ".join(header.values()) for header in headers)
    raise InputError.of(
        found=f"{path} has columns {', '.join(columns) or 'none'}", expected=expected, fix="rename them"
    )


def csv_number(path: str | Path, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError.of(found=f"line {line} of {path} has {text!r}", expected="a number", fix="correct that line")
    return value


# Sketchpose


def events_from_sketchpose(labels_path: str | Path, stamp: Stamp) -> tuple[Event, ...]:
    """Sketchpose's files of one image, found from `<stem>_labels.png`; boundaries and boxes when they are there.

    Raises:
        MissingDataError, InputError: absent, named otherwise, or label values beside 0 (nothing), 1 and 2.
    """
    path = Path(labels_path)
    if not path.name.endswith("_labels.png"):
        raise InputError.of(found=f"{path}", expected="<stem>_labels.png", fix="give Sketchpose's label file")
    drawn = read_label_image(path)
    if drawn.size and (drawn.min() < 0 or drawn.max() > 2):
        raise InputError.of(found=f"{path} has values up to {drawn.max()}", expected="0, 1, 2", fix="import as labels")
    values = np.array([UNKNOWN, 0, FREE], np.int64)[drawn]
    stem = path.name.removesuffix("_labels.png")
    boundaries, boxes = path.with_name(f"{stem}_boundaries.png"), path.with_name(f"{stem}_bbox.csv")
    if boundaries.is_file():
        values[read_label_image(boundaries) > 0] = BOUNDARY
    events = _raster_events(values, stamp)
    if boxes.is_file():
        return stamped((*events, *events_from_boxes(boxes, stamp)), stamp)
    return events
