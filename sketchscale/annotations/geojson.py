"""Read and write sketches as GeoJSON, in QuPath's conventions.

    label              properties.classification.name ("foreground" ...); QuPath shows its colour
    event              properties.metadata: kind, radius_px, object, user, time (strings, which QuPath keeps)
    stroke             LineString, or Point for a dab          polygon, box    Polygon
    raster             a Polygon for each connected component, along the midlines between pixels: same pixels again

    volume             "plane": {"z": 7} in a geometry names its section; other planes have no name in GeoJSON

GeoJSON counts x before y and from the corner of the first pixel; a sketch counts y before x and from its centre:
`[y, x] = [gy - 0.5, gx - 0.5]`. Halves are exact in binary, so writing and reading gives the same numbers.
"""

from __future__ import annotations

import gzip
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy import ndimage
from skimage import measure

from sketchscale.annotations.events import (
    BOUNDARY,
    CLASSES,
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
from sketchscale.annotations.planes import lowered, raised
from sketchscale.annotations.readers import Stamp, next_object, outlines, stamped
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError, MissingDataError, UnknownNameError
from sketchscale.io.stores.addresses import local_path

__all__ = ["events_from_geojson", "geojson_from_sketch", "points_of_geojson", "read_geojson", "write_geojson"]

Json: TypeAlias = dict[str, Any]

_BOX = "labelled box"
_DAB_RADIUS_PX = 1.5
_NO_CLASS = "none"
"""Name in --class for annotations without a class."""
_COLORS = {
    "background": [66, 106, 214],
    "foreground": [230, 120, 40],
    "boundary": [40, 170, 90],
    "unknown": [128, 128, 128],
    _BOX: [150, 90, 200],
}


def read_geojson(path: str | Path) -> Json:
    """Parse a file; `.gz` is unpacked, and a feature or a list of features becomes a collection.

    Raises:
        MissingDataError, InputError: no such file, or not GeoJSON.
    """
    path = local_path(path)
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; expected: a .geojson or .geojson.gz file")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        parsed = json.loads(data)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is not GeoJSON: {error}; expected: a FeatureCollection") from error
    if isinstance(parsed, dict) and parsed.get("type") != "Feature":
        return parsed
    return {"type": "FeatureCollection", "features": [parsed] if isinstance(parsed, dict) else parsed}


def write_geojson(path: str | Path, collection: Json) -> None:
    """Write a file, packed when the name ends in .gz; the same content gives the same bytes."""
    data = json.dumps(collection, separators=(",", ":"), allow_nan=False).encode()
    Path(path).write_bytes(gzip.compress(data, mtime=0) if str(path).endswith(".gz") else data)


# Reading


def points_of_geojson(collection: Json) -> list[tuple[tuple[float, float], str]]:
    """Return (y, x) and class of every Point, in order; other geometries are left out.

    Raises:
        InputError: a feature that cannot be read.

    >>> feature = {"geometry": {"type": "Point", "coordinates": [10.5, 4.5]}}
    >>> points_of_geojson({"features": [feature]})
    [((4.0, 10.0), '')]
    """
    found = []
    for number, feature in enumerate(collection.get("features") or ()):
        with _reading(number):
            name = _class_name(feature.get("properties") or {})
            geometry = feature["geometry"]
            parts = _single(geometry["type"], geometry["coordinates"])
            found += [(_point(coordinates), name) for kind, coordinates in parts if kind == "Point"]
    return found


def events_from_geojson(
    collection: Json,
    stamp: Stamp,
    *,
    shape: tuple[int, ...],
    classes: Mapping[str, str] | None = None,
    radius_px: float = 0.5,
) -> tuple[Event, ...]:
    """Return features as events.

    A foreground polygon is a whole object, and its outline becomes boundary. A line is a stroke of `radius_px`, a point
    a dab; a point of any other class is a click for the object classifier. Collections of `geojson_from_sketch` come
    back unchanged, with new ids.

    Args:
        collection: a FeatureCollection.
        shape: (y, x) or (z, y, x) of the image, which outlines must not leave; every geometry of a volume names its
            section.
        classes: other class names and their meaning, such as {"Tumor": "foreground", "Ignore*": "unknown"}; case does
            not matter, and "none" stands for annotations without a class. QuPath's detections and cells are always
            foreground.
        radius_px: of lines without a radius.

    Raises:
        UnknownNameError: a line or polygon without a class, or with one that is neither in CLASSES nor in `classes`.
        InputError: a geometry that cannot be read, or names no plane of a volume; names the feature by its number.

    >>> ring = [[2, 1], [6, 1], [6, 4], [2, 4], [2, 1]]
    >>> cell = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"objectType": "detection"}}
    >>> events = events_from_geojson({"features": [cell]}, Stamp(), shape=(9, 9))
    >>> int((Sketch(shape=(9, 9), events=events).rasterize().labels == 1).sum())
    12
    """
    features = collection.get("features")
    if not isinstance(features, list):
        raise InputError.of(found="GeoJSON without features", expected="a FeatureCollection", fix="export it again")
    known = {name: name for name in (*CLASSES, _BOX)} | {k.lower(): v for k, v in (classes or {}).items()}
    drafts: list[tuple[Event, bool, int | None]] = []
    for number, feature in enumerate(features):
        z = _section(number, feature) if len(shape) == 3 else None
        with _reading(number):
            geometry, properties = feature["geometry"], feature.get("properties") or {}
            metadata = {str(k): str(v) for k, v in (properties.get("metadata") or {}).items()}
            for kind, coordinates in _single(geometry["type"], geometry["coordinates"]):
                event = _read_geometry(kind, coordinates, _class_name(properties), metadata, known, radius_px)
                is_whole = "kind" not in metadata and isinstance(event, Polygon) and event.label == "foreground"
                drafts.append((event, is_whole, z))
    numbers = itertools.count(next_object(event for event, _, _ in drafts))
    events: list[Event] = []
    objects: dict[int | None, list[Event]] = {}
    for event, is_whole, z in drafts:
        if is_whole and isinstance(event, Polygon):
            event = replace(event, object=next(numbers))
            objects.setdefault(z, []).append(event)
        events.append(event if z is None else raised(event, 0, z))
    for z, whole in objects.items():
        lines = outlines(whole, (shape[-2], shape[-1]), stamp)
        events += lines if z is None else [raised(line, 0, z) for line in lines]
    return stamped(events, stamp)


def _section(number: int, feature: Json) -> int:
    """Return the section of a volume that a feature names."""
    plane = (feature.get("geometry") or {}).get("plane")
    if not isinstance(plane, dict) or not isinstance(plane.get("z"), int):
        raise InputError.of(
            found=f"feature {number} names no plane of the volume",
            expected='"plane": {"z": 7} in its geometry, as QuPath writes it',
            fix="draw it on a section of the volume and export it again",
        )
    return int(plane["z"])


@contextmanager
def _reading(number: int) -> Iterator[None]:
    """Turn errors in reading a feature into one line that names it."""
    try:
        yield
    except UnknownNameError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError.of(
            found=f"feature {number} cannot be read ({type(error).__name__}: {error})",
            expected="a Feature with a LineString, Polygon or Point (or Multi-) in pixels",
            fix="remove or correct it",
        ) from error


def _single(kind: str, coordinates: Any) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a geometry, each with its kind."""
    if kind.startswith("Multi"):
        for part in coordinates:
            yield kind.removeprefix("Multi"), part
    else:
        yield kind, coordinates


def _class_name(properties: Json) -> str:
    if properties.get("objectType") in ("detection", "cell"):
        return "foreground"
    classification = properties.get("classification") or {}
    return str(classification.get("name") or ": ".join(classification.get("names") or ()))


def _read_geometry(
    kind: str, coordinates: Any, name: str, metadata: Mapping[str, str], known: Mapping[str, str], radius_px: float
) -> Event:
    who = {"user": metadata.get("user", ""), "time": metadata.get("time", "")}
    if not name and metadata.get("kind") != "class":
        name = _unclassified(known)
    label = known.get(name.lower(), name)
    if kind == "Point" and (metadata.get("kind") == "class" or name.lower() not in known):
        return ClassPoint(point=_point(coordinates), name=name, **who)
    if label not in (*CLASSES, _BOX):
        raise UnknownNameError.among("class in GeoJSON (give its meaning with --class NAME=CLASS)", name, known)
    if label == _BOX:
        x, y = zip(*[(p[0], p[1]) for p in coordinates[0]], strict=True)
        start, stop = (math.floor(min(y)), math.floor(min(x))), (math.ceil(max(y)), math.ceil(max(x)))
        return LabelledBox(start=start, stop=stop, **who)
    numbered = int(metadata["object"]) if "object" in metadata else None
    if kind == "Polygon":
        rings = tuple(_ring(ring) for ring in coordinates)
        return Polygon(rings=rings, label=label, object=numbered, **who)
    if kind not in ("LineString", "Point"):
        raise InputError(f"geometry {kind!r}")
    points = tuple(_point(p) for p in (coordinates if kind == "LineString" else [coordinates]))
    radius = float(metadata.get("radius_px", radius_px if kind == "LineString" else _DAB_RADIUS_PX))
    return Stroke(points=points, radius_px=radius, label=label, object=numbered, **who)


def _unclassified(known: Mapping[str, str]) -> str:
    """Return the name of annotations without a class, if `known` gives it a meaning."""
    if _NO_CLASS not in known:
        raise UnknownNameError.of(
            found="GeoJSON with an annotation that has no class",
            expected="background, foreground or boundary for each",
            fix=f"give their meaning, as in --class {_NO_CLASS}=foreground, or give them a class in QuPath",
        )
    return _NO_CLASS


def _point(xy: Sequence[float]) -> tuple[float, float]:
    return float(xy[1]) - 0.5, float(xy[0]) - 0.5


def _ring(xys: Sequence[Sequence[float]]) -> tuple[Point, ...]:
    """Return the points of a ring, without the last one where it repeats the first."""
    points = tuple(_point(p) for p in xys)
    return points[:-1] if len(points) > 1 and points[0] == points[-1] else points


# Writing


def geojson_from_sketch(sketch: Sketch) -> Json:
    """Return the events as a FeatureCollection, in their order; undone events are left out.

    Raises:
        InputError: of a volume, an event that lies in no single section.
    """
    features = [feature for event in sketch.marks for feature in _features(event)]
    return {"type": "FeatureCollection", "features": features}


def _features(event: Event) -> Iterator[Json]:
    low, high = extent_of(event)
    if len(low) == 3:
        if low[0] != high[0]:
            raise InputError.of(
                found=f"{event.kind} {event.id or '(no id)'} of a volume lies in no single section",
                expected="marks in xy planes, as GeoJSON names sections only",
                fix="keep the stroke log",
            )
        z = math.floor(low[0] + 0.5)
        for feature in _features(lowered(event)):
            feature["geometry"]["plane"] = {"c": -1, "z": z, "t": 0}
            yield feature
    elif isinstance(event, Stroke):
        line = [_xy(p) for p in event.points]
        geometry = ("LineString", line) if len(line) > 1 else ("Point", line[0])
        yield _feature(event, event.label, *geometry, object=event.object, radius_px=event.radius_px)
    elif isinstance(event, Polygon):
        yield _feature(event, event.label, "Polygon", [_closed(r) for r in event.rings], object=event.object)
    elif isinstance(event, LabelledBox):
        (y0, x0), (y1, x1) = event.start, event.stop
        yield _feature(event, _BOX, "Polygon", [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]])
    elif isinstance(event, ClassPoint):
        yield _feature(event, event.name, "Point", _xy(event.point))
    elif isinstance(event, Raster):
        for label, number, rings in _raster_polygons(event):
            yield _feature(event, label, "Polygon", [_closed(r) for r in rings], object=number)


def _feature(event: Event, name: str, kind: str, coordinates: Any, **numbers: float | None) -> Json:
    metadata = {"kind": event.kind, "user": event.user, "time": event.time}
    metadata |= {key: str(value) for key, value in numbers.items() if value is not None}
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {
            "objectType": "annotation",
            "name": event.id,
            "classification": {"name": name, "color": _COLORS.get(name, [200, 60, 120])},
            "metadata": metadata,
        },
    }


def _xy(point: Point) -> list[float]:
    return [point[1] + 0.5, point[0] + 0.5]


def _closed(ring: Sequence[Point]) -> list[list[float]]:
    return [_xy(p) for p in (*ring, ring[0])]


def _raster_polygons(event: Raster) -> Iterator[tuple[str, int | None, list[list[Point]]]]:
    """Yield (label, object, rings) of each 4-connected component of one value."""
    values = event.values()
    for value in np.unique(values[values != UNKNOWN]).tolist():
        components, count = ndimage.label(values == value)
        for k, window in enumerate(ndimage.find_objects(components, count), start=1):
            origin = (event.start[0] + window[0].start, event.start[1] + window[1].start)
            label = {0: "background", BOUNDARY: "boundary"}.get(value, "foreground")
            mask = np.pad(components[window] == k, 1).astype(np.float64)
            # Midway between pixels, so that the mask's pixel centres are inside; the outer ring first, then holes.
            contours = measure.find_contours(mask, 0.5, fully_connected="low")  # type: ignore[no-untyped-call]
            rings: list[list[Point]] = [[(y, x) for y, x in (c[:-1] + np.array(origin) - 1).tolist()] for c in contours]
            rings.sort(key=lambda ring: min(y for y, _ in ring) - max(y for y, _ in ring))
            yield label, value if value > 0 else None, rings
