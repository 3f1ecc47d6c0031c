from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations import painting
from sketchscale.annotations.events import (
    ClassPoint,
    Event,
    LabelledBox,
    Polygon,
    Raster,
    Stroke,
    Undo,
    append_events,
    read_events,
    repair_log,
)
from sketchscale.annotations.sketch import Sketch, open_sketch
from sketchscale.errors import InputError, MissingDataError, OutputError
from sketchscale.geometry import Box
from tests.oracles import sketch as oracle

SHAPES = st.tuples(st.integers(1, 14), st.integers(1, 14))


def draw_point(draw: st.DrawFn, shape: tuple[int, int]) -> tuple[float, float]:
    quarter = st.integers
    return (draw(quarter(0, 4 * (shape[0] - 1))) / 4, draw(quarter(0, 4 * (shape[1] - 1))) / 4)


def draw_box(draw: st.DrawFn, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    return start, stop  # type: ignore[return-value]


@st.composite
def events(draw: st.DrawFn, shape: tuple[int, int]) -> Event:
    label = draw(st.sampled_from(("background", "foreground", "foreground", "boundary", "unknown")))
    number = draw(st.sampled_from((None, None, 3, 8))) if label == "foreground" else None
    kind = draw(st.sampled_from(("stroke", "stroke", "polygon", "box", "raster")))
    if kind == "stroke":
        points = tuple(draw_point(draw, shape) for _ in range(draw(st.integers(1, 4))))
        return Stroke(points=points, radius_px=draw(st.sampled_from((0.5, 1.0, 2.5))), label=label, object=number)
    if kind == "polygon":
        rings = tuple(tuple(draw_point(draw, shape) for _ in range(draw(st.integers(3, 5)))) for _ in range(2))
        return Polygon(rings=rings, label=label, object=number)
    start, stop = draw_box(draw, shape)
    if kind == "box":
        return LabelledBox(start=start, stop=stop)
    size = (stop[0] - start[0]) * (stop[1] - start[1])
    values = draw(st.lists(st.sampled_from((-3, -2, -1, 0, 3, 5)), min_size=size, max_size=size))
    return Raster.of(np.array(values).reshape(stop[0] - start[0], stop[1] - start[1]), start)


@st.composite
def sketches(draw: st.DrawFn) -> Sketch:
    shape = draw(SHAPES)
    return Sketch(shape=shape, events=tuple(draw(st.lists(events(shape), max_size=6))))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 5 px, so that small sketches cross tiles, corners and pieces of long segments."""
    monkeypatch.setitem(painting._TILES, 2, (5, 5))


@given(sketches())
@settings(max_examples=120, deadline=None)
def test_painting_on_tiles_equals_asking_every_pixel(sketch: Sketch) -> None:
    labels, boundary, conflicting = oracle.rasterize(sketch.shape, sketch.marks)
    raster = sketch.rasterize()
    np.testing.assert_array_equal(raster.labels, labels)
    np.testing.assert_array_equal(raster.boundary, boundary)
    assert sum(c.pixels for c in sketch.conflicts()) == conflicting


@given(sketches(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_box_shows_what_the_whole_shows_ids_included(sketch: Sketch, data: st.DataObject) -> None:
    start, stop = draw_box(data.draw, sketch.shape)  # type: ignore[arg-type]
    whole, part = sketch.rasterize(), Sketch(shape=sketch.shape, events=sketch.events).rasterize(Box(start, stop))
    np.testing.assert_array_equal(part.labels, whole.labels[Box(start, stop).slices])
    np.testing.assert_array_equal(part.boundary, whole.boundary[Box(start, stop).slices])


@given(sketches())
@settings(max_examples=60, deadline=None)
def test_the_summary_counts_what_the_raster_shows(sketch: Sketch) -> None:
    labels, boundary, summary = sketch.rasterize().labels, sketch.rasterize().boundary, sketch.summary()
    assert summary.pixels == {
        "background": (labels == 0).sum(),
        "foreground": (labels > 0).sum(),
        "boundary": boundary.sum(),
    }
    assert summary.objects == max(labels.max(), 0)
    known = np.pad(labels, 1, constant_values=-1)
    steps = [(known[1:], known[:-1]), (known[:, 1:], known[:, :-1])]
    interface = any(((a != b) & (a >= 0) & (b >= 0)).any() for a, b in steps)
    assert summary.has_boundary_information == bool(boundary.any() or interface)


@given(sketches())
@settings(max_examples=40, deadline=None)
def test_a_log_reads_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, sketch: Sketch) -> None:
    path = tmp_path_factory.mktemp("log") / "sketch.jsonl"
    append_events(path, sketch.events[:2])
    append_events(path, sketch.events[2:])
    assert read_events(path) == sketch.events


def line(y: float, x0: float, x1: float, label: str = "foreground", **more: object) -> Stroke:
    return Stroke(points=((y, x0), (y, x1)), radius_px=0.5, label=label, **more)  # type: ignore[arg-type]


def test_a_thin_slanted_line_separates_what_lies_on_its_sides() -> None:
    for tip in np.linspace(0, 29, 30):
        outline = Stroke(points=((0, tip), (29, 29 - tip)), radius_px=0.5, label="boundary")
        fill = Polygon(rings=(((-0.5, -0.5), (-0.5, 29.5), (29.5, 29.5), (29.5, -0.5)),), label="foreground")
        assert Sketch(shape=(30, 30), events=(outline, fill)).summary().objects == 2


def test_a_thick_brush_does_not_eat_an_outline_but_an_eraser_does() -> None:
    outline, fill = line(2, 0, 6, "boundary"), Stroke(points=((3, 3),), radius_px=2, label="foreground")
    assert Sketch(shape=(7, 7), events=(outline, fill)).rasterize().boundary.sum() == 7
    assert Sketch(shape=(7, 7), events=(outline, fill, line(2, 0, 6, "unknown"))).rasterize().boundary.sum() == 0


def test_loose_foreground_joins_the_one_object_it_touches_and_stays_alone_between_two() -> None:
    left, right = line(2, 0, 2, object=4), line(2, 6, 8, object=9)
    assert Sketch(shape=(5, 9), events=(left, right, line(2, 3, 4))).rasterize().labels[2].tolist() == [1] * 5 + [
        -1, 2, 2, 2
    ]  # fmt: skip
    bridged = Sketch(shape=(5, 9), events=(left, right, line(2, 3, 5))).rasterize().labels[2]
    assert bridged.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_overlapping_classes_are_placed_and_refused_unless_the_last_may_win() -> None:
    sketch = Sketch(shape=(9, 9), events=(line(4, 0, 8, id="a"), line(4, 2, 5, "background", id="b")), image="nuclei")
    (conflict,) = sketch.conflicts()
    assert (conflict.event, conflict.pixels, conflict.box) == ("b", 4, Box((4, 2), (5, 6)))
    with pytest.raises(InputError, match=r"'nuclei' calls 4 pixels both .* 4 px in \[4:5, 2:6\] .*--on-conflict last"):
        sketch.check()
    sketch.check("last")
    assert sketch.rasterize().labels[4].tolist() == [1, 1, 0, 0, 0, 0, 2, 2, 2]


def test_erasing_and_undo_settle_a_conflict() -> None:
    pair = (line(4, 0, 8, id="a"), line(4, 2, 5, "background", id="b"))
    assert Sketch(shape=(9, 9), events=(*pair, Undo(target="b", id="c"))).conflicts() == ()
    assert Sketch(shape=(9, 9), events=(*pair, line(4, 2, 5, "unknown", id="c"))).conflicts() == ()


def test_an_undo_can_be_undone() -> None:
    history = (line(1, 0, 3, id="a"), Undo(target="a", id="u"), Undo(target="u", id="v"))
    assert [len(Sketch(shape=(3, 4), events=history[:n]).marks) for n in (1, 2, 3)] == [1, 0, 1]
    again = (*history, Undo(target="v", id="w"))
    assert Sketch(shape=(3, 4), events=again).marks == ()


def test_a_stroke_with_one_number_over_an_object_with_another_is_a_conflict() -> None:
    first, second = line(4, 0, 8, object=1, id="a"), line(4, 3, 4, object=2, id="b")
    sketch = Sketch(shape=(9, 9), events=(first, second))
    assert [(c.event, c.pixels) for c in sketch.conflicts()] == [("b", 2)]
    with pytest.raises(InputError, match=r"calls 2 pixels .* or two objects, first 2 px .*--on-conflict last"):
        sketch.check()
    sketch.check("last")
    assert sketch.rasterize().labels[4].tolist() == [1, 1, 1, 2, 2, 1, 1, 1, 1]
    Sketch(shape=(9, 9), events=(first, line(4, 3, 4, object=1))).check()
    Sketch(shape=(9, 9), events=(first, line(4, 3, 4))).check()


def test_areas_of_neighbours_may_overlap_as_their_edges_are_rounded() -> None:
    left, right = (
        Polygon(rings=(((1, x), (1, x + 4), (5, x + 4), (5, x)),), label="foreground", object=k)
        for k, x in ((1, 1), (2, 4))
    )
    Sketch(shape=(9, 9), events=(left, right)).check()


def test_a_numbered_line_that_crosses_a_boundary_is_refused_and_a_brush_that_spills_over_one_is_not() -> None:
    wall = Stroke(points=((0, 4), (8, 4)), radius_px=0.5, label="boundary")
    crossing = line(4, 1, 7, object=3, id="a")
    for events in ((wall, crossing), (crossing, wall)):
        with pytest.raises(InputError, match=r"stroke a of object 3 crosses a boundary stroke at \[4, 4\]"):
            Sketch(shape=(9, 9), events=events).check()
        Sketch(shape=(9, 9), events=events).check("last")
    Sketch(shape=(9, 9), events=(wall, line(4, 1, 4, object=3))).check()
    Sketch(shape=(9, 9), events=(wall, line(4, 1, 7))).check()  # without a number it is parted into two objects
    spilling = Stroke(points=((2, 2), (6, 2)), radius_px=3, label="foreground", object=3)
    Sketch(shape=(9, 9), events=(wall, spilling)).check()


def test_what_is_marked_unknown_is_ignored_until_something_is_drawn_there() -> None:
    unknown = line(4, 0, 5, "unknown")
    assert Sketch(shape=(9, 9), events=(line(4, 0, 8),)).rasterize().ignored is None
    for events in ((unknown,), (line(4, 0, 8), unknown)):
        ignored = Sketch(shape=(9, 9), events=events).rasterize().ignored
        assert ignored is not None
        assert np.argwhere(ignored).tolist() == [[4, x] for x in range(6)]
    for label in ("foreground", "background", "boundary"):
        ignored = Sketch(shape=(9, 9), events=(unknown, line(4, 2, 8, label))).rasterize().ignored
        assert ignored is not None
        assert np.argwhere(ignored).tolist() == [[4, 0], [4, 1]]


def test_objects_that_a_person_numbered_are_known_to_differ() -> None:
    loose, first, second = line(1, 0, 3), line(4, 0, 3, object=7), line(6, 0, 3, object=9)
    raster = Sketch(shape=(9, 9), events=(loose, first, second)).rasterize()
    assert raster.labels[[1, 4, 6], 0].tolist() == [1, 2, 3]
    assert raster.numbered == {2, 3}


@pytest.mark.parametrize("point", [(40.0, 3.0), (3.0, -4.0)])
def test_a_stroke_outside_the_image_is_refused_by_name_and_size(point: tuple[float, float]) -> None:
    stroke = Stroke(points=((1, 1), point), radius_px=2, label="background", id="s7", image="well A1")
    with pytest.raises(InputError, match=r"stroke s7 .* leaves image 'well A1' of 20 x 30 px; .*y comes first"):
        Sketch(shape=(20, 30), events=(stroke,))


def test_a_brush_may_hang_over_the_edge() -> None:
    dab = Stroke(points=((-1, 3),), radius_px=2, label="background")
    assert Sketch(shape=(20, 30), events=(dab,)).rasterize().labels[0, 3] == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"points": ((1, 1),), "radius_px": 0.2, "label": "background"}, "radius of 0.2"),
        ({"points": (), "radius_px": 1, "label": "background"}, "non-finite"),
        ({"points": ((1, float("nan")),), "radius_px": 1, "label": "background"}, "non-finite"),
        ({"points": ((1, 1),), "radius_px": 1, "label": "forground"}, "did you mean 'foreground'"),
        ({"points": ((1, 1),), "radius_px": 1, "label": "background", "object": 2}, "foreground only"),
    ],
)
def test_an_impossible_stroke_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Stroke(**fields)  # type: ignore[arg-type]


def test_a_torn_last_line_is_named_and_can_be_set_aside(tmp_path: Path) -> None:
    log = tmp_path / "s.jsonl"
    append_events(log, [line(1, 0, 3), line(2, 0, 3)])
    with log.open("ab") as file:
        file.write(b'{"event":"stro')
    with pytest.raises(InputError, match=r"line 3, .* is torn"):
        read_events(log)
    with pytest.raises(InputError, match=r"line 3, .* is torn"):
        append_events(log, [line(3, 0, 3)])
    torn = repair_log(log)
    assert torn is not None
    assert torn.read_bytes() == b'{"event":"stro'
    assert len(read_events(log)) == 2
    assert repair_log(log) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "unknown event 'nothing'"),
        ('{"event":"stroek"}', "did you mean 'stroke'"),
        ('{"event":"undo"}', "not a sketch event"),
        ('{"event":"stroke","points":[[1]],"radius_px":1,"label":"background"}', "finite points"),
        ('{"event":"stroke","points":7,"radius_px":1,"label":"background"}', "not a sketch event"),
        ('{"event":"box","start":[1,1],"stop":[1,4]}', "start before stop"),
        ("{", "not a sketch event"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "s.jsonl"
    append_events(log, [line(1, 0, 3)])
    with log.open("a") as file:
        file.write(text + "\n")
    with pytest.raises(InputError, match=f"line 2 of sketch .*{message}"):
        read_events(log)


def test_a_write_that_fails_half_way_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "s.jsonl"
    append_events(log, [line(1, 0, 3)])
    before, write = log.read_bytes(), os.write
    answers = iter([lambda handle, data: write(handle, data[:5])])

    def disk_full(handle: int, data: bytes) -> int:
        for answer in answers:
            return answer(handle, data)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", disk_full)
    with pytest.raises(OutputError, match="No space left"):
        append_events(log, [line(2, 0, 3)])
    assert log.read_bytes() == before


def test_an_absent_log_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cannot be read"):
        read_events(tmp_path / "none.jsonl")


def test_a_log_about_several_images_asks_which(tmp_path: Path) -> None:
    log = tmp_path / "s.jsonl"
    append_events(log, [line(1, 0, 3, image="a"), line(2, 0, 3, image="b"), ClassPoint(point=(1, 1), name="round")])
    with pytest.raises(InputError, match="about 2 images"):
        open_sketch(log, shape=(5, 5))
    assert len(open_sketch(log, shape=(5, 5), image="b").marks) == 2
    assert open_sketch(log, shape=(5, 5), image="b").class_points[0].name == "round"


def test_every_line_of_a_log_is_plain_json(tmp_path: Path) -> None:
    log = tmp_path / "s.jsonl"
    append_events(log, [line(1, 0, 3, id="a", user="ada"), Undo(target="a")])
    assert json.loads(log.read_text().splitlines()[0]) == {
        "event": "stroke",
        "points": [[1, 0], [1, 3]],
        "radius_px": 0.5,
        "label": "foreground",
        "id": "a",
        "user": "ada",
    }


def test_a_sketch_on_a_huge_image_costs_what_was_drawn() -> None:
    near = Stroke(points=((70_000, 3),), radius_px=2, label="foreground")
    sketch = Sketch(shape=(100_000, 100_000), events=(near,))
    assert sketch.rasterize(Box((69_990, 0), (70_010, 10))).labels.max() == 1
    assert len(sketch._canvas.tiles) <= 4


def test_a_dab_on_an_image_one_pixel_wide_is_one_object() -> None:
    dab = Stroke(points=((0.0, 0.0),), radius_px=1.0, label="foreground")
    assert Sketch(shape=(2, 1), events=(dab,)).rasterize().labels.tolist() == [[1], [1]]
