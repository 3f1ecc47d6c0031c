"""Neighbours: all distances, looked up one by one."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.objects.measurement.neighbours import find_neighbours


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from([2, 3]),
    st.lists(st.tuples(*[st.integers(0, 20)] * 3), max_size=30),
    st.sampled_from([(1.0, 1.0, 1.0), (0.25, 0.25, 0.25), (3.0, 0.5, 2.0)]),
    st.sampled_from([1.0, 5.0, 100.0]),
)
def test_neighbours_are_those_of_all_pairs(axes, points, spacing, radius):
    at, spacing = np.array(points, float).reshape(-1, 3)[:, -axes:], spacing[-axes:]
    size = np.arange(len(points)) ** 2
    found = find_neighbours(at, size, spacing=spacing, radius=radius)
    for i in range(len(points)):
        others = [j for j in range(len(points)) if j != i]
        px = [math.dist(at[i], at[j]) for j in others]
        um = [math.dist(at[i] * spacing, at[j] * spacing) for j in others]
        np.testing.assert_allclose(found.distance[i], min(px, default=np.nan))
        np.testing.assert_allclose(found.distance_um[i], min(um, default=np.nan))
        near = [size[j] for j, d in zip(others, px, strict=True) if d <= radius]
        assert found.count[i] == len(near)
        np.testing.assert_equal(found.size[i], sum(near) / len(near) if near else np.nan)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16))
def test_order_of_the_objects_is_of_no_matter(seed):
    rng = np.random.default_rng(seed)
    points, order = rng.uniform(0, 50, (40, 2)), rng.permutation(40)
    size = rng.integers(1, 2**40, 40)
    here = find_neighbours(points, size, spacing=(0.3, 0.7), radius=10)
    there = find_neighbours(points[order], size[order], spacing=(0.3, 0.7), radius=10)
    np.testing.assert_array_equal(here.distance[order], there.distance)
    np.testing.assert_array_equal(here.distance_um[order], there.distance_um)
    np.testing.assert_array_equal(here.count[order], there.count)
    np.testing.assert_array_equal(here.size[order], there.size)


def test_objects_at_one_place_are_at_distance_0():
    points = np.array([[3.0, 4.0], [3.0, 4.0], [9.0, 4.0]])
    found = find_neighbours(points, np.array([1, 2, 3]), spacing=(1, 1), radius=1)
    assert found.distance.tolist() == [0, 0, 6]
    assert found.count.tolist() == [1, 1, 0]
