from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from sketchscale.annotations.events import ClassPoint, Event, Raster, Stroke
from sketchscale.annotations.geojson import events_from_geojson, geojson_from_sketch, read_geojson, write_geojson
from sketchscale.annotations.readers import Stamp
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError
from tests.annotations.test_sketch import sketches


def plain(event: Event) -> Event:
    return dataclasses.replace(event, id="")


@given(sketches())
@settings(max_examples=80, deadline=None)
def test_a_sketch_goes_to_geojson_and_back(sketch: Sketch) -> None:
    back = events_from_geojson(geojson_from_sketch(sketch), Stamp(), shape=sketch.shape)
    if not any(isinstance(e, Raster) for e in sketch.events):
        assert tuple(map(plain, back)) == sketch.events
    expected, found = sketch.rasterize(), Sketch(shape=sketch.shape, events=back).rasterize()
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.boundary, expected.boundary)


def feature(kind: str, coordinates: Any, name: str = "", **properties: Any) -> dict[str, Any]:
    classification = {"classification": {"name": name}} if name else {}
    return {"geometry": {"type": kind, "coordinates": coordinates}, "properties": classification | properties}


def square(x: float, y: float, size: float) -> list[list[list[float]]]:
    return [[[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]]


def test_qupath_cells_are_whole_objects_with_outlines() -> None:
    cells = [feature("Polygon", square(2, 1, 4), objectType="cell"), feature("Polygon", square(6, 1, 4), "foreground")]
    events = events_from_geojson({"features": cells}, Stamp(prefix="q-"), shape=(7, 12))
    raster = Sketch(shape=(7, 12), events=events).rasterize()
    assert raster.labels[1].tolist() == [-1, -1, 1, 1, 1, 1, 2, 2, 2, 2, -1, -1]
    assert np.flatnonzero(raster.boundary[1]).tolist() == [1, 10]
    assert len({e.id for e in events}) == 3


def test_other_class_names_are_translated_or_refused_with_the_known_ones() -> None:
    collection = {"features": [feature("LineString", [[1, 1], [4, 1]], "Tumor")]}
    (stroke,) = events_from_geojson(collection, Stamp(), shape=(9, 9), classes={"tumor": "foreground"}, radius_px=2)
    assert stroke == Stroke(points=((0.5, 0.5), (0.5, 3.5)), radius_px=2, label="foreground", id="00000")
    with pytest.raises(InputError, match=r"'Tumor'; known: background, boundary, foreground, labelled box, unknown"):
        events_from_geojson(collection, Stamp(), shape=(9, 9))


def test_a_point_of_a_free_class_is_a_click_for_the_classifier() -> None:
    collection = {"features": [feature("MultiPoint", [[3.5, 1.5], [4.5, 2.5]], "mitotic")]}
    events = events_from_geojson(collection, Stamp(), shape=(9, 9))
    assert [e.point for e in events if isinstance(e, ClassPoint)] == [(1, 3), (2, 4)]


@pytest.mark.parametrize(
    "bad", [{}, {"geometry": None}, feature("Polygon", [[["a", 1]]], "background"), feature("Curve", [], "background")]
)
def test_a_feature_that_cannot_be_read_is_named(bad: dict[str, Any]) -> None:
    good = feature("Point", [1, 1], "background")
    with pytest.raises(InputError, match="feature 1 cannot be read"):
        events_from_geojson({"features": [good, bad]}, Stamp(), shape=(9, 9))


@pytest.mark.parametrize("name", ["s.geojson", "s.geojson.gz"])
def test_files_are_written_and_read_packed_or_not(tmp_path: Path, name: str) -> None:
    collection = {"type": "FeatureCollection", "features": []}
    write_geojson(tmp_path / name, collection)
    first = (tmp_path / name).read_bytes()
    write_geojson(tmp_path / name, collection)
    assert (tmp_path / name).read_bytes() == first
    assert read_geojson(tmp_path / name) == collection


def test_what_is_not_geojson_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.geojson").write_text("{")
    with pytest.raises(InputError, match="is not GeoJSON"):
        read_geojson(tmp_path / "s.geojson")
    with pytest.raises(InputError, match="without features"):
        events_from_geojson({}, Stamp(), shape=(9, 9))
