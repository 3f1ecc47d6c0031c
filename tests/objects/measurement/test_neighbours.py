"""Neighbours: all distances, looked up one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.objects.measurement.neighbours import find_neighbours


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=30),
    st.sampled_from([(1.0, 1.0), (0.25, 0.25), (0.5, 2.0)]),
    st.sampled_from([1.0, 5.0, 100.0]),
)
def test_neighbours_are_those_of_all_pairs(points, spacing, radius):
    y, x = np.array(points, float).reshape(-1, 2).T
    area = np.arange(len(points)) ** 2
    found = find_neighbours(y, x, area, spacing=spacing, radius=radius)
    for i in range(len(points)):
        others = [j for j in range(len(points)) if j != i]
        px = [np.hypot(y[i] - y[j], x[i] - x[j]) for j in others]
        um = [np.hypot((y[i] - y[j]) * spacing[0], (x[i] - x[j]) * spacing[1]) for j in others]
        np.testing.assert_allclose(found.distance[i], min(px, default=np.nan))
        np.testing.assert_allclose(found.distance_um[i], min(um, default=np.nan))
        near = [area[j] for j, d in zip(others, px, strict=True) if d <= radius]
        assert found.count[i] == len(near)
        np.testing.assert_equal(found.area[i], sum(near) / len(near) if near else np.nan)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_order_of_the_objects_is_of_no_matter(seed):
    rng = np.random.default_rng(seed)
    y, x, order = rng.uniform(0, 50, 40), rng.uniform(0, 50, 40), rng.permutation(40)
    area = rng.integers(1, 2**40, 40)
    here = find_neighbours(y, x, area, spacing=(0.3, 0.7), radius=10)
    there = find_neighbours(y[order], x[order], area[order], spacing=(0.3, 0.7), radius=10)
    np.testing.assert_array_equal(here.distance[order], there.distance)
    np.testing.assert_array_equal(here.distance_um[order], there.distance_um)
    np.testing.assert_array_equal(here.count[order], there.count)
    np.testing.assert_array_equal(here.area[order], there.area)


def test_objects_at_one_place_are_at_distance_0():
    found = find_neighbours(
        np.array([3.0, 3.0, 9.0]), np.array([4.0, 4.0, 4.0]), np.array([1, 2, 3]), spacing=(1, 1), radius=1
    )
    assert found.distance.tolist() == [0, 0, 6]
    assert found.count.tolist() == [1, 1, 0]
