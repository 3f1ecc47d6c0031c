"""Drawn points lie as the given ones do: number, density, and distance from one another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from sketchscale.errors import InputError
from sketchscale.synthesis.points import draw_points, fit_points


def half_full(seed: int = 0) -> np.ndarray:
    """Points in the upper half of 400 x 400 px, at least about 10 px apart."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.mgrid[5:200:14, 5:400:14], -1).reshape(-1, 2)
    return grid + rng.integers(-2, 3, grid.shape) + 0.0


def test_number_and_density_are_those_of_the_given_points():
    given = half_full()
    model = fit_points([given], [(400, 400)])
    drawn = [draw_points(model, (400, 400), seed=s) for s in range(20)]
    assert np.mean([len(p) for p in drawn]) == pytest.approx(len(given), rel=0.15)
    fuller = [max((p[:, 0] < 200).mean(), (p[:, 0] >= 200).mean()) for p in drawn]
    assert np.mean(fuller) > 0.85
    uniform = np.random.default_rng(0).uniform(0, 400, (len(given), 2))
    near = lambda p: np.quantile(KDTree(p).query(p, k=2)[0][:, 1], 0.05)  # noqa: E731
    assert np.mean([near(p) for p in drawn]) > 2.5 * near(uniform)


def test_same_seed_same_points_and_all_inside_and_apart():
    model = fit_points([half_full(), half_full(1)[:40]], [(400, 400), (400, 400)])
    for seed in range(8):
        points = draw_points(model, (700, 123), seed=seed)
        assert np.array_equal(points, draw_points(model, (700, 123), seed=seed))
        assert (points >= 0).all()
        assert (points < (700, 123)).all()
        assert len(np.unique(points, axis=0)) == len(points)


def test_as_many_as_asked_while_there_is_room():
    model = fit_points([half_full()], [(400, 400)])
    assert len(draw_points(model, (400, 400), count=50)) == 50
    assert len(draw_points(model, (20, 20), count=500)) < 20


def test_too_few_points_are_refused():
    with pytest.raises(InputError, match="9 points in all; expected: at least 10"):
        fit_points([half_full()[:9]], [(400, 400)])


def test_a_place_without_points_anywhere_near_has_none():
    corner = half_full()[:60]
    model = fit_points([corner], [(4000, 4000)])
    drawn = [draw_points(model, (200, 200), seed=seed) for seed in range(5)]
    assert [p.shape for p in drawn].count((0, 2)) >= 4
    assert draw_points(model, (200, 200), seed=0, count=7).shape[1] == 2


def test_windows_hold_as_many_points_as_the_place_they_show():
    """Half of the image is full, half empty: so are windows of it."""
    points = np.unique(np.random.default_rng(0).integers(0, (1000, 500), (1000, 2)), axis=0).astype(float)
    model = fit_points([points], [(1000, 1000)])
    counts = np.array([len(draw_points(model, (200, 200), seed=seed)) for seed in range(200)])
    assert (counts < 10).mean() > 0.2
    assert (counts > 60).mean() > 0.2
    assert counts.mean() == pytest.approx(40, abs=10)
