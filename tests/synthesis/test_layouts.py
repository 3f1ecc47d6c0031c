"""Layouts: each point in its object, one piece each, little overlap, areas as the prior says, same seed same array."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label, regionprops

from sketchscale.errors import InputError
from sketchscale.synthesis import layouts
from sketchscale.synthesis.layouts import LayoutPrior, crowding, draw_layout
from tests.oracles.layouts import place_one_by_one


def scattered(n: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    flat = rng.choice(shape[0] * shape[1], n, replace=False)
    return np.stack(np.divmod(flat, shape[1]), -1).astype(float)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 60),
    st.tuples(st.integers(9, 90), st.integers(9, 90)),
    st.floats(3, 40),
    st.floats(0, 0.9),
    st.integers(0, 10**6),
)
def test_each_point_lies_in_its_own_connected_object(n, shape, diameter, spread, seed):
    points = scattered(n, shape, seed)
    prior = LayoutPrior(diameter=diameter, spread=spread)
    labels = draw_layout(points, shape, prior, seed=seed)
    at = points.astype(int)
    assert (labels[at[:, 0], at[:, 1]] == np.arange(1, n + 1)).all()
    assert labels.max(initial=0) == n
    pieces = label(labels, connectivity=1, background=0)
    assert len(np.unique(pieces[pieces > 0])) == n
    assert np.array_equal(labels, draw_layout(points, shape, prior, seed=seed))


@pytest.mark.parametrize("diameter", [8, 20, 45])
def test_painting_equals_the_plain_twin_and_outlines_overlap_by_a_twentieth_at_most(diameter, monkeypatch):
    points, shape = scattered(90, (150, 170), 3), (150, 170)
    drawn = {}
    real = layouts._outlines
    monkeypatch.setattr(layouts, "_outlines", lambda *a: drawn.setdefault("radii", real(*a)))  # kept, not replaced
    labels = draw_layout(points, shape, LayoutPrior(diameter=diameter), seed=1)
    expected, taken = place_one_by_one(points.astype(int), shape, diameter, drawn["radii"])
    assert np.array_equal(labels, expected)
    assert max(taken) <= 0.05
    assert len(taken) > 60, "most points get an outline, not only their kernel"


def test_areas_and_eccentricities_follow_the_prior():
    grid = np.stack(np.mgrid[40:2000:80, 40:2000:80], -1).reshape(-1, 2).astype(float)
    prior = LayoutPrior(diameter=25, spread=0.4, crowding=0, eccentricity=(0.6, 0.8), irregular=0)
    found = regionprops(draw_layout(grid, (2000, 2000), prior))
    areas = np.array([r.area for r in found])
    assert areas.mean() == pytest.approx(np.pi / 4 * 25**2, rel=0.05)
    assert areas.std() / areas.mean() == pytest.approx(0.4, abs=0.05)
    eccentricity = np.array([r.eccentricity for r in found])
    assert np.quantile(eccentricity, 0.02) > 0.55
    assert np.quantile(eccentricity, 0.98) < 0.83
    orientation = np.histogram([r.orientation for r in found], bins=4, range=(-np.pi / 2, np.pi / 2))[0]
    assert orientation.min() > len(found) / 8


def test_crowded_objects_are_smaller():
    sparse = np.stack(np.mgrid[40:800:80, 40:800:80], -1).reshape(-1, 2).astype(float)
    dense = np.stack(np.mgrid[1000:1400:22, 40:800:22], -1).reshape(-1, 2).astype(float)
    points = np.concatenate([sparse, dense])
    areas = np.bincount(draw_layout(points, (1500, 900), LayoutPrior(diameter=24)).ravel())[1:]
    assert np.median(areas[len(sparse) :]) < 0.75 * np.median(areas[: len(sparse)])
    assert crowding(points, 24.0)[:100].max() < 1e-6 < crowding(points, 24.0)[100:].min()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (
            [[5.0, 5.0], [40.0, 3.0]],
            "1 of 2 points lie outside the image, the first at y 40, x 3; expected: y below",
        ),
        ([[5.0, 5.0], [9.0, 9.0], [5.2, 4.8]], "1 of 3 points share a pixel with another, the first at y 5.2, x 4.8"),
        ([[5.0, float("nan")]], "point 1 is no number"),
    ],
)
def test_points_that_cannot_be_are_one_line(points, message):
    with pytest.raises(InputError, match=message) as caught:
        draw_layout(np.array(points), (30, 40))
    assert "\n" not in str(caught.value)


def test_a_prior_out_of_range_is_refused():
    with pytest.raises(InputError, match="eccentricity of the layouts"):
        LayoutPrior(eccentricity=(0.9, 0.2))


def test_fifty_thousand_objects_a_minute():
    points = np.stack(np.mgrid[12:600:24, 12:600:24], -1).reshape(-1, 2) + 0.0
    draw_layout(points[:9], (600, 600))  # compiles
    began = time.process_time()
    draw_layout(points, (600, 600), LayoutPrior(diameter=21))
    assert len(points) / (time.process_time() - began) > 50_000 / 60
