"""Annotated objects: every kind of file, several images, taking back, and every way in which one can be wrong."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, MissingDataError
from sketchscale.io.ome_zarr.groups import write_attributes
from sketchscale.objects.annotation.examples import (
    Mark,
    assign_marks,
    class_colors,
    hit_labels,
    read_marks,
    resolve_marks,
    settled,
)

LABELS = np.zeros((600, 700), np.uint32)
LABELS[2:5, 3:6], LABELS[590:599, 600:650], LABELS[8, 8] = 7, 12, 3
KNOWN = np.array([3, 7, 12])
PLATE = ["p.zarr/B/3/0", "p.zarr/B/3/1", "p.zarr/C/11/0"]


@dataclass(frozen=True)
class Drawn:
    """A reader of labels in memory."""

    labels: np.ndarray

    @property
    def shape(self):
        return self.labels.shape

    def read(self, box):
        return self.labels[box.slices]


def written(folder, text, name="cells.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def feature(name, kind, coordinates, **more):
    said = {"name": name, **more} if name else more
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "annotation", "classification": said},
    }


def ring(y0, x0, y1, x1):
    """Around pixels [y0, y1) x [x0, x1), x first, from corners."""
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def geojson(folder, *features):
    return written(folder, json.dumps({"type": "FeatureCollection", "features": features}), "cells.geojson")


def test_labels_and_points_name_the_same_objects(tmp_path):
    by_label = read_marks(written(tmp_path, "label,class\n7,round\n12, long\n"))
    by_point = read_marks(written(tmp_path, "\ufeffY, X ,Class,who\n2.4,3,round,me\n598.2,649.4,long,you\n"))
    expected = {7: "round", 12: "long"}
    assert resolve_marks(by_label, Drawn(LABELS), KNOWN) == expected
    assert resolve_marks(by_point, Drawn(LABELS), KNOWN) == expected


def test_the_same_mark_twice_is_one_example():
    marks = [Mark(name="a", label=7), Mark(name="a", point=(3, 4)), Mark(name="b", label=3)]
    assert resolve_marks(marks, Drawn(LABELS), KNOWN) == {3: "b", 7: "a"}


def test_parquet_and_geojson_say_the_same_as_csv(tmp_path):
    table = pyarrow.table({"Label": [7, None], "y": [None, 598.2], "x": [None, 649.4], "class": ["round", "long"]})
    pyarrow.parquet.write_table(table, tmp_path / "cells.parquet")
    points = geojson(
        tmp_path, feature("round", "Point", [4.5, 3.5], color=[0, 255, 1]), feature("long", "MultiPoint", [[610, 595]])
    )
    expected = {7: "round", 12: "long"}
    assert resolve_marks(read_marks(tmp_path / "cells.parquet"), Drawn(LABELS), KNOWN) == expected
    assert resolve_marks(read_marks(points), Drawn(LABELS), KNOWN) == expected
    assert class_colors(read_marks(points)) == {"round": "#00ff01"}


def test_a_corner_of_a_pixel_in_geojson_is_half_a_pixel_off_its_centre(tmp_path):
    """Object 3 is the one pixel (8, 8), from 8 to 9 in GeoJSON."""
    inside = geojson(tmp_path, feature("a", "Point", [8.9, 8.1]))
    assert hit_labels(read_marks(inside), Drawn(LABELS)) == [3]
    assert hit_labels([Mark(name="a", point=(8.9, 8.1))], Drawn(LABELS)) == [0]


def test_an_outline_means_the_object_with_most_pixels_inside(tmp_path):
    """Five of nine pixels of 7 win over one of 3 and over background; a second piece of the outline counts, too."""
    path = geojson(
        tmp_path,
        feature("round", "Polygon", [ring(3, 4, 9, 9)]),
        feature("long", "MultiPolygon", [[ring(0, 0, 3, 4)], [ring(595, 600, 596, 602)]]),
        feature("spot", "Polygon", [ring(0, 0, 20, 20), ring(0, 0, 6, 20)]),
    )
    assert hit_labels(read_marks(path), Drawn(LABELS)) == [7, 12, 3]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_outlines_agree_with_counting_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (20, 24)).astype(np.uint32)
    corners = rng.uniform(-3, 25, (int(rng.integers(3, 7)), 2))
    ys, xs = corners[:, 0], corners[:, 1]

    def is_inside(y, x):
        crossings = 0
        for i in range(len(ys)):
            j = (i + 1) % len(ys)
            if (ys[i] <= y) != (ys[j] <= y):
                crossings += ys[i] != ys[j] and xs[i] + (y - ys[i]) * (xs[j] - xs[i]) / (ys[j] - ys[i]) <= x
        return crossings % 2 == 1

    numbers = [0] * 4
    for y in range(20):
        for x in range(24):
            numbers[labels[y, x]] += is_inside(y, x)
    expected = max(range(1, 4), key=lambda k: (numbers[k], -k)) if any(numbers[1:]) else 0
    mark = Mark(name="a", rings=(tuple(map(tuple, corners.tolist())),))
    assert hit_labels([mark], Drawn(labels)) == [expected]


def test_points_in_um_are_taken_by_the_spacing(tmp_path):
    marks = read_marks(written(tmp_path, "y_um,x_um,class\n1.6,2,round\n299,320,long\n"))
    assert resolve_marks(marks, Drawn(LABELS), KNOWN, spacing=(0.5, 0.5)) == {7: "round", 12: "long"}
    with pytest.raises(InputError, match="line 2: a point in um on an image whose pixel size is unknown"):
        resolve_marks(marks, Drawn(LABELS), KNOWN)
    with pytest.raises(InputError, match=r"outside the image; expected: y below 60, x below 70, in um"):
        resolve_marks(marks, Drawn(LABELS), KNOWN, spacing=(0.1, 0.1))


def test_points_in_volumes_have_three_coordinates(tmp_path):
    volume = np.zeros((3, 40, 50), np.uint32)
    volume[1, 3, 4], volume[2, 3, 4] = 5, 6
    marks = read_marks(written(tmp_path, "z,y,x,class\n1,3,4,a\n2,3,4,b\n"))
    assert resolve_marks(marks, Drawn(volume), np.array([5, 6])) == {5: "a", 6: "b"}
    with pytest.raises(InputError, match="a point with 3 coordinates; expected: y, x"):
        resolve_marks(marks, Drawn(LABELS), KNOWN)


def test_undo_takes_back_and_unsure_is_no_example(tmp_path):
    text = "label,class\n7,round\n3,round\n7,undo\n12,long\n7,long\n3,undo\n12,undo\n12,round\n"
    marks = read_marks(written(tmp_path, text))
    assert resolve_marks(marks, Drawn(LABELS), KNOWN) == {7: "long", 12: "round"}
    more = [*marks, Mark(name="unsure", label=3)]
    assert resolve_marks(more, Drawn(LABELS), KNOWN) == {7: "long", 12: "round"}
    assert settled(more, hit_labels(more, Drawn(LABELS)), KNOWN)[3] == "unsure"


def test_the_last_of_two_classes_counts_only_when_asked():
    marks = [Mark(name="a", label=7), Mark(name="b", label=7), Mark(name="a", label=3)]
    assert resolve_marks(marks, Drawn(LABELS), KNOWN, on_conflict="last") == {3: "a", 7: "b"}
    with pytest.raises(InputError, match="--on-conflict last"):
        resolve_marks(marks, Drawn(LABELS), KNOWN)


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("p.zarr/B/3/1", 1), ("B/3/1", 1), ("B03/1", 1), ("p.zarr/C11/0", 2), ("C11", 2), ("C/11", 2),
        ("C\\11\\0", 2), ("p.zarr/C/11/0/", 2),
    ],
)  # fmt: skip
def test_an_image_of_a_plate_has_many_names(name, owner):
    assigned = assign_marks([Mark(name="a", label=1, image=name)], PLATE)
    assert [len(assigned.of[address]) for address in PLATE] == [int(i == owner) for i in range(3)]


@pytest.mark.parametrize("name", ["/data/one.ome.zarr", "one.ome.zarr", "one", "one.tif", "data/one"])
def test_an_image_is_known_by_its_file_name(name):
    assigned = assign_marks([Mark(name="a", label=1, image=name)], ["/data/one.ome.zarr", "/data/bone.ome.zarr"])
    assert [len(marks) for marks in assigned.of.values()] == [1, 0]


def test_a_path_from_the_root_and_one_from_here_are_one_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, address in (
        (f"{tmp_path}/a.zarr", "a.zarr"),
        ("a.zarr", f"{tmp_path}/a.zarr"),
        ("./b/../a.zarr", "a.zarr"),
        ("a.zarr", f"../{tmp_path.name}/a.zarr"),
    ):
        assert len(assign_marks([Mark(name="k", label=1, image=name)], [address, "other.zarr"]).of[address]) == 1


def test_rows_of_other_images_are_counted_and_unknown_ones_refused(tmp_path):
    for name in ("one.zarr", "two.zarr"):
        write_attributes(str(tmp_path / name), "", {}, "0.5")
    one = str(tmp_path / "one.zarr")
    marks = read_marks(written(tmp_path, "image,label,class\none.zarr,7,a\ntwo.zarr,7,b\ntwo.zarr,3,b\n"))
    assigned = assign_marks(marks, [one])
    assert (len(assigned.of[one]), assigned.ignored) == (1, {"two.zarr": 2})
    with pytest.raises(InputError, match=r"line 2: unknown image 'onne\.zarr'; expected: one of .*one\.zarr"):
        assign_marks(read_marks(written(tmp_path, "image,label,class\nonne.zarr,7,a\n")), [one])


def test_wells_that_exist_and_were_not_asked_for_are_ignored(tmp_path):
    plate = tmp_path / "p.zarr"
    for place in ("B/3/0", "B/4", "B/4/0"):
        write_attributes(str(plate / place), "", {}, "0.5")
    assigned = assign_marks([Mark(name="a", label=1, image="B04")], [str(plate / "B/3/0")])
    assert assigned.ignored == {"B04": 1}
    with pytest.raises(InputError, match="unknown image 'B05'"):
        assign_marks([Mark(name="a", label=1, image="B05")], [str(plate / "B/3/0")])


def test_a_row_that_may_mean_several_images_is_refused():
    with pytest.raises(InputError, match=r"image 'B03' may mean any of 2 images.*B/3/0"):
        assign_marks([Mark(name="a", label=1, image="B03")], PLATE)
    with pytest.raises(InputError, match=r"image '' may mean any of 3 images"):
        assign_marks([Mark(name="a", label=1)], PLATE)


def test_rows_without_image_belong_to_the_only_one():
    assert len(assign_marks([Mark(name="a", label=1)], ["a.zarr"]).of["a.zarr"]) == 1


def test_one_of_several_images_may_have_one_class():
    assert resolve_marks([Mark(name="a", label=7)], Drawn(LABELS), KNOWN, least=0) == {7: "a"}


@given(st.permutations([5, 9, 100, 4000]))
@settings(max_examples=24)
def test_renumbered_labels_have_the_same_classes(numbers):
    rename = np.zeros(13, np.uint32)
    rename[[3, 7, 12]] = numbers[:3]
    points = [(8, 8), (3, 4), (595, 610)]
    marks = [Mark(name=name, point=p) for name, p in zip("abc", points, strict=True)]
    found = resolve_marks(marks, Drawn(rename[LABELS]), np.array(numbers))
    assert found == dict(sorted(zip(map(int, numbers[:3]), "abc", strict=True)))


def test_colours_are_checked_and_one_a_class(tmp_path):
    marks = read_marks(written(tmp_path, "label,class,color\n7,a,#00FF00\n3,b,\n12,a,#00ff00\n"))
    assert class_colors(marks) == {"a": "#00ff00"}
    with pytest.raises(InputError, match=r"line 3: class 'a' in #111111 and #222222"):
        class_colors(read_marks(written(tmp_path, "label,class,color\n7,a,#222222\n3,a,#111111\n")))
    with pytest.raises(InputError, match=r"line 2: 'red'; expected: a colour such as #"):
        read_marks(written(tmp_path, "label,class,color\n7,a,red\n"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (feature("", "Point", [1, 2]), "feature 1: no class"),
        (feature("a", "LineString", [[1, 2], [3, 4]]), "feature 1 cannot be read .*'LineString'"),
        (feature("a", "Polygon", [[[1, 2], [3, 4]]]), "fewer than three points"),
        (feature("a", "Point", [float("nan"), 2]), "feature 1 cannot be read"),
        (feature("a", "Point", [1]), "feature 1 cannot be read"),
        (feature("a", "Polygon", [ring(50, 50, 60, 60)]), "feature 1: no object inside the outline"),
        (feature("a", "Polygon", [ring(900, 900, 960, 960)]), "feature 1: no object inside the outline"),
        ({"geometry": None}, "feature 1 cannot be read"),
        ("feature", "feature 1 cannot be read"),
    ],
)
def test_a_wrong_feature_is_one_line_that_names_it(tmp_path, wrong, words):
    with pytest.raises(InputError, match=words) as caught:
        resolve_marks(read_marks(geojson(tmp_path, wrong)), Drawn(LABELS), KNOWN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,class\n7,round\n9,long\n", "line 3: no object at label 9"),
        ("y,x,class\n3,4,round\n0,0,long\n", r"line 3: no object at point \(0.0, 0.0\)"),
        ("y,x,class\n3,4,round\n600,0,long\n", r"line 3: point \(600.0, 0.0\) outside the image"),
        ("y,x,class\n3,4,round\nnan,0,long\n", "outside the image"),
        ("label,class\n7,round\n7,long\n", "object 7 is 'long' and 'round'"),
        ("label,class\n7,round\n12,round\n", "2 annotated objects of 1 class; expected: at least two classes"),
        ("label,class\n", "0 annotated objects of 0 class"),
        ("label,class\n7,\n", "line 2: no class"),
        ("label,class\nseven,round\n", "line 2: invalid literal"),
        ("label,class\n7.5,round\n", "line 2: label 7.5"),
        ("label,y,x,class\n,3,,round\n", "line 2: neither a label nor a point"),
        ("label,class,class\n7,a,b\n", "each once"),
        ("label\n7\n", "columns label; expected"),
        ("", "columns none; expected"),
        ("id,class\n7,round\n", "columns id, class; expected: label,class or y,x,class or y_um,x_um,class"),
        ("y,x,class\n3\n", "line 2: no class"),
    ],
)
def test_a_wrong_annotation_is_one_line_that_names_it(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        resolve_marks(read_marks(written(tmp_path, text)), Drawn(LABELS), KNOWN)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    with pytest.raises(MissingDataError, match="No such file"):
        read_marks(tmp_path / "none.csv")
    (tmp_path / "cells.csv").write_bytes(b"label,class\n\xff\xfe\x00,1\n")
    with pytest.raises(InputError, match="expected: a CSV file in UTF-8"):
        read_marks(tmp_path / "cells.csv")
    for name in ("cells.parquet", "cells.geojson"):
        with pytest.raises(MissingDataError, match=re.escape(name)):
            read_marks(tmp_path / name)
        (tmp_path / name).write_bytes(b"not that")
        with pytest.raises(InputError, match=re.escape(name)) as caught:
            read_marks(tmp_path / name)
        assert "\n" not in str(caught.value)
