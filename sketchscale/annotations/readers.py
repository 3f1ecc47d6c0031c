"""Read annotations of other programs into sketch events; geojson.py reads GeoJSON.

Every reader returns events, for `append_events` or a `Sketch`. Formats:

    labels      any 2-D integer image: TIFF, PNG, NPY; k > 0 object k, 0 background (or unknown)
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
    """User, time and image of events; `prefix` makes the ids of one import unique in its log."""

    image: str = ""
    user: str = ""
    time: str = ""
    prefix: str = ""

    @classmethod
    def now(cls, *, image: str = "", user: str = "") -> Stamp:
        """Return a stamp with the current time (UTC, ISO 8601) and a new random prefix."""
        time, prefix = datetime.now(UTC).isoformat(timespec="seconds"), uuid.uuid4().hex[:8] + "-"
        return cls(image=image, user=user, time=time, prefix=prefix)

    def fields(self, number: int) -> dict[str, str]:
        """Return the fields of the event with this number."""
        return {"id": f"{self.prefix}{number:05d}", "user": self.user, "time": self.time, "image": self.image}


def stamped(events: Iterable[Event], stamp: Stamp) -> tuple[Event, ...]:
    """Return the events with new ids and the stamp's image, user and time; an event's own user and time stay."""
    found: list[Event] = []
    for number, event in enumerate(events):
        fields: dict[str, Any] = dict(stamp.fields(number))
        fields |= {name: own for name in ("user", "time") if (own := getattr(event, name))}
        found.append(dataclasses.replace(event, **fields))
    return tuple(found)


def next_object(events: Iterable[Event]) -> int:
    """Return the smallest object number above all numbers in use; 1 for an empty log."""
    used = [e.object or 0 for e in events if isinstance(e, Stroke | Polygon)]
    used += [value for e in events if isinstance(e, Raster) for value, _ in e.runs]
    return max([0, *used]) + 1


# Label images


def read_label_image(path: str | Path) -> npt.NDArray[np.integer[Any]]:
    """Read a 2-D integer image from TIFF, PNG or NPY, as stored.

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
    """Return a label image as raster events, one for each tile of 1024 px with known pixels.

    Args:
        labels: (y, x), integers; k > 0 object k; negative values are unknown.
        zero: meaning of 0: "background" for a full annotation, "unknown" where only some objects are labelled (then
            their outlines are added as boundary, because a labelled object is complete).
        first_object: object k becomes number k - 1 + first_object; see `next_object`.
        meanings: classes of single values, which then are not objects, such as {255: "background"}.
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
    """Return boundary events around whole objects: the unlabelled pixels that share an edge with an object.

    Where two objects touch, no boundary is drawn: their numbers differ already, and neither loses a pixel.
    """
    sketch = Sketch(shape=shape, events=tuple(events))
    boxes = []
    for event in sketch.marks:
        (y0, x0), (y1, x1) = extent_of(event)
        margin = event.radius_px + 1 if isinstance(event, Stroke) else 1
        boxes.append(Box((int(y0 - margin), int(x0 - margin)), (int(y1 + margin) + 1, int(x1 + margin) + 1)).grow(1))
    found: list[Event] = []
    for tile in tile_cover(shape, (_RASTER_TILE, _RASTER_TILE), halo=1):
        if not any(box.intersect(tile.write).size for box in boxes):
            continue
        labels = sketch.rasterize(tile.read).labels
        ring = ndimage.binary_dilation(labels > 0) & (labels == UNKNOWN)
        ring = ring[tile.write.relative_to(tile.read.start).slices]
        if ring.any():
            origin = (tile.write.start[0], tile.write.start[1])
            values = np.where(ring, BOUNDARY, UNKNOWN)
            found.append(Raster.of(values, origin, **stamp.fields(len(events) + len(found))))
    return tuple(found)


# Tables


def events_from_points(path: str | Path, stamp: Stamp) -> tuple[Event, ...]:
    """Read a CSV with columns y, x, class (or axis-0, axis-1, class).

    A class of CLASSES is a dab of radius 1.5 px; any other name is the class of the object under the point.

    Raises:
        MissingDataError, InputError: no such file; missing columns; a value that is not a number, with its line.
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
    """Read a CSV with columns y0, x0, y1, x1 in pixels, stop exclusive; or a napari CSV (index, axis-0, axis-1).

    Raises:
        MissingDataError, InputError: as `events_from_points`.
    """
    plain = {name: name for name in ("y0", "x0", "y1", "x1")}
    napari = {"index": "index", "y": "axis-0", "x": "axis-1"}
    rows = csv_rows(path, (plain, napari))
    extents = []
    if rows and "index" in rows[0][1]:
        corners: dict[str, list[Point]] = {}
        for line, row in rows:
            point = csv_number(path, line, row["y"]), csv_number(path, line, row["x"])
            corners.setdefault(row["index"], []).append(point)
        for points in corners.values():
            y, x = zip(*points, strict=True)
            start = max(0, round(min(y))), max(0, round(min(x)))
            extents.append((start, (round(max(y)) + 1, round(max(x)) + 1)))
    else:
        for line, row in rows:
            y0, x0, y1, x1 = (round(csv_number(path, line, row[name])) for name in plain)
            extents.append(((y0, x0), (y1, x1)))
    return tuple(LabelledBox(start=a, stop=b, **stamp.fields(number)) for number, (a, b) in enumerate(extents))


def csv_rows(path: str | Path, headers: Sequence[Mapping[str, str]]) -> list[tuple[int, dict[str, str]]]:
    """Return (line, values by our name) of the rows of a CSV that has the columns of one of the headers."""
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
    """Return a finite number from a cell of a CSV."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError.of(found=f"line {line} of {path} has {text!r}", expected="a number", fix="correct that line")
    return value


# Sketchpose


def events_from_sketchpose(labels_path: str | Path, stamp: Stamp) -> tuple[Event, ...]:
    """Read Sketchpose's files of one image: `<stem>_labels.png`, and boundaries and boxes if they exist.

    Raises:
        MissingDataError, InputError: no such file, another name, or label values other than 0 (unknown), 1 and 2.
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
