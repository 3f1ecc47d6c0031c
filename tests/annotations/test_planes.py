"""Sketches of volumes: strokes in planes, painted as in planes, whatever box is read; what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations import painting
from sketchscale.annotations.events import Event, LabelledBox, Polygon, Raster, Stroke, append_events, read_events
from sketchscale.annotations.geojson import events_from_geojson, geojson_from_sketch
from sketchscale.annotations.opening import open_sketch_file
from sketchscale.annotations.planes import drawn_plane, raised
from sketchscale.annotations.readers import Stamp
from sketchscale.annotations.simulate_planes import simulate_planes
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import Box

SHAPE = (9, 14, 17)
LABELS = ("background", "foreground", "boundary", "unknown")


def random_mark(rng: np.random.Generator, shape: tuple[int, ...]) -> Stroke | Polygon:
    label = LABELS[int(rng.integers(4))]
    number = int(rng.integers(1, 4)) if label == "foreground" and rng.random() < 0.5 else None
    count = int(rng.integers(1, 4))
    points = tuple(tuple(float(v) for v in rng.uniform(0, np.array(shape) - 1)) for _ in range(max(3, count)))
    if rng.random() < 0.7:
        return Stroke(points=points[:count], radius_px=float(rng.uniform(0.5, 3)), label=label, object=number)
    return Polygon(rings=(points,), label=label, object=number)


def random_event(rng: np.random.Generator) -> tuple[Event, int, int, Event]:
    """An event in a random plane, the plane, and the event in the volume."""
    axis = int(rng.integers(3))
    index = int(rng.integers(SHAPE[axis]))
    flat = random_mark(rng, (*SHAPE[:axis], *SHAPE[axis + 1 :]))
    return flat, axis, index, raised(flat, axis, index)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_an_event_of_a_volume_has_the_pixels_that_it_has_in_its_plane(seed: int) -> None:
    flat, axis, index, event = random_event(np.random.default_rng(seed))
    plane = Sketch(shape=(*SHAPE[:axis], *SHAPE[axis + 1 :]), events=(flat,)).rasterize()
    volume = Sketch(shape=SHAPE, events=(event,)).rasterize()
    assert drawn_plane(event) == (axis, index)  # type: ignore[arg-type]
    np.testing.assert_array_equal(volume.labels.take(index, axis) > 0, plane.labels > 0)
    np.testing.assert_array_equal(volume.labels.take(index, axis) == 0, plane.labels == 0)
    np.testing.assert_array_equal(volume.boundary.take(index, axis), plane.boundary)
    assert (np.delete(volume.labels, index, axis) == -1).all()


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_any_box_shows_the_pixels_and_ids_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(painting._TILES, 3, (4, 5, 6))
        sketch = Sketch(shape=SHAPE, events=tuple(random_event(rng)[3] for _ in range(6)))
        whole = sketch.rasterize()
        corners = np.sort([rng.integers(0, n + 1, 2) for n in SHAPE], axis=1)
        box = Box(tuple(corners[:, 0].tolist()), tuple(corners[:, 1].tolist()))
        part = sketch.rasterize(box)
    np.testing.assert_array_equal(part.labels, whole.labels[box.slices])
    np.testing.assert_array_equal(part.boundary, whole.boundary[box.slices])
    np.testing.assert_array_equal(Sketch(shape=SHAPE, events=sketch.events).rasterize().labels, whole.labels)


def line(*points: tuple[float, float, float], **more: object) -> Stroke:
    return Stroke(**{"points": points, "radius_px": 0.5, "label": "foreground", **more})  # type: ignore[arg-type]


def test_strokes_in_crossing_planes_are_one_object_and_apart_they_are_two() -> None:
    crossing = (line((4, 7, 2), (4, 7, 12)), line((1, 7, 8), (7, 7, 8), plane="yz"))
    apart = (line((4, 7, 2), (4, 7, 12)), line((6, 7, 2), (6, 7, 12)))
    assert Sketch(shape=SHAPE, events=crossing).summary().objects == 1
    assert Sketch(shape=SHAPE, events=apart).summary().objects == 2
    assert Sketch(shape=SHAPE, events=tuple(replace(e, object=5) for e in apart)).summary().objects == 1


def test_a_box_and_a_raster_fill_space() -> None:
    values = np.full((2, 3, 4), -1, np.int64)
    values[1, 1, 1:3] = 6
    events = (LabelledBox(start=(2, 3, 4), stop=(5, 7, 9)), Raster.of(values, (3, 4, 5)))
    labels = Sketch(shape=SHAPE, events=events).rasterize().labels
    assert (labels >= 0).sum() == 3 * 4 * 5
    assert np.argwhere(labels == 1).tolist() == [[4, 5, 6], [4, 5, 7]]


def test_where_points_lie_in_several_planes_the_section_counts_unless_the_event_says() -> None:
    dab = line((4, 7, 8), radius_px=2)
    assert drawn_plane(dab) == (0, 4)
    assert drawn_plane(replace(dab, plane="xz")) == (1, 7)
    assert (Sketch(shape=SHAPE, events=(dab,)).rasterize().labels[4] > 0).sum() == 13


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: line((1, 2, 3), (2, 3, 4)), "runs through space"),
        (lambda: line((1, 2, 3), (1, 3, 4), plane="xz"), "runs through space"),
        (lambda: line((1, 2, 3), plane="zx"), "unknown plane"),
        (lambda: Stroke(points=((1, 2),), radius_px=1, label="background", plane="xy"), "names the plane xy"),
        (lambda: Polygon(rings=(((1, 2, 3), (2, 3, 4), (4, 4, 4)),), label="foreground"), "runs through space"),
        (lambda: LabelledBox(start=(1, 2), stop=(3, 4, 5)), "start before stop"),
    ],
)
def test_an_event_without_a_plane_is_refused(make: object, told: str) -> None:
    with pytest.raises((InputError, UnknownNameError), match=told):
        make()  # type: ignore[operator]


def test_a_sketch_and_an_image_of_other_axes_are_refused_in_one_line() -> None:
    flat = Stroke(points=((1, 2),), radius_px=1, label="background", id="s1")
    with pytest.raises(InputError, match=r"stroke s1 names no plane; expected: points \[z, y, x\]"):
        Sketch(shape=SHAPE, events=(flat,))
    with pytest.raises(InputError, match=r"lies in a volume; expected: .* to fix: .*--volume"):
        Sketch(shape=SHAPE[1:], events=(line((1, 2, 3)),))
    with pytest.raises(InputError, match="leaves the image of 9 x 14 x 17 px"):
        Sketch(shape=SHAPE, events=(line((9, 2, 3)),))


def test_a_log_of_a_volume_reads_back(tmp_path: Path) -> None:
    events = (line((1, 2, 3), (1, 4, 5), id="a"), line((1, 4, 3), plane="yz", id="b"))
    append_events(tmp_path / "log.jsonl", events)
    assert read_events(tmp_path / "log.jsonl") == events
    opened = open_sketch_file(tmp_path / "log.jsonl", shape=SHAPE)
    assert opened.line.count("marks") == 1
    assert len(open_sketch_file(tmp_path / "log.jsonl").sketch.shape) == 3


def test_geojson_names_the_section_as_qupath_does() -> None:
    ring = ((4.0, 5.0), (4.0, 9.0), (9.0, 9.0), (9.0, 5.0))
    cell = {
        "type": "Polygon",
        "coordinates": [[[x + 0.5, y + 0.5] for y, x in ring]],
        "plane": {"c": -1, "z": 3, "t": 0},
    }
    feature = {"type": "Feature", "geometry": cell, "properties": {"classification": {"name": "foreground"}}}
    events = events_from_geojson({"features": [feature]}, Stamp(), shape=SHAPE)
    raster = Sketch(shape=SHAPE, events=events).rasterize()
    flat = events_from_geojson({"features": [feature]}, Stamp(), shape=SHAPE[1:])
    plane = Sketch(shape=SHAPE[1:], events=flat).rasterize()
    np.testing.assert_array_equal(raster.labels[3], plane.labels)
    np.testing.assert_array_equal(raster.boundary[3], plane.boundary)
    assert (np.delete(raster.labels, 3, 0) == -1).all()
    assert not np.delete(raster.boundary, 3, 0).any()


def test_sections_survive_geojson_and_other_planes_are_refused() -> None:
    sketch = Sketch(shape=SHAPE, events=(line((3, 2, 3), (3, 4, 5)), LabelledBox(start=(3, 1, 1), stop=(4, 5, 6))))
    again = events_from_geojson(geojson_from_sketch(sketch), Stamp(), shape=SHAPE)
    np.testing.assert_array_equal(Sketch(shape=SHAPE, events=again).rasterize().labels, sketch.rasterize().labels)
    with pytest.raises(InputError, match="lies in no single section"):
        geojson_from_sketch(Sketch(shape=SHAPE, events=(line((1, 2, 3), (4, 2, 5)),)))
    flat = Sketch(shape=SHAPE[1:], events=(Stroke(points=((1, 2),), radius_px=1, label="background"),))
    with pytest.raises(InputError, match="feature 0 names no plane of the volume"):
        events_from_geojson(geojson_from_sketch(flat), Stamp(), shape=SHAPE)


def test_simulated_planes_are_never_wrong() -> None:
    z, y, x = np.ogrid[:16, :48, :48]
    truth = np.zeros((16, 48, 48), np.int32)
    for k, (cz, cy, cx) in enumerate(((6, 14, 14), (8, 14, 27), (9, 34, 30)), start=1):
        truth[((z - cz) * 2) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 64] = k
    sketch = simulate_planes(truth, n_objects=3, seed=2)
    raster = sketch.rasterize()
    assert (truth[raster.labels == 0] == 0).all()
    sketch.check()
    assert sketch.summary().objects >= 3  # a neighbour's outline may part the strokes of an object
    for k in range(1, sketch.summary().objects + 1):
        assert np.unique(truth[raster.labels == k]).size == 1
    assert len({event.plane for event in sketch.marks if isinstance(event, Stroke)}) == 3
    assert simulate_planes(truth, n_objects=3, seed=2) == sketch
    with pytest.raises(InputError, match="3-D"):
        simulate_planes(truth[0])
