"""Measuring and evaluating from storage: any block, chunk and engine, the same table."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.errors import InputError
from sketchscale.evaluation import score_labels, score_overlaps
from sketchscale.evaluation.plan import collect_overlaps, plan_contingency
from sketchscale.geometry import Box, whole
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from sketchscale.io.ome_zarr.planes import PixelsRef
from sketchscale.objects.measurement.places import collect_places
from sketchscale.objects.measurement.plan import collect_ranges, measure_config, needs_ranges, plan_measure, plan_ranges
from sketchscale.objects.measurement.stream import stream_features
from tests.objects.measurement.test_features import blobs, measure, noise, shapes

_NAMES = itertools.count()


def stored(values, chunks):
    """An array of ours in memory."""
    ref = ArrayRef(store=f"memory://objects-{next(_NAMES)}", path="a")
    create_array(ref, shape=values.shape, chunks=chunks, dtype=values.dtype)
    open_array(ref, read_only=False)[...] = values
    return ref


def plane_of(image, chunks, unit="micrometer", spacing=None):
    """An image (c, y, x) or (c, z, y, x) in memory, as a plane or a volume."""
    return PixelsRef(
        array=stored(image, (1, *chunks)),
        axes="c" + "zyx"[1 - image.ndim :],
        index=(),
        shape=image.shape[1:],
        channels=tuple(f"c{i}" for i in range(len(image))),
        dtype=str(image.dtype),
        spacing=spacing or (0.5,) * (image.ndim - 1),
        unit=unit,
        chunks=chunks,
    )


def collect_features(plan):
    """The table that sums alone give, of a plan that has run."""
    return pyarrow.Table.from_batches(stream_features(plan, collect_places(plan)))


def measured(labels, plane, block, engine="serial", workers=None):
    """The table by way of storage."""
    runner = open_engine(engine, workers)
    ranges = collect_ranges(run_plan(plan_ranges(plane, block), runner)) if needs_ranges(plane) else ()
    config = measure_config(labels, plane, ranges=ranges, tile_stride=(7, 11, 13)[-len(block) :])
    plan = plan_measure(labels, plane, config, store=f"memory://parts-{next(_NAMES)}", block=block)
    run_plan(plan, runner)
    runner.close()
    return collect_features(plan), config


@settings(max_examples=20, deadline=None)
@given(
    shapes(most=(40, 14)),
    st.tuples(*[st.integers(1, 17)] * 3),
    st.tuples(*[st.integers(6, 41)] * 3),
    st.integers(0, 9),
    st.integers(0, 2**16),
    st.sampled_from(("uint8", "float32")),
)
def test_the_stored_table_is_that_of_the_arrays_in_memory(shape, chunks, block, count, seed, dtype):
    labels, image = blobs(shape, count, seed), noise(dtype, (2, *shape), seed)
    chunks, block = chunks[: len(shape)], block[: len(shape)]
    table, config = measured(stored(labels, chunks), plane_of(image, chunks), block)
    assert table.equals(measure(labels, image, config))


def test_engines_give_the_same_table():
    labels, image = blobs((60, 60), 20, 1), noise("uint8", (1, 60, 60), 1)
    ref, plane = stored(labels, (16, 16)), plane_of(image, (16, 16))
    assert measured(ref, plane, (16, 32))[0].equals(measured(ref, plane, (32, 16), "threads", 3)[0])


def test_more_objects_than_are_folded_at_once_are_kept(monkeypatch):
    monkeypatch.setattr("sketchscale.objects.measurement.partials._FOLD_ROWS", 3)
    labels, image = blobs((40, 40), 20, 2), noise("uint8", (1, 40, 40), 2)
    table, config = measured(stored(labels, (8, 8)), plane_of(image, (8, 8)), (8, 8))
    assert table.equals(measure(labels, image, config))


def test_a_task_run_twice_changes_nothing():
    labels = blobs((30, 30), 8, 3)
    ref = stored(labels, (10, 10))
    plan = plan_measure(ref, None, measure_config(ref, None), store="memory://twice", block=(10, 10))
    with_engine = open_engine("serial")
    run_plan(plan, with_engine)
    once = collect_features(plan)
    run_plan(plan, with_engine)
    assert collect_features(plan).equals(once)


def test_a_plane_of_unknown_spacing_has_no_columns_in_um():
    labels, image = blobs((20, 20), 3, 4), noise("uint8", (1, 20, 20), 4)
    table, _ = measured(stored(labels, (20, 20)), plane_of(image, (20, 20), unit="pixel"), (20, 20))
    assert "area" in table.column_names
    assert "area_um2" not in table.column_names


def test_labels_and_image_of_different_shapes_are_refused():
    labels, image = blobs((20, 20), 3, 4), noise("uint8", (1, 10, 20), 4)
    with pytest.raises(InputError, match=r"expected: one shape \(y, x\)"):
        measure_config(stored(labels, (20, 20)), plane_of(image, (10, 10)))
    with pytest.raises(InputError, match=r"expected: one shape \(z, y, x\)"):
        measure_config(stored(labels[None], (1, 20, 20)), plane_of(image, (10, 10)))


def test_nan_is_refused_with_its_box():
    image = np.zeros((1, 8, 8), np.float32)
    image[0, 5, 5] = np.nan
    with pytest.raises(InputError, match=r"1 pixels that are NaN or Inf in box \[4:8, 4:8\]"):
        run_plan(plan_ranges(plane_of(image, (4, 4)), (4, 4)), open_engine("serial"))


def test_labels_that_are_floats_are_refused():
    ref = stored(np.zeros((4, 4), np.float32), (4, 4))
    plan = plan_measure(ref, None, measure_config(ref, None), store="memory://floats", block=(4, 4))
    with pytest.raises(InputError, match="labels of type float32"):
        run_plan(plan, open_engine("serial"))


@dataclass(frozen=True)
class Drawn:
    """A reader of true labels that is no Zarr array."""

    labels: np.ndarray

    @property
    def shape(self):
        return self.labels.shape

    def read(self, box: Box):
        assert whole(self.shape).contains(box)
        return self.labels[box.slices]


@settings(max_examples=20, deadline=None)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(5, 20), st.integers(5, 41)))
def test_scores_from_storage_are_those_of_the_whole_arrays(shape, block):
    truth, predicted = blobs(shape, 9, 5), blobs(shape, 9, 6).astype(np.uint64)
    plan = plan_contingency(stored(predicted, (7, 9)), Drawn(truth), block=block)
    results = json.loads(json.dumps(run_plan(plan, open_engine("serial"))))
    assert score_overlaps(collect_overlaps(results)) == score_labels(truth, predicted)


def test_scores_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="expected: one shape"):
        plan_contingency(stored(blobs((9, 9), 1, 0), (9, 9)), Drawn(np.zeros((8, 9), int)), block=(9, 9))
