"""Read one point in each object, as people click them, from a table, GeoJSON or a sketch.

    .csv                 columns y, x, or axis-0, axis-1 (napari), or Y, X (Fiji), in pixels; others are left out
    .geojson, .json, .gz every Point and MultiPoint but those of the class background
    .jsonl               a sketch: clicks that name a class, and foreground dabs (strokes of one point)

Points have the order of the file. The caller checks whether they lie in the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import ClassPoint, Stroke
from sketchscale.annotations.geojson import points_of_geojson, read_geojson
from sketchscale.annotations.readers import csv_number, csv_rows
from sketchscale.annotations.sketch import open_sketch
from sketchscale.errors import InputError, UnknownNameError

__all__ = ["read_centres"]


def read_centres(path: str, shape: tuple[int, int], image: str | None = None) -> npt.NDArray[np.float64]:
    """Read the points of a file.

    Args:
        shape: (y, x) of the image.
        image: the image to take points of, from a sketch of several images.

    Returns:
        (n, 2) float64 of (y, x), pixels; the centre of a pixel is a whole number.

    Raises:
        MissingDataError, InputError: no such file, one of another kind, or one that cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _READERS:
        raise UnknownNameError.among(f"kind of file for points ({path})", suffix, _READERS)
    points = np.array(list(_READERS[suffix](path, shape, image)), np.float64).reshape(-1, 2)
    if not len(points):
        raise InputError.of(found=f"no point in {path}", expected="one in each object", fix="click some")
    return points


def _from_csv(path: str, shape: tuple[int, int], image: str | None) -> Iterator[tuple[float, float]]:
    headers = ({"y": "y", "x": "x"}, {"y": "axis-0", "x": "axis-1"}, {"y": "Y", "x": "X"})
    for line, row in csv_rows(path, headers):
        yield csv_number(path, line, row["y"]), csv_number(path, line, row["x"])


def _from_geojson(path: str, shape: tuple[int, int], image: str | None) -> Iterator[tuple[float, float]]:
    yield from (point for point, name in points_of_geojson(read_geojson(path)) if name.lower() != "background")


def _from_sketch(path: str, shape: tuple[int, int], image: str | None) -> Iterator[tuple[float, float]]:
    for event in open_sketch(path, shape=shape, image=image).marks:
        if isinstance(event, ClassPoint):
            yield event.point[0], event.point[1]
        elif isinstance(event, Stroke) and len(event.points) == 1 and event.label == "foreground":
            yield event.points[0][0], event.points[0][1]


_READERS = {
    ".csv": _from_csv,
    ".geojson": _from_geojson,
    ".json": _from_geojson,
    ".gz": _from_geojson,
    ".jsonl": _from_sketch,
}
