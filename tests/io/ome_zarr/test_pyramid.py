"""Levels are exact and do not depend on the block."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sketchscale.engine.base import run_plan
from sketchscale.engine.local import SerialEngine
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, read_box, write_box
from sketchscale.io.ome_zarr.pyramid import halve_mean, halve_nearest, plan_level
from tests.oracles.io_pyramid import halve_mean_slow, halve_nearest_slow

_FRESH = itertools.count()
_WHOLE = st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8"])


@settings(max_examples=60, deadline=None)
@given(values=_WHOLE.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7))))
def test_mean_of_whole_numbers_is_exact_up_to_the_ends_of_their_type(values):
    got = halve_mean(values)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, halve_mean_slow(values))
    np.testing.assert_array_equal(halve_nearest(values), halve_nearest_slow(values))


def test_mean_of_floats_is_computed_in_float64_and_rounded_once():
    values = np.array([[1.0, 1e-8], [3e38, 3e38]], np.float32)
    assert halve_mean(values)[0, 0] == np.float32(values.astype(np.float64).mean())
    assert np.isnan(halve_mean(np.array([[np.nan, 1.0]], np.float32))).all()


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    chunk=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    target=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    block=st.integers(1, 30),
    method=st.sampled_from(["mean", "nearest"]),
    version=st.sampled_from([2, 3]),
)
def test_a_level_made_block_by_block_equals_the_whole(shape, chunk, target, block, method, version):
    name = f"memory://pyramid-{next(_FRESH)}"
    source, level = ArrayRef(store=name, path="0"), ArrayRef(store=name, path="1")
    values = np.random.default_rng(shape[0] * 41 + shape[1]).integers(0, 65536, (2, *shape)).astype(np.uint16)
    half = (2, -(-shape[0] // 2), -(-shape[1] // 2))
    create_array(source, shape=values.shape, chunks=(1, *chunk), dtype="u2", zarr_format=version)
    create_array(level, shape=half, chunks=(1, *target), dtype="u2", zarr_format=version)
    write_box(source, whole(values.shape), values)
    run_plan(plan_level(source, level, method, block=block), SerialEngine())
    slow = halve_mean_slow if method == "mean" else halve_nearest_slow
    np.testing.assert_array_equal(read_box(level, whole(half)), np.stack([slow(plane) for plane in values]))


def test_a_level_of_the_wrong_size_is_refused():
    source, level = (
        ArrayRef(store="memory://pyramid-wrong", path="0"),
        ArrayRef(store="memory://pyramid-wrong", path="1"),
    )
    create_array(source, shape=(5, 5), chunks=(5, 5), dtype="u1")
    create_array(level, shape=(2, 2), chunks=(2, 2), dtype="u1")
    with pytest.raises(InputError, match=r"expected: \(3, 3\)"):
        plan_level(source, level, "mean")
