"""The events of a sketch, and their log: one JSON object a line, appended and never rewritten.

A line is written whole or not at all: one write to a file opened for appending, then fsync. If a machine still fails
inside a line, reading the log raises an error that names this line; it is never dropped silently.

Coordinates are level-0 pixels in array order, `[y, x]`, or `[z, y, x]` of a volume, where a stroke or polygon lies in
one plane (planes.py); the centre of the first pixel is `[0, 0]`.

    {"event":"stroke","points":[[10,12],[10,30]],"radius_px":3,"label":"foreground","id":"7f","user":"ada","image":"a"}
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.kinds import holds_strokes, kind_of, unlike
from sketchscale.errors import InputError, MissingDataError, OutputError, UnknownNameError
from sketchscale.geometry import Box
from sketchscale.io.stores.addresses import local_path
from sketchscale.io.stores.local_files import sync_folder

__all__ = [
    "BOUNDARY",
    "CLASSES",
    "EVENTS",
    "FREE",
    "PLANES",
    "UNKNOWN",
    "ClassPoint",
    "Event",
    "LabelledBox",
    "Point",
    "Polygon",
    "Raster",
    "Stroke",
    "Undo",
    "append_events",
    "event_line",
    "read_events",
    "repair_log",
]

CLASSES = ("background", "foreground", "boundary", "unknown")
"""Classes of strokes, polygons and rasters; "unknown" erases."""

UNKNOWN, BOUNDARY, FREE = -1, -2, -3
"""Pixel values other than 0 (background) and k > 0 (object k); FREE is foreground of an object without a number."""

PLANES: Mapping[str, int] = {"xy": 0, "xz": 1, "yz": 2}
"""Planes of a volume, and the axis of (z, y, x) across each."""

Point: TypeAlias = tuple[float, ...]
"""(y, x), or (z, y, x) of a volume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Logged:
    """The fields of all events.

    Attributes:
        id: unique in its log, for undo.
        user, time, image: name, ISO 8601, name of the image.
    """

    id: str = ""
    user: str = ""
    time: str = ""
    image: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stroke(_Logged):
    """A brush stroke.

    Attributes:
        points: polyline `((y, x), ...)` in level-0 pixels; one point is a dab.
        radius_px: of the brush, at least 0.5; 0.5 draws a line of one pixel.
        label: one of CLASSES.
        object: number of the object of a foreground stroke, None when it is not given.
        plane: a key of PLANES, in a volume where the points lie in several planes; "" for the first of them.
    """

    kind: ClassVar[str] = "stroke"
    points: tuple[Point, ...]
    radius_px: float
    label: str
    object: int | None = None
    plane: str = ""

    def __post_init__(self) -> None:
        _require_class(self)
        _require_finite(self, self.points, least=1)
        _require_plane(self, self.points)
        if not (math.isfinite(self.radius_px) and self.radius_px >= 0.5):
            raise _bad(self, f"has a radius of {self.radius_px} px", "at least 0.5 (a line of one pixel)")
        _require_object(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Polygon(_Logged):
    """A filled region: outer ring and holes, each `((y, x), ...)` with three vertices or more; even-odd rule.

    `plane` as of a stroke.
    """

    kind: ClassVar[str] = "polygon"
    rings: tuple[tuple[Point, ...], ...]
    label: str
    object: int | None = None
    plane: str = ""

    def __post_init__(self) -> None:
        _require_class(self)
        if not self.rings:
            raise _bad(self, "has no ring", "at least one")
        for ring in self.rings:
            _require_finite(self, ring, least=3)
        _require_plane(self, [point for ring in self.rings for point in ring])
        _require_object(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBox(_Logged):
    """A box in which everything is labelled: `start` (inclusive) and `stop` (exclusive) in pixels."""

    kind: ClassVar[str] = "box"
    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        _require_extent(self, self.start, self.stop)

    @property
    def box(self) -> Box:
        """The box of its pixels."""
        return Box(self.start, self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster(_Logged):
    """Pixels of a box, run-length encoded in raster order: `((value, count), ...)`.

    Values: k > 0 object k, 0 background, -1 unknown, -2 boundary, -3 foreground of an object without a number.
    """

    kind: ClassVar[str] = "raster"
    start: tuple[int, ...]
    stop: tuple[int, ...]
    runs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _require_extent(self, self.start, self.stop)
        values, counts = np.array(self.runs, dtype=np.int64).reshape(-1, 2).T
        covered, size = int(counts.sum()), self.box.size
        if covered != size or bool((values < FREE).any()) or bool((counts < 1).any()):
            raise _bad(self, f"has runs of {covered} pixels in all", f"{size} for {self.box}, values from -3 on")

    @property
    def box(self) -> Box:
        """The box of its pixels."""
        return Box(self.start, self.stop)

    @classmethod
    def of(cls, values: npt.NDArray[Any], origin: tuple[int, ...] | None = None, **stamp: str) -> Raster:
        """Encode an array of values whose first pixel is at `origin`, by default 0; `stamp`: id, user, time, image.

        >>> Raster.of(np.array([[0, 0, 7]])).runs
        ((0, 2), (7, 1))
        """
        flat = np.ascontiguousarray(values, dtype=np.int64).ravel()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
        counts = np.diff(np.concatenate([starts, [flat.size]]))
        runs = tuple(zip(flat[starts].tolist(), counts.tolist(), strict=True))
        origin = (0,) * values.ndim if origin is None else origin
        stop = tuple(a + n for a, n in zip(origin, values.shape, strict=True))
        return cls(start=origin, stop=stop, runs=runs, **stamp)

    def values(self) -> npt.NDArray[np.int32]:
        """Return the pixels, int32."""
        values, counts = np.array(self.runs, dtype=np.int64).T
        return np.repeat(values.astype(np.int32), counts).reshape(self.box.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPoint(_Logged):
    """A click that gives the class of the object under it, for the object classifier; labels no pixel."""

    kind: ClassVar[str] = "class"
    point: Point
    name: str

    def __post_init__(self) -> None:
        _require_finite(self, (self.point,), least=1)
        if not self.name:
            raise _bad(self, "has no class name", "a name such as 'mitotic'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo(_Logged):
    """Undoes the event with the id `target`; an undo can be undone."""

    kind: ClassVar[str] = "undo"
    target: str


Event: TypeAlias = Stroke | Polygon | LabelledBox | Raster | ClassPoint | Undo

EVENTS: Mapping[str, type[Event]] = {
    kind.kind: kind for kind in (Stroke, Polygon, LabelledBox, Raster, ClassPoint, Undo)
}
"""Event classes by the "event" of a line."""


def _bad(event: Event, found: str, expected: str) -> InputError:
    where = f" on image {event.image!r}" if event.image else ""
    return InputError.of(
        found=f"{event.kind} {event.id or '(no id)'}{where} {found}",
        expected=expected,
        fix="undo it or remove its line from the sketch",
    )


def _require_class(event: Stroke | Polygon) -> None:
    if event.label not in CLASSES:
        raise UnknownNameError.among(f"class of {event.kind} {event.id or '(no id)'}", event.label, CLASSES)


def _require_object(event: Stroke | Polygon) -> None:
    if event.object is not None and not (event.label == "foreground" and 0 < event.object < 2**31):
        raise _bad(event, f"({event.label}) names object {event.object}", "an object from 1 on, for foreground only")


def _require_finite(event: Event, points: Sequence[Point], least: int) -> None:
    axes = len(points[0]) if points else 0
    if (
        len(points) < least
        or axes not in (2, 3)
        or not all(len(p) == axes and all(map(math.isfinite, p)) for p in points)
    ):
        raise _bad(event, "has missing or non-finite coordinates", f"{least} or more finite points [y, x] or [z, y, x]")


def _require_plane(event: Stroke | Polygon, points: Sequence[Point]) -> None:
    if event.plane and event.plane not in PLANES:
        raise UnknownNameError.among(f"plane of {event.kind} {event.id or '(no id)'}", event.plane, PLANES)
    across = [PLANES[event.plane]] if event.plane else list(PLANES.values())
    if len(points[0]) == 2 and event.plane:
        raise _bad(event, f"names the plane {event.plane}", "points [z, y, x] in it")
    if len(points[0]) == 3 and all(len({point[axis] for point in points}) > 1 for axis in across):
        raise _bad(event, "runs through space", "one coordinate that is the same for all points, as it lies in a plane")


def _require_extent(event: LabelledBox | Raster, start: tuple[int, ...], stop: tuple[int, ...]) -> None:
    if not len(start) == len(stop) in (2, 3) or not all(a < b for a, b in zip(start, stop, strict=True)):
        raise _bad(event, f"runs from {list(start)} to {list(stop)}", "start before stop, both [y, x] or [z, y, x]")


def event_line(event: Event) -> bytes:
    """Return the event as a line of the log, with its end of line; empty fields are left out."""
    record: dict[str, Any] = {"event": event.kind}
    shared = fields(_Logged)
    for field in (*fields(event)[len(shared) :], *shared):
        value = getattr(event, field.name)
        if value is not None and value != "":
            record[field.name] = value
    return json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, list) else value


def append_events(path: str | os.PathLike[str], events: Iterable[Event]) -> None:
    """Append events to a log, which is created when absent; on return they are on the disk.

    All lines go in one write to a file opened for appending, so that two writers never mix inside a line. A write that
    fails half way (disk full) is removed.

    Raises:
        InputError: the log ends in a torn line (see `repair_log`).
        OutputError: the log cannot be written.
    """
    path = Path(path)
    data = b"".join(event_line(event) for event in events)
    fresh = not path.exists()
    if not fresh and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                raise _torn(path, 1 + path.read_bytes().count(b"\n"))
    try:
        _append(path, data)
        if fresh:
            sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"cannot append to sketch {path}: {error.strerror}; to fix: free space or permission"
        ) from error


def _append(path: Path, data: bytes) -> None:
    """Write and sync data at the end of a file; on an error cut the file to its old size."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        size = os.fstat(handle).st_size
        try:
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)


def _torn(path: Path, number: int) -> InputError:
    """Return the error for a last line without an end; it recommends --repair for stroke logs only."""
    if not holds_strokes(path):
        return unlike(path, "strokes")
    return InputError.of(
        found=f"line {number}, the last one of sketch {path}, is torn (no end of line: a writer was stopped there)",
        expected="whole lines",
        fix="`sketchscale sketch show --repair` moves the torn part to a file next to the log",
    )


def repair_log(path: str | os.PathLike[str]) -> Path | None:
    """Move a torn last line to `<path>.torn` and return that path; None when the log is whole.

    Raises:
        InputError: not a stroke log by its first line; the file stays unchanged.
    """
    path = Path(path)
    data = path.read_bytes()
    if data and not holds_strokes(path):
        raise unlike(path, "strokes")
    keep = data.rfind(b"\n") + 1
    if keep == len(data):
        return None
    torn = path.with_name(path.name + ".torn")
    torn.write_bytes(data[keep:])
    os.truncate(path, keep)
    return torn


def read_events(path: str | os.PathLike[str]) -> tuple[Event, ...]:
    """Read all events of a log, in order, with undone ones.

    Raises:
        MissingDataError: no such file.
        InputError: a line that is torn, not JSON, or has invalid values; names file and line.
    """
    path = local_path(os.fspath(path))
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise MissingDataError(f"sketch {path} cannot be read: {error.strerror}; expected: a .jsonl log") from error
    if lines[-1]:
        raise _torn(path, len(lines))
    if kind_of(path) not in ("strokes", ""):
        raise unlike(path, "strokes")
    return tuple(_read_line(path, number, line) for number, line in enumerate(lines[:-1], start=1) if line.strip())


def _read_line(path: Path, number: int, line: bytes) -> Event:
    try:
        record = json.loads(line)
        kind = str(record.pop("event", None)) if isinstance(record, dict) else "nothing"
        if kind not in EVENTS:
            raise UnknownNameError.among("event", kind, EVENTS)
        return EVENTS[kind](**{name: _tupled(value) for name, value in record.items()})
    except InputError as error:
        raise InputError(f"line {number} of sketch {path}: {error}") from error
    except (ValueError, TypeError) as error:
        raise InputError.of(
            found=f"line {number} of sketch {path} is not a sketch event ({error})",
            expected="one JSON object a line with an 'event' of " + ", ".join(sorted(EVENTS)),
            fix="correct or remove that line",
        ) from error
