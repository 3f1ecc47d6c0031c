"""Sketches of every kind are recognised by their contents and read by one function, which says how."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from sketchscale.annotations.events import Stroke, append_events
from sketchscale.annotations.kinds import KINDS, kind_of
from sketchscale.annotations.opening import SketchReading, open_sketch_file
from sketchscale.errors import InputError, MissingDataError, UnknownNameError

SHAPE = (30, 40)


def ring(y: int, x: int, side: int) -> list[list[list[int]]]:
    return [[[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]]


def annotation(kind: str, coordinates: Any, name: str | None = None) -> dict[str, Any]:
    """As QuPath 0.5 writes it: no `classification` where there is no class."""
    properties: dict[str, Any] = {"objectType": "annotation", "isLocked": False, "measurements": {"Area px^2": 36.0}}
    if name is not None:
        properties["classification"] = {"name": name, "color": [200, 0, 0]}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "id": "5b4c", "geometry": geometry, "properties": properties}


QUPATH = {
    "type": "FeatureCollection",
    "features": [
        annotation("Polygon", ring(2, 2, 6)),
        annotation("MultiPolygon", [ring(12, 2, 4), ring(12, 10, 5)], "Tumor"),
        annotation("Polygon", ring(2, 20, 8), "Background"),
        annotation("LineString", [[20.5, 20.5], [30.5, 20.5]], "boundary"),
    ],
}


def painted() -> np.ndarray[Any, Any]:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:8, 2:8], labels[12:20, 10:20] = 1, 4
    return labels


def make(folder: Path, name: str) -> Path:
    """A file of each kind."""
    path = folder / name
    if name.endswith(".jsonl"):
        append_events(path, [Stroke(points=((5, 5), (5, 20)), radius_px=2, label="foreground", id="a")])
    elif name.endswith(".geojson"):
        path.write_text(json.dumps(QUPATH, indent=2))
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(json.dumps(QUPATH["features"]).encode()))
    elif name.endswith(".tif"):
        tifffile.imwrite(path, painted())
    elif name.endswith(".npy"):
        np.save(path, painted())
    elif name.endswith(".png"):
        Image.fromarray(painted()).save(path)
    elif name == "points.csv":
        path.write_text("y,x,class\n3,4,mitotic\n9,9,background\n")
    elif name == "boxes.csv":
        path.write_text("y0,x0,y1,x1\n1,1,9,9\n")
    elif name == "shapes.csv":
        path.write_text("index,shape-type,vertex-index,axis-0,axis-1\n0,rectangle,0,1,1\n0,rectangle,1,8,8\n")
    return path


KINDS_OF = {
    "a.jsonl": "strokes",
    "a.geojson": "geojson",
    "a.geojson.gz": "geojson",
    "a.tif": "objects",
    "a.npy": "objects",
    "a.png": "objects",
    "points.csv": "points",
    "boxes.csv": "boxes",
    "shapes.csv": "boxes",
}


@pytest.mark.parametrize("name", KINDS_OF)
def test_the_kind_shows_in_the_contents_whatever_the_name(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name)
    for other in ("a.jsonl", "drawn", "a.csv", "a.png"):
        assert kind_of(Path(shutil.copy(path, tmp_path / f"copy-{other}"))) == KINDS_OF[name]


@pytest.mark.parametrize("name", KINDS_OF)
def test_every_kind_is_opened_and_says_so_in_one_line(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, name)
    classes = {"Tumor": "foreground", "none": "foreground"} if "geojson" in name else {}
    opened = open_sketch_file(path, shape=SHAPE, reading=SketchReading(classes=classes))
    assert opened.kind == KINDS_OF[name]
    assert opened.line.startswith(f"{path}: {KINDS[opened.kind]}, ")
    assert "\n" not in opened.line
    for word in ("objects", "background", "foreground", "boundary", "unknown"):
        assert word in opened.line
    assert opened.sketch.marks


def test_unclassified_annotations_of_qupath_are_what_the_user_says(tmp_path: Path) -> None:
    path = make(tmp_path, "a.geojson")
    classes = {"Tumor": "foreground"}
    with pytest.raises(UnknownNameError, match=r"has no class; .* --class none=foreground"):
        open_sketch_file(path, shape=SHAPE, reading=SketchReading(classes=classes))
    opened = open_sketch_file(path, shape=SHAPE, reading=SketchReading(classes=classes | {"none": "foreground"}))
    raster = opened.sketch.rasterize()
    assert len(np.unique(raster.labels[raster.labels > 0])) == 3, "each part of a MultiPolygon is an object"
    assert [(raster.labels > 0).sum(), (raster.labels == 0).sum()] == [36 + 16 + 25, 64]
    ignored = open_sketch_file(path, shape=SHAPE, reading=SketchReading(classes=classes | {"none": "unknown"}))
    assert (ignored.sketch.rasterize().labels > 0).sum() == 16 + 25


def test_a_mask_of_one_value_is_split_into_its_pieces(tmp_path: Path) -> None:
    mask = (painted() > 0).astype(np.uint8) * 255
    mask[8, 8] = 255  # touches the first square with a corner
    Image.fromarray(mask).save(tmp_path / "a.png")
    opened = open_sketch_file(tmp_path / "a.png")
    assert "the connected components of the value 255 are the objects" in opened.line
    raster = opened.sketch.rasterize()
    assert opened.sketch.summary().objects == 2
    assert raster.labels[8, 8] == raster.labels[7, 7] != raster.labels[15, 15]


@pytest.mark.parametrize("values", [(1, 2), (128, 255)])
def test_two_values_without_a_zero_are_refused_unless_one_is_named(tmp_path: Path, values: tuple[int, int]) -> None:
    labels = np.where(painted() > 0, values[1], values[0]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", labels)
    with pytest.raises(InputError, match=rf"two values, {values[0]} and {values[1]}, and no 0; .*--class {values[0]}="):
        open_sketch_file(tmp_path / "a.tif")
    reading = SketchReading(classes={str(values[0]): "background"})
    summary = open_sketch_file(tmp_path / "a.tif", reading=reading).sketch.summary()
    assert (summary.objects, summary.pixels["background"]) == (2, 1200 - 36 - 80)


def test_a_value_of_a_painted_image_can_be_background(tmp_path: Path) -> None:
    labels = painted()
    labels[25:] = 255
    np.save(tmp_path / "a.npy", labels)
    reading = SketchReading(classes={"255": "background"})
    opened = open_sketch_file(tmp_path / "a.npy", reading=reading)
    assert opened.sketch.summary().pixels == {"background": 200, "foreground": 116, "boundary": 24 + 36}
    with pytest.raises(InputError, match="a value of its pixels"):
        open_sketch_file(tmp_path / "a.npy", reading=SketchReading(classes={"Tumor": "background"}))


def test_sketchpose_is_recognised_by_what_lies_next_to_it(tmp_path: Path) -> None:
    Image.fromarray(np.minimum(painted(), 2)).save(tmp_path / "a_labels.png")
    assert open_sketch_file(tmp_path / "a_labels.png").kind == "objects"
    boundary = np.zeros(SHAPE, np.uint8)
    boundary[10] = 10
    Image.fromarray(boundary).save(tmp_path / "a_boundaries.png")
    opened = open_sketch_file(tmp_path / "a_labels.png")
    assert opened.kind == "sketchpose"
    assert opened.sketch.summary().pixels == {"background": 36, "foreground": 80, "boundary": 40}
    assert "read together with a_boundaries.png" in opened.line


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.docx", b"PK\x03\x04", "no kind of sketch that is known"),
        ("a.csv", b"row,col\n1,2\n", r"columns col, row\); expected: .*y, x, class"),
        ("a.png", b"\xff\xd8\xff\xe0", "cannot be read"),
        ("a", b"", "it is empty"),
        ("a.geojson", b"{}", "GeoJSON without features"),
        ("a.jsonl", b'{"event":"stroke","points', "--repair"),
        ("a.jsonl", b"strokes", "expected: a stroke log"),
    ],
)
def test_what_is_no_sketch_is_one_line(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        open_sketch_file(tmp_path / name, shape=SHAPE)
    assert "\n" not in str(caught.value)
    assert ("--repair" in str(caught.value)) == (words == "--repair")


def test_what_does_not_fit_its_kind_is_refused(tmp_path: Path) -> None:
    labels, points = make(tmp_path, "a.png"), make(tmp_path, "points.csv")
    with pytest.raises(InputError, match="seems to be a label image of some objects; expected: a stroke log"):
        open_sketch_file(labels, reading=SketchReading(kind="strokes"))
    with pytest.raises(InputError, match="--class with GeoJSON and label images only"):
        open_sketch_file(points, shape=SHAPE, reading=SketchReading(classes={"a": "background"}))
    with pytest.raises(InputError, match="name it with --image"):
        open_sketch_file(points)
    with pytest.raises(InputError, match=r"of \(30, 40\); expected: \(9, 9\)"):
        open_sketch_file(labels, shape=(9, 9))
    with pytest.raises(UnknownNameError, match="kind of sketch 'label'; did you mean 'labels'"):
        SketchReading(kind="label")
    with pytest.raises(UnknownNameError, match="unknown class 'cell'"):
        SketchReading(classes={"a": "cell"})
    with pytest.raises(MissingDataError, match="does not exist"):
        open_sketch_file(tmp_path / "none.png")
    with pytest.raises(InputError, match="is a folder"):
        open_sketch_file(tmp_path)
