"""Features of whole objects: scikit-image's and numpy's on the whole image, the same bytes at any cut."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.objects.measurement import crops as crops_module
from sketchscale.objects.measurement import stream
from sketchscale.objects.measurement.crops import assign_crops, plan_crops
from sketchscale.objects.measurement.features import FEATURES, channel_names
from sketchscale.objects.measurement.places import collect_places
from sketchscale.objects.measurement.plan import collect_ranges, measure_config, needs_ranges, plan_measure, plan_ranges
from sketchscale.objects.measurement.stream import measure_objects
from tests.objects.measurement.test_features import AXES, blobs, noise, shapes
from tests.objects.measurement.test_plan import _NAMES, plane_of, stored
from tests.oracles.features import crop_features

DTYPES = ("uint8", "uint16", "float32")


def tabled(labels, image, block, *, chunks=None, spacing=None, engine="serial", workers=None, **options):
    """The whole table by way of storage, all features."""
    chunks = chunks or (16,) * labels.ndim
    plane = plane_of(image, chunks, spacing=spacing)
    source, runner = stored(labels, chunks), open_engine(engine, workers)
    ranges = collect_ranges(run_plan(plan_ranges(plane, block), runner)) if needs_ranges(plane) else ()
    config = measure_config(source, plane, ranges=ranges, tile_stride=(7, 11, 13)[-labels.ndim :], **options)
    store = f"memory://crops-{next(_NAMES)}"
    rows = list(measure_objects(source, plane, config, lambda plan: run_plan(plan, runner), store=store, block=block))
    runner.close()
    return pa.Table.from_batches(rows)


def object_ranges(labels, image):
    inside = image[:, labels > 0].astype(float)
    return [(c.min(), c.max()) if c.size else (0.0, 0.0) for c in inside]


def check(labels, image, block, spacing=None):
    """Every column that an oracle knows."""
    spacing = spacing or (0.5,) * labels.ndim
    table = tabled(labels, image, block, spacing=spacing).to_pylist()
    truth = crop_features(labels, image, object_ranges(labels, image), spacing)
    assert [row["label"] for row in table] == [row["label"] for row in truth]
    scale = max(1.0, np.abs(image.astype(float)).max(initial=0))
    for ours, theirs in zip(table, truth, strict=True):
        for name, value in theirs.items():
            if value is None:
                assert ours[name] is None, name
            else:
                slack = 1e-9 * scale if name.startswith(("intensity", "gradient", "ring")) else 1e-9
                assert ours[name] == pytest.approx(value, rel=1e-9, abs=slack), name


@settings(max_examples=40, deadline=None)
@given(
    shapes(most=(40, 15)),
    st.tuples(*[st.integers(5, 41)] * 3),
    st.integers(0, 8),
    st.integers(0, 2**16),
    st.sampled_from(DTYPES),
    st.sampled_from([(0.5, 0.5, 0.5), (1.25, 0.5, 0.5), (0.2, 0.5, 0.8)]),
)
@example((1, 1), (5, 5, 5), 1, 0, "uint8", (0.5, 0.5, 0.5))
def test_values_are_those_of_the_whole_image(shape, block, count, seed, dtype, spacing):
    axes = len(shape)
    check(blobs(shape, count, seed), noise(dtype, (2, *shape), seed), block[:axes], spacing[-axes:])


@settings(max_examples=45, deadline=None)
@given(
    shapes(most=(50, 20)),
    st.tuples(*[st.integers(4, 51)] * 3),
    st.tuples(*[st.integers(3, 20)] * 3),
    st.integers(0, 12),
    st.integers(0, 2**16),
    st.sampled_from(DTYPES),
)
def test_any_blocks_and_chunks_give_the_bytes_of_the_whole_table(shape, block, chunks, count, seed, dtype):
    labels, image = blobs(shape, count, seed), noise(dtype, (2, *shape), seed)
    chunks, spacing = chunks[: len(shape)], (0.3, 0.5, 0.5)[-len(shape) :]
    cut = tabled(labels, image, block[: len(shape)], chunks=chunks, spacing=spacing)
    assert cut.equals(tabled(labels, image, shape, spacing=spacing))


def test_engines_give_the_same_table():
    """Processes, which need a store on disk, in tests/workflow/measure/test_measure.py."""
    labels, image = blobs((60, 60), 20, 1), noise("uint8", (1, 60, 60), 1)
    one = tabled(labels, image, (16, 32))
    assert tabled(labels, image, (32, 16), engine="threads", workers=3).equals(one)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.permutations(range(1, 7)))
def test_renamed_ids_only_reorder_the_rows(seed, names):
    labels, image = blobs((30, 30), 6, seed), noise("uint16", (1, 30, 30), seed)
    ids = np.unique(labels[labels > 0])
    lookup = np.zeros(labels.max() + 1, np.uint32)
    lookup[ids] = np.array(names[: len(ids)]) * 1000
    here, there = tabled(labels, image, (12, 12)), tabled(lookup[labels], image, (12, 12))
    order = np.argsort(lookup[here.column("label").to_numpy()])
    assert here.drop_columns(["label"]).take(order).equals(there.drop_columns(["label"]))


def drawn(*lines):
    """Labels from lines of digits, '.' background."""
    return np.array([[0 if c == "." else int(c) for c in line] for line in lines], np.uint32)


CASES = {
    "one pixel": drawn("...", ".1.", "..."),
    "one pixel alone in its image": drawn("1"),
    "one row": drawn("1111.22"),
    "one column": drawn("1", "1", ".", "2"),
    "at the edges": drawn("11...22", "1.....2", ".......", "3.....4", "33...44"),
    "with holes": drawn("11111", "1.1.1", "11111", "1...1", "11111"),
    "inside another": drawn("111111", "1....1", "1.22.1", "1.22.1", "1....1", "111111"),
    "touching at a corner": drawn("11..", "11..", "..22", "..22"),
    "touching three": drawn("1122", "1122", "3344", "3344"),
    "in two pieces": drawn("1......1", "........", "...2....", "1......."),
    "no background": np.ones((9, 9), np.uint32),
    "nothing": np.zeros((4, 6), np.uint32),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("block", [(4, 4), (40, 40)])
def test_unusual_objects(name, block):
    labels = np.pad(CASES[name], 5) if "edge" not in name and "alone" not in name else CASES[name]
    check(labels, noise("uint8", (1, *labels.shape), 3), block)


def test_an_object_larger_than_a_block_is_read_alone_and_makes_no_other_block_large():
    labels, image = np.zeros((64, 64), np.uint32), noise("uint8", (1, 64, 64), 0)
    labels[2:60, 2:50], labels[10:12, 55:57], labels[40:43, 55:58] = 1, 2, 3
    check(labels, image, (16, 16))
    places, plan = plans(labels, image, (16, 16))
    sizes = {task.index: task.box.shape for task in plan.tasks}
    assert max(s for index, shape in sizes.items() if len(index) == 2 for s in shape) <= 16 + 2 * 8
    assert [shape for index, shape in sizes.items() if len(index) == 3] == [(64, 58)]
    assert len(places.label) == 3


def plans(labels, image, block, **options):
    """Places of all objects, and the plan of their crops, assigned."""
    source, plane = stored(labels, (16, 16)), plane_of(image, (16, 16))
    config = measure_config(source, plane, **options)
    store = f"memory://crops-{next(_NAMES)}"
    plan = plan_measure(source, plane, config, store=store, block=block)
    run_plan(plan, open_engine("serial"))
    places = collect_places(plan)
    crops = plan_crops(source, plane, config, places, store=store, block=block)
    assign_crops(crops, places)
    return places, crops


def test_blocks_read_on_to_the_right_and_below_only():
    labels = blobs((64, 64), 30, 5)
    _, plan = plans(labels, noise("uint8", (1, 64, 64), 0), (16, 16))
    assert len(plan.tasks) > 4
    for task in plan.tasks:
        start = np.array(task.index[:2]) * 16
        assert (np.array(task.box.start) >= start).all()


@AXES
def test_an_object_too_large_for_a_crop_has_no_such_values(monkeypatch, axes):
    shape = (30, 40, 40)[-axes:]
    labels, image = np.zeros(shape, np.uint32), noise("uint8", (1, *shape), 0)
    labels[..., 0:20, 0:20], labels[(slice(2, 5), slice(30, 33), slice(30, 33))[-axes:]] = 1, 2
    monkeypatch.setattr(crops_module, "CROP_LIMIT", 300)
    large, small = tabled(labels, image, (8,) * axes).to_pylist()
    for name, feature in FEATURES.items():
        if axes not in feature.axes:
            continue
        column = name if feature.of == "object" else f"{name}_c0"
        cropped = feature.part not in (None, "neighbours")
        assert (large[column] is None) == cropped, name
        assert small[column] is not None, name


def test_more_rows_than_are_finished_at_once_are_all_there(monkeypatch):
    labels, image = blobs((50, 50), 30, 2), noise("uint8", (1, 50, 50), 2)
    one = tabled(labels, image, (16, 16))
    monkeypatch.setattr(stream, "ROWS", 7)
    assert tabled(labels, image, (16, 16)).equals(one)
    assert one.num_rows > 14


def test_parts_that_nobody_wants_are_not_measured():
    labels, image = blobs((30, 30), 8, 3), noise("uint8", (1, 30, 30), 3)
    everything = tabled(labels, image, (16, 16))
    geometry = tabled(labels, image, (16, 16), features=("geometry", "touching_count"))
    assert geometry.equals(everything.select(geometry.column_names))
    assert "solidity" in geometry.column_names
    assert not [name for name in geometry.column_names if name.endswith("_c0")]
    _, plan = plans(labels, image, (16, 16), features=("area", "intensity_mean"))
    assert not plan.tasks
    _, plan = plans(labels, image, (16, 16), features=("solidity",))
    assert plan.config.config.crop_parts == (True, False, False, False, False)


def test_shapes_alone_read_no_intensities(monkeypatch):
    labels, image = blobs((30, 30), 8, 3), noise("uint8", (2, 30, 30), 3)
    _, plan = plans(labels, image, (16, 16), features=("solidity", "touching_count"))
    monkeypatch.setattr(crops_module, "read_plane", lambda *box: pytest.fail("an image was read"))
    assert sum(r["objects"] for r in run_plan(plan, open_engine("serial"))) > 3


def test_without_an_image_shapes_and_neighbours_are_measured():
    labels = blobs((30, 30), 8, 3)
    source = stored(labels, (16, 16))
    config = measure_config(source, None)
    run = open_engine("serial")
    rows = measure_objects(source, None, config, lambda p: run_plan(p, run), store="memory://bare", block=(16, 16))
    names = pa.Table.from_batches(list(rows)).column_names
    assert {"solidity", "touching_count", "nearest_distance"} <= set(names)
    assert not [name for name in names if name.startswith(("texture", "ring", "intensity"))]


@AXES
def test_every_feature_gives_its_columns(axes):
    shape = (20,) * axes
    labels, image = blobs(shape, 4, 1), noise("uint8", (2, *shape), 1)
    names = tabled(labels, image, shape).column_names
    channels = channel_names(("c0", "c1"))
    expected = ["label"]
    for name, feature in FEATURES.items():
        if axes in feature.axes:
            expected += [name] if feature.of == "object" else [f"{name}_{channel}" for channel in channels]
    assert names == expected
