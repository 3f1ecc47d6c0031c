"""Distances and flow over any number of axes: against brute force, and against the kernels of planes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sketchscale.annotations.space import FAR, flow_in_space, lattice_steps, squared_distances_in_space
from sketchscale.annotations.targets import Targets, targets_from_sketch, two_sided_pixels
from tests.oracles import targets as oracle

quick = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)
Codes = npt.NDArray[np.int32]


def of(codes: Codes, spacing: tuple[float, ...] | None = None) -> Targets:
    drawn = codes == oracle.DRAWN
    return targets_from_sketch(np.where(drawn, -1, codes), drawn, spacing=spacing)


def boundaries(codes: Codes) -> tuple[list[oracle.Site], list[oracle.Site]]:
    """Lattice positions of the certain and of the possible boundaries of a volume: sides of lines are certain."""
    certain, possible, sides = oracle.cracks(codes)
    return certain + sides, possible


def random_pair(seed: int) -> tuple[Codes, Codes]:
    """A volume, and what is left of it where a random part is hidden, or all but some planes."""
    rng = np.random.default_rng(seed)
    truth = oracle.lined(rng, oracle.random_truth(rng, tuple(int(n) for n in rng.integers(1, 9, 3))))
    sketch = oracle.partly_hidden(rng, truth)
    if seed % 2:
        shown = np.zeros(truth.shape, np.bool_)
        for axis in range(3):
            np.moveaxis(shown, axis, 0)[rng.integers(truth.shape[axis])] = True
        sketch = np.where(shown, truth, np.int32(-1))
    return truth, sketch


@given(seed=seeds)
@quick
def test_the_kernels_of_planes_and_of_space_agree_on_planes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = oracle.random_sketch(rng, oracle.random_truth(rng, tuple(int(n) for n in rng.integers(1, 26, 2))))
    known = targets_from_sketch(np.where(codes == -2, -1, codes), codes == -2)
    near = squared_distances_in_space(codes, (1, 1), 1)
    exact, beside = known.known & known.inside, (np.sqrt(near.astype(np.float64)) / 2).astype(np.float32)
    np.testing.assert_array_equal(beside[exact], known.distance[exact])
    flow, flow_known = flow_in_space(codes, np.where(known.two_sided, beside, 0), known.two_sided, (1.0, 1.0))
    np.testing.assert_array_equal(flow_known, known.flow_known)
    np.testing.assert_allclose(flow, known.flow, atol=1e-5)


@given(seed=seeds, ratio=st.sampled_from([1.0, 2.0, 2.5, 0.5]))
@quick
def test_the_valid_set_and_the_bounds_of_a_volume_are_those_of_brute_force(seed: int, ratio: float) -> None:
    _, sketch = random_pair(seed)
    got = of(sketch, (ratio, 1.0, 1.0))
    to_edge, to_unknown = (oracle.squared_distances(sketch, sites, ratio) for sites in boundaries(sketch))
    exact = (sketch > 0) & (to_edge <= to_unknown) & np.isfinite(to_edge)
    np.testing.assert_array_equal(got.known, exact | (sketch == 0))
    np.testing.assert_array_equal(got.two_sided, exact)
    np.testing.assert_allclose(got.distance[exact], np.sqrt(to_edge[exact]) / 2, rtol=1e-6)
    nearest = np.minimum(to_edge, to_unknown)
    np.testing.assert_array_equal(got.bounded, (sketch > 0) & ~exact & np.isfinite(nearest))
    np.testing.assert_allclose(got.lower[got.bounded], (np.sqrt(nearest) / 2)[got.bounded], rtol=1e-6)
    np.testing.assert_allclose(got.upper[got.bounded], (np.sqrt(to_edge) / 2)[got.bounded], rtol=1e-6)


@given(seed=seeds)
@quick
def test_the_pixels_whose_distance_is_determined_are_found_without_other_targets(seed: int) -> None:
    _, sketch = random_pair(seed)
    drawn = sketch == oracle.DRAWN
    np.testing.assert_array_equal(two_sided_pixels(np.where(drawn, -1, sketch), drawn), of(sketch).two_sided)


@given(seed=seeds, ratio=st.sampled_from([1.0, 2.0]))
@quick
def test_nothing_that_was_hidden_of_a_volume_makes_a_target_wrong(seed: int, ratio: float) -> None:
    truth, sketch = random_pair(seed)
    got, whole = of(sketch, (ratio, 1, 1)), of(truth, (ratio, 1, 1))
    certain, _ = boundaries(truth)
    distance = np.sqrt(oracle.squared_distances(truth, certain, ratio)) / 2
    inside = got.known & (sketch > 0)
    np.testing.assert_allclose(got.distance[inside], distance[inside], rtol=1e-6)
    assert (got.lower[got.bounded] <= distance[got.bounded] * (1 + 1e-6)).all()
    assert (got.upper[got.bounded] >= distance[got.bounded] * (1 - 1e-6)).all()
    np.testing.assert_array_equal(got.flow[:, got.flow_known], whole.flow[:, got.flow_known])
    np.testing.assert_array_equal(got.signed[got.signed_known], whole.signed[got.signed_known])


def ball(ratio: float = 2.0) -> Codes:
    z, y, x = np.ogrid[:16, :32, :32]
    inside = ((z - 8) * ratio) ** 2 + (y - 16) ** 2 + (x - 16) ** 2 < 12**2
    return inside.astype(np.int32)


def test_the_distance_in_a_plane_is_only_an_upper_bound_in_space() -> None:
    truth = ball()
    sketch = np.full_like(truth, -1)
    sketch[4] = truth[4]  # a section far from the middle: the cap above it is near, the outline in the plane is not
    got, plane = of(sketch, (2.0, 1.0, 1.0)), targets_from_sketch(truth[4])
    true = of(truth, (2.0, 1.0, 1.0)).distance[4]
    inside = truth[4] > 0
    np.testing.assert_array_equal(got.upper[4][got.bounded[4]], plane.distance[got.bounded[4]])
    assert (true[inside] < plane.distance[inside]).any()
    assert (got.lower[4][got.bounded[4]] == 1.0).all()  # half a section of 2 px
    assert got.known[4][inside].sum() == (plane.distance[inside] <= 1.0).sum()
    assert not got.flow_known[(sketch > 0)].any()


def test_the_flow_of_a_ball_points_to_its_middle_whatever_the_spacing() -> None:
    got = of(ball(), (2.0, 1.0, 1.0))
    z, y, x = np.indices(got.distance.shape)
    towards = np.stack([(8 - z) * 2.0, 16.0 - y, 16.0 - x])
    length = np.sqrt((towards**2).sum(axis=0))
    shell = (ball() > 0) & (length > 5)
    along = (got.flow * towards).sum(axis=0)[shell] / length[shell]
    assert np.median(along) > 0.99
    assert along.min() > 0.9


def test_distances_are_those_of_scipy_between_pixel_centres() -> None:
    labels = ball()
    got = of(labels, (2.0, 1.0, 1.0)).distance
    centres = ndimage.distance_transform_edt(labels, sampling=(2.0, 1.0, 1.0))
    assert np.abs(got - centres)[labels > 0].max() <= 1.0  # half of the largest spacing


def test_steps_are_in_proportion_to_the_spacing() -> None:
    assert lattice_steps((4.46, 1.0, 1.0)) == ((71, 16, 16), 16)
    assert lattice_steps((0.5, 1.0, 1.0)) == ((1, 2, 2), 2)


@pytest.mark.parametrize("shape", [(0, 3, 4), (1, 1, 1)])
def test_empty_and_tiny_volumes_have_targets(shape: tuple[int, ...]) -> None:
    got = targets_from_sketch(np.ones(shape, np.int32))
    assert got.flow.shape == (3, *shape)
    assert not got.known.any()
    assert (squared_distances_in_space(np.ones(shape, np.int32), (1, 1, 1), 1) == FAR).all()
