from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sketchscale.annotations.events import BOUNDARY, FREE, ClassPoint, LabelledBox, Raster, Stroke
from sketchscale.annotations.readers import (
    Stamp,
    events_from_boxes,
    events_from_labels,
    events_from_points,
    events_from_sketchpose,
    next_object,
    read_label_image,
)
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError, MissingDataError

STAMP = Stamp(image="a", user="ada", prefix="i-")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_dense_label_image_comes_back_pixel_by_pixel(height: int, width: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, (height, width)).astype(np.uint16) * 700
    raster = Sketch(shape=(height, width), events=events_from_labels(labels, STAMP)).rasterize()
    np.testing.assert_array_equal(raster.labels > 0, labels > 0)
    pairs = np.unique(np.stack([raster.labels[labels > 0], labels[labels > 0]]), axis=1)
    assert pairs.shape[1] == len(np.unique(labels[labels > 0]))


def test_labels_of_some_objects_get_their_outline_and_touching_ones_none_between() -> None:
    labels = np.zeros((6, 8), np.uint8)
    labels[2:4, 2:4], labels[2:4, 4:6] = 1, 2
    sketch = Sketch(shape=(6, 8), events=events_from_labels(labels, STAMP, zero="unknown"))
    raster = sketch.rasterize()
    np.testing.assert_array_equal(raster.labels[2], [-1, -1, 1, 1, 2, 2, -1, -1])
    assert raster.boundary.sum() == 12
    assert (raster.labels == 0).sum() == 0
    sketch.check()


def test_a_second_import_uses_numbers_of_its_own() -> None:
    first = events_from_labels(np.array([[0, 3]]), STAMP)
    assert next_object(first) == 4
    second = events_from_labels(np.array([[1, 0]]), STAMP, first_object=4)
    assert second[0].runs == ((4, 1), (0, 1))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["l.tif", "l.png", "l.npy"])
def test_label_images_are_read_from_tiff_png_and_npy(tmp_path: Path, name: str) -> None:
    labels = np.arange(12, dtype=np.uint16).reshape(3, 4) * 500
    path = tmp_path / name
    if name.endswith("tif"):
        tifffile.imwrite(path, labels)
    elif name.endswith("png"):
        Image.fromarray(labels).save(path)
    else:
        np.save(path, labels)
    np.testing.assert_array_equal(read_label_image(path), labels)


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros((3, 4), np.float32), "type float32"), (np.zeros((3, 4, 3), np.uint8), r"shape \(3, 4, 3\)")],
)
def test_label_images_that_are_none_are_refused(tmp_path: Path, values: npt.NDArray[np.generic], message: str) -> None:
    np.save(tmp_path / "l.npy", values)
    with pytest.raises(InputError, match=message):
        read_label_image(tmp_path / "l.npy")


def test_absent_and_broken_label_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"none\.png does not exist"):
        read_label_image(tmp_path / "none.png")
    for name in ("bad.png", "bad.tif", "bad.npy"):
        (tmp_path / name).write_bytes(b"not an image")
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_label_image(tmp_path / name)


def test_points_are_dabs_or_object_classes(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("y, x, class\n3,4.5,mitotic\n1,2,background\n")
    clicked, dab = events_from_points(path, STAMP)
    assert clicked == ClassPoint(point=(3, 4.5), name="mitotic", id="i-00000", user="ada", image="a")
    assert isinstance(dab, Stroke)
    assert (dab.label, dab.points) == ("background", ((1.0, 2.0),))


def test_bad_tables_are_named_by_line_or_columns(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("y,x,class\n3,4,a\n3,many,a\n")
    with pytest.raises(InputError, match=r"line 3 of .* has 'many'; expected: a number"):
        events_from_points(path, STAMP)
    path.write_text("row,col\n3,4\n")
    with pytest.raises(InputError, match=r"has columns row, col; expected: y, x, class or axis-0"):
        events_from_points(path, STAMP)


def test_boxes_are_read_from_corners_and_from_napari_shapes(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("y0,x0,y1,x1\n1,2,5,9\n")
    (box,) = events_from_boxes(path, STAMP)
    assert (box.start, box.stop) == ((1, 2), (5, 9))  # type: ignore[union-attr]
    head = "index,shape-type,vertex-index,axis-0,axis-1\n"
    path.write_text(head + "".join(f"0,rectangle,{i},{y},{x}\n" for i, (y, x) in enumerate([(1, 2), (1, 8), (4, 8)])))
    (box,) = events_from_boxes(path, STAMP)
    assert (box.start, box.stop) == ((1, 2), (5, 9))  # type: ignore[union-attr]


def test_sketchpose_files_are_read_together(tmp_path: Path) -> None:
    labels, boundary = np.zeros((6, 7), np.uint8), np.zeros((6, 7), np.uint8)
    labels[1:4, 1:3], labels[5], boundary[:5, 3] = 2, 1, 10
    Image.fromarray(labels).save(tmp_path / "im_labels.png")
    Image.fromarray(boundary).save(tmp_path / "im_boundaries.png")
    (tmp_path / "im_bbox.csv").write_text("index,shape-type,vertex-index,axis-0,axis-1\n0,r,0,0,4\n0,r,1,4,6\n")
    events = events_from_sketchpose(tmp_path / "im_labels.png", STAMP)
    assert isinstance(events[0], Raster)
    assert isinstance(events[1], LabelledBox)
    assert {v for v, _ in events[0].runs} == {-1, 0, BOUNDARY, FREE}
    raster = Sketch(shape=(6, 7), events=events).rasterize()
    np.testing.assert_array_equal(raster.boundary, boundary > 0)
    np.testing.assert_array_equal(raster.labels > 0, labels == 2)
    assert (raster.labels[:5, 4:] == 0).all()
    assert len({e.id for e in events}) == 2
