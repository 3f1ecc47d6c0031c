from __future__ import annotations

import json

import pytest

from sketchscale.annotations.centres import read_centres
from sketchscale.annotations.events import ClassPoint, Stroke, Undo, append_events
from sketchscale.errors import InputError, MissingDataError, UnknownNameError

SHAPE = (50, 60)


@pytest.mark.parametrize("header", ["y,x", "index,axis-0,axis-1", "Area,Y,X", "y,x,class"])
def test_tables_of_several_tools(header, tmp_path):
    columns = header.split(",")
    y, x = ("axis-0", "axis-1") if "axis-0" in columns else ("Y", "X") if "Y" in columns else ("y", "x")
    rows = [{y: "3", x: "4.5"}, {y: "10", x: "20"}]
    lines = [",".join(row.get(c, "7") for c in columns) for row in rows]
    (tmp_path / "points.csv").write_text("\n".join([header, *lines]))
    assert read_centres(str(tmp_path / "points.csv"), SHAPE).tolist() == [[3, 4.5], [10, 20]]


def test_geojson_points_of_any_class_but_background(tmp_path):
    def feature(kind, coordinates, name=""):
        properties = {"classification": {"name": name}} if name else {}
        return {"type": "Feature", "properties": properties, "geometry": {"type": kind, "coordinates": coordinates}}

    features = [
        feature("Point", [4.5, 3.5]),
        feature("MultiPoint", [[10.5, 20.5], [11.5, 21.5]], "Tumor"),
        feature("Point", [1.5, 1.5], "background"),
        feature("Polygon", [[[0, 0], [5, 0], [5, 5]]], "Tumor"),
    ]
    (tmp_path / "p.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert read_centres(str(tmp_path / "p.geojson"), SHAPE).tolist() == [[3, 4], [20, 10], [21, 11]]


def test_clicks_and_dabs_of_a_sketch_that_were_not_undone(tmp_path):
    path = tmp_path / "sketch.jsonl"
    events = [
        ClassPoint(point=(3.0, 4.0), name="Tumor", id="a"),
        Stroke(points=((5.0, 6.0),), radius_px=1.5, label="foreground", id="b"),
        Stroke(points=((7.0, 8.0),), radius_px=1.5, label="background", id="c"),
        Stroke(points=((7.0, 8.0), (9.0, 9.0)), radius_px=1.5, label="foreground", id="d"),
        ClassPoint(point=(30.0, 40.0), name="Tumor", id="e"),
        Undo(target="e", id="f"),
    ]
    append_events(path, events)
    assert read_centres(str(path), SHAPE).tolist() == [[3, 4], [5, 6]]


def test_what_does_not_read_is_one_line(tmp_path):
    with pytest.raises(MissingDataError, match=r"absent.csv does not exist"):
        read_centres(str(tmp_path / "absent.csv"), SHAPE)
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"has columns a, b; expected: y, x or axis-0, axis-1 or Y, X"):
        read_centres(str(tmp_path / "p.csv"), SHAPE)
    (tmp_path / "p.csv").write_text("y,x\n1,2\n3,nan\n")
    with pytest.raises(InputError, match=r"line 3 of .* has 'nan'; expected: a number"):
        read_centres(str(tmp_path / "p.csv"), SHAPE)
    (tmp_path / "p.csv").write_text("y,x\n")
    with pytest.raises(InputError, match="no point in"):
        read_centres(str(tmp_path / "p.csv"), SHAPE)
    with pytest.raises(UnknownNameError, match="kind of file for points"):
        read_centres(str(tmp_path / "p.xlsx"), SHAPE)
    (tmp_path / "p.geojson").write_text('{"features": [{"geometry": {"type": "Point"}}]}')
    with pytest.raises(InputError, match="feature 0 cannot be read"):
        read_centres(str(tmp_path / "p.geojson"), SHAPE)
