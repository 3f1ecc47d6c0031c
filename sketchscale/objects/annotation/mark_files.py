"""Read files of annotated objects (CSV, Parquet, GeoJSON) into marks.

Tables (`.csv`, `.parquet`) start with a line of column names; case does not matter, and other columns are ignored:

    class                 a name; `undo` cancels earlier rows about the object, `unsure` is no example
    label                 the object's id; or a point on it:
    y,x  (z,y,x)          pixel indices of level 0, centres at integers
    y_um,x_um  (z_um)     the same in um, by the image's spacing
    image                 optional: file name, address or well of the image
    color                 optional: of the class, as #RRGGBB

If a row has several of these, the label counts, then pixels. GeoJSON is QuPath's: points and polygons with
`classification` {name, color}, x before y, from the corner of the first pixel; the properties may contain `image`.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet

from sketchscale.annotations.geojson import read_geojson
from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.stores.addresses import local_path

__all__ = ["UNDO", "UNSURE", "Mark", "check_color", "check_colors", "class_colors", "read_marks"]

UNDO = "undo"
"""A mark with this class cancels earlier marks on its object."""

UNSURE = "unsure"
"""A mark with this class was reviewed but not decided: no example for a classifier."""

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_POINTS = (("z", "y", "x"), ("y", "x"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One annotation: the class of an object named by its label, by a point on it, or by an outline of it.

    Attributes:
        name: of the class, or UNDO or UNSURE.
        point: (y, x) or (z, y, x) in `unit`.
        rings: of an outline in pixels, ((y, x), ...) each; even-odd rule.
        image: as named in the file; may be empty.
        color: of the class, "#rrggbb"; may be empty.
        row: all columns of the file, as text.
        where: for messages, such as "cells.csv, line 7".
    """

    name: str
    label: int | None = None
    point: tuple[float, ...] | None = None
    unit: Literal["px", "um"] = "px"
    rings: tuple[tuple[tuple[float, float], ...], ...] = ()
    image: str = ""
    color: str = ""
    row: Mapping[str, str] | None = None
    where: str = "annotation"


def read_marks(path: str | Path) -> tuple[Mark, ...]:
    """Read annotated objects. The file's ending selects the format; an unknown ending is read as CSV.

    Raises:
        MissingDataError: the file does not exist.
        InputError: the file cannot be read; the message names the line, row or feature.
    """
    name = str(local_path(path)).lower()
    if name.endswith((".geojson", ".geojson.gz", ".json")):
        return _from_geojson(path)
    return _from_parquet(path) if name.endswith((".parquet", ".pq")) else _from_csv(path)


def class_colors(marks: tuple[Mark, ...]) -> dict[str, str]:
    """Return the colour of each class that has one.

    Raises:
        InputError: a class has two colours.

    >>> class_colors((Mark(name="round", color="#00ff00"), Mark(name="long")))
    {'round': '#00ff00'}
    """
    found: dict[str, str] = {}
    for mark in marks:
        if mark.color and found.setdefault(mark.name, mark.color) != mark.color:
            raise InputError.of(
                found=f"{mark.where}: class {mark.name!r} in {mark.color} and {found[mark.name]}",
                expected="one colour per class",
                fix="correct the line",
            )
    return found


def check_color(text: str, where: str = "color") -> str:
    """Return the colour in lower case.

    Raises:
        InputError: it is not of the form #RRGGBB.

    >>> check_color("#A0B1C2")
    '#a0b1c2'
    """
    if not _COLOR.fullmatch(text):
        raise InputError.of(found=f"{where}: {text!r}", expected="a colour such as #e67828", fix="write it as #RRGGBB")
    return text.lower()


def check_colors(colors: Mapping[str, str]) -> dict[str, str]:
    """Return colours by class in lower case; raise InputError as `check_color` does.

    >>> check_colors({"round": "#00FF00"})
    {'round': '#00ff00'}
    """
    return {name: check_color(color, f"--color {name}={color}") for name, color in colors.items()}


def _from_csv(path: str | Path) -> tuple[Mark, ...]:
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            names = [name.strip().lower() for name in reader.fieldnames or ()]
            _check_columns(path, names)
            reader.fieldnames = names
            return tuple(_mark(f"{path}, line {reader.line_num}", row) for row in reader)
    except OSError as error:
        raise MissingDataError(f"{path}: {error.strerror}; expected: a file of annotated objects") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError.of(found=f"{path}: {error}", expected="a CSV file in UTF-8", fix="export it again") from error


def _from_parquet(path: str | Path) -> tuple[Mark, ...]:
    try:
        table = pyarrow.parquet.read_table(str(path))
    except FileNotFoundError as error:
        raise MissingDataError(f"{path}: No such file; expected: a file of annotated objects") from error
    except (OSError, pyarrow.ArrowException) as error:
        cause = str(error).splitlines()[0][:120]
        raise InputError.of(found=f"{path}: {cause}", expected="a Parquet table", fix="export it again") from error
    table = table.rename_columns([name.strip().lower() for name in table.column_names])
    _check_columns(path, table.column_names)
    rows = (row for batch in table.to_batches() for row in batch.to_pylist())
    return tuple(_mark(f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))


def _check_columns(path: str | Path, names: list[str]) -> None:
    known = set(names)
    ways = ({"label"}, {"y", "x"}, {"y_um", "x_um"})
    if "class" not in known or not any(way <= known for way in ways) or len(known) < len(names):
        raise InputError.of(
            found=f"{path}: columns {', '.join(names) or 'none'}",
            expected="label,class or y,x,class or y_um,x_um,class, each once",
            fix="name the columns in the first line",
        )


def _mark(where: str, values: Mapping[Any, Any]) -> Mark:
    row = {str(k): "" if v is None else str(v).strip() for k, v in values.items() if isinstance(k, str)}
    if not row["class"]:
        raise InputError.of(found=f"{where}: no class", expected="a name", fix="fill it in or remove the line")
    try:
        label, point, unit = _place(row)
    except ValueError as error:
        raise InputError.of(found=f"{where}: {error}", expected="numbers", fix="correct the line") from error
    color = check_color(row["color"], where) if row.get("color") else ""
    name, image = row["class"], row.get("image", "")
    return Mark(name=name, label=label, point=point, unit=unit, image=image, color=color, row=row, where=where)


def _place(row: Mapping[str, str]) -> tuple[int | None, tuple[float, ...] | None, Literal["px", "um"]]:
    """Return the label, or the point and its unit."""
    if row.get("label"):
        whole = float(row["label"]) if "." in row["label"] else int(row["label"])
        if not math.isfinite(whole) or whole != int(whole):
            raise ValueError(f"label {row['label']}")
        return int(whole), None, "px"
    units: tuple[tuple[str, Literal["px", "um"]], ...] = (("", "px"), ("_um", "um"))
    for ending, unit in units:
        for axes in _POINTS:
            texts = [row.get(axis + ending, "") for axis in axes]
            if all(texts):
                return None, tuple(float(text) for text in texts), unit
    raise ValueError("neither a label nor a point")


def _from_geojson(path: str | Path) -> tuple[Mark, ...]:
    collection = read_geojson(path)
    features = collection.get("features")
    if not isinstance(features, list):
        raise InputError.of(found=f"{path}: no features", expected="a FeatureCollection", fix="export it again")
    return tuple(mark for n, feature in enumerate(features, 1) for mark in _feature(f"{path}, feature {n}", feature))


def _feature(where: str, feature: Any) -> Iterator[Mark]:
    try:
        properties = feature.get("properties") or {}
        given = properties.get("classification") or {}
        name = str(given.get("name") or ": ".join(map(str, given.get("names", ())))).strip()  # QuPath: derived classes
        rgb = given.get("color")
        color = "#{:02x}{:02x}{:02x}".format(*(int(v) & 255 for v in rgb[:3])) if rgb else ""
        geometry, image = feature["geometry"], str(properties.get("image", ""))
        places = [_shape(kind, xys) for kind, xys in _parts(geometry["type"], geometry["coordinates"])]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError.of(
            found=f"{where} cannot be read ({type(error).__name__}: {error})",
            expected="a point or polygon in pixels",
            fix="remove or correct it",
        ) from error
    if not name:
        raise InputError.of(found=f"{where}: no class", expected="a name", fix="classify it or remove it")
    for point, rings in places:
        yield Mark(name=name, point=point, rings=rings, image=image, color=color, where=where)


def _parts(kind: str, coordinates: Any) -> list[tuple[str, Any]]:
    """Split several points into marks of their own; a polygon of several parts is one mark."""
    if kind == "MultiPoint":
        return [("Point", xy) for xy in coordinates]
    if kind == "MultiPolygon":
        return [("Polygon", [ring for polygon in coordinates for ring in polygon])]
    return [(kind, coordinates)]


def _shape(kind: str, coordinates: Any) -> tuple[tuple[float, ...] | None, tuple[tuple[tuple[float, float], ...], ...]]:
    if kind == "Point":
        return _yx(coordinates), ()
    if kind != "Polygon":
        raise ValueError(f"geometry {kind!r}")
    return None, tuple(_ring(ring) for ring in coordinates)


def _ring(xys: Any) -> tuple[tuple[float, float], ...]:
    points = tuple(_yx(xy) for xy in xys)
    points = points[:-1] if len(points) > 1 and points[0] == points[-1] else points
    if len(points) < 3:
        raise ValueError("a ring of fewer than three points")
    return points


def _yx(xy: Any) -> tuple[float, float]:
    y, x = float(xy[1]) - 0.5, float(xy[0]) - 0.5
    if not (math.isfinite(y) and math.isfinite(x)):
        raise ValueError(f"coordinates {xy}")
    return y, x
