"""Targets against brute force on random label maps, masks and crops, and the traps of partial annotation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import (
    BEYOND,
    Targets,
    region_codes,
    targets_from_sketch,
    two_sided_pixels,
)
from sketchscale.errors import InputError
from tests.oracles import targets as oracle

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def of(codes: npt.NDArray[np.int32]) -> Targets:
    return targets_from_sketch(np.where(codes == oracle.DRAWN, -1, codes), codes == oracle.DRAWN)


def _pixels(squared: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    return (np.sqrt(squared) / 2).astype(np.float32)


def random_pair(seed: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 26)), int(rng.integers(1, 26)))
    truth = oracle.random_truth(rng, shape)
    return truth, oracle.random_sketch(rng, truth)


@given(seeds)
@quick
def test_the_valid_set_and_the_bounds_are_those_of_brute_force(seed: int) -> None:
    _, sketch = random_pair(seed)
    got = of(sketch)
    inside, drawn = sketch > 0, sketch == oracle.DRAWN
    to_edge, to_unknown, to_side = (oracle.squared_distances(sketch, sites) for sites in oracle.cracks(sketch))
    nearest = np.minimum(np.minimum(to_edge, to_unknown), to_side)
    exact = (to_edge == nearest) & np.isfinite(to_edge)
    np.testing.assert_array_equal(got.known, inside & exact | (sketch == 0))
    np.testing.assert_array_equal(got.distance[inside & exact], _pixels(to_edge)[inside & exact])
    two_sided = inside & (np.minimum(to_edge, to_side) == nearest) & np.isfinite(nearest)
    np.testing.assert_array_equal(got.two_sided, two_sided)
    np.testing.assert_array_equal(got.two_sided, two_sided_pixels(np.where(drawn, -1, sketch), drawn))
    reach = oracle.reach(drawn)
    beyond = (np.where(drawn, 0, np.where(other, 1, -1)).astype(np.int32) for other in (sketch == 0, inside))
    across = np.where(inside, *(oracle.squared_distances(sketch, oracle.cracks(codes)[0]) for codes in beyond))
    far = np.where(drawn, reach, np.minimum(_pixels(np.minimum(to_edge, across)), reach))
    labelled = inside & ~exact & np.isfinite(nearest)
    bounded = labelled | ((sketch == 0) & ~exact | drawn) & np.isfinite(reach)
    np.testing.assert_array_equal(got.bounded, bounded)
    lower = np.where(inside, _pixels(nearest), -far)[bounded]
    upper = np.where(sketch == 0, -_pixels(nearest), far)[bounded]
    np.testing.assert_allclose(got.lower[bounded], lower, rtol=1e-6)
    np.testing.assert_allclose(got.upper[bounded], upper, rtol=1e-6)


@given(seeds)
@quick
def test_nothing_that_was_hidden_makes_a_target_wrong(seed: int) -> None:
    truth, sketch = random_pair(seed)
    got, whole = of(sketch), of(truth)
    distance = oracle.true_distance(truth)
    inside = got.known & (sketch > 0)
    np.testing.assert_array_equal(got.distance[inside], distance[inside].astype(np.float32))
    signed = oracle.signed_distance(truth).astype(np.float32)
    assert (got.lower[got.bounded] <= signed[got.bounded]).all()
    assert (got.upper[got.bounded] >= signed[got.bounded]).all()
    assert not (got.flow_known & ~(got.two_sided | got.background)).any()
    if not (sketch == oracle.DRAWN).any():
        np.testing.assert_array_equal(got.flow[:, got.flow_known], whole.flow[:, got.flow_known])
        assert not (got.flow_known & ~got.known).any()


@given(seeds)
@quick
def test_a_crop_with_unknown_pixels_around_it_is_never_wrong(seed: int) -> None:
    truth, sketch = random_pair(seed)
    rng = np.random.default_rng(seed + 1)
    (y0, y1), (x0, x1) = (np.sort(rng.integers(0, n + 1, 2)) for n in truth.shape)
    cut = np.full_like(sketch, -1)
    cut[y0:y1, x0:x1] = sketch[y0:y1, x0:x1]
    got, distance = of(cut), oracle.true_distance(truth).astype(np.float32)
    inside = got.known & (cut > 0)
    np.testing.assert_array_equal(got.distance[inside], distance[inside])


def test_control_a_crop_without_unknown_pixels_around_it_is_wrong() -> None:
    truth = np.zeros((1, 12), np.int32)
    truth[0, 4:] = 1
    truth[0, 8:] = 2
    assert of(truth[:, :8]).distance[0, 7] == 3.5
    assert of(truth).distance[0, 7] == 0.5


@given(seeds)
@quick
def test_dense_labels_are_known_everywhere_and_their_flow_is_the_definition(seed: int) -> None:
    truth, _ = random_pair(seed)
    got = of(truth)
    has_edge = np.isfinite(oracle.true_distance(truth))
    np.testing.assert_array_equal(got.known, has_edge | (truth == 0))
    np.testing.assert_array_equal(got.flow_known, got.known)
    assert not got.bounded.any()
    distance = oracle.true_distance(truth)
    for i, j in zip(*np.nonzero(got.known & (truth > 0)), strict=True):
        np.testing.assert_allclose(got.flow[:, i, j], oracle.flow_at(truth, distance, i, j), atol=1e-5)


@given(seeds, st.integers(0, 3), st.booleans())
@quick
def test_flips_turns_and_new_ids_commute_with_targets(seed: int, turns: int, flip: bool) -> None:
    _, sketch = random_pair(seed)
    renamed = np.where(sketch > 0, 1000 - sketch, sketch).astype(np.int32)

    def moved(a: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        a = np.flip(a, -1) if flip else a
        return np.ascontiguousarray(np.rot90(a, turns, axes=(-2, -1)))

    plain, turned = of(sketch), of(moved(renamed))
    for name in ("distance", "known", "flow_known", "lower", "upper", "bounded", "two_sided", "boundary"):
        np.testing.assert_array_equal(moved(getattr(plain, name)), getattr(turned, name))
    y, x = moved(plain.flow)
    x = -x if flip else x
    for _ in range(turns):
        y, x = -x, y
    np.testing.assert_allclose(turned.flow, np.stack([y, x]), atol=1e-5)


def test_the_first_pixel_inside_is_at_half_a_pixel_and_background_is_constant() -> None:
    labels = np.zeros((7, 9), np.int32)
    labels[2:5, 2:7] = 3
    got = targets_from_sketch(labels, outside=-4.0)
    assert got.distance[2, 3] == 0.5
    assert got.distance[3, 4] == 1.5
    assert (got.distance[labels == 0] == -4.0).all()
    assert (got.flow[:, labels == 0] == 0).all()
    np.testing.assert_allclose(got.flow[:, 2, 4], (1, 0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(got.flow[:, 2, 2]), 1, atol=1e-6)


def test_touching_objects_have_a_boundary_between_them_without_a_gap() -> None:
    got = targets_from_sketch(np.array([[1, 1, 1, 2, 2, 2]], np.int32))
    np.testing.assert_array_equal(got.distance, [[2.5, 1.5, 0.5, 0.5, 1.5, 2.5]])
    np.testing.assert_array_equal(got.flow[1], [[-1, -1, -1, 1, 1, 1]])


def test_a_drawn_line_separates_and_teaches_nothing_itself() -> None:
    labels = np.array([[1, 1, 1, 1, 1, 1, 1]], np.int32)
    drawn = np.array([[False, False, False, True, False, False, False]])
    got = targets_from_sketch(np.repeat(labels, 9, 0), np.repeat(drawn, 9, 0))
    assert not got.known[4].any()
    assert got.lower[4, 2] == got.lower[4, 4] == 0.5
    assert got.upper[4, 2] == got.upper[4, 4] == np.float32(1 + np.hypot(1, 0.5))
    assert got.upper[4, 3] == -got.lower[4, 3] == np.float32(np.hypot(1, 0.5))
    assert (got.flow[1, 4, 2], got.flow[1, 4, 4]) == (-1, 1)


def test_what_lies_behind_a_closed_line_does_not_hide_the_flow() -> None:
    y, x = np.indices((21, 21))
    away = np.hypot(y - 10, x - 10)
    labels = np.where(away < 6, 1, -1).astype(np.int32)
    near = np.pad(labels, 1, constant_values=-1) == 1
    ring = (near[2:, 1:-1] | near[:-2, 1:-1] | near[1:-1, 2:] | near[1:-1, :-2]) & (labels != 1)
    closed = targets_from_sketch(labels, ring)
    np.testing.assert_array_equal(closed.flow_known, labels == 1)
    ring[np.argmax(ring.any(1)), :] = False
    assert 0 < targets_from_sketch(labels, ring).flow_known.sum() < (labels == 1).sum()


def test_the_border_of_a_whole_image_is_no_boundary() -> None:
    labels = np.zeros((5, 8), np.int32)
    labels[:, :4] = 1
    got = targets_from_sketch(labels)
    np.testing.assert_array_equal(got.distance[:, :4], np.tile([3.5, 2.5, 1.5, 0.5], (5, 1)))
    np.testing.assert_allclose(got.flow[1, :, :4], -1, atol=0.1)
    beyond = np.pad(labels, 2, constant_values=BEYOND)
    np.testing.assert_array_equal(targets_from_sketch(beyond).distance[2:-2, 2:-2], got.distance)
    np.testing.assert_array_equal(targets_from_sketch(beyond).flow[:, 2:-2, 2:-2], got.flow)


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((0, 5), np.int32),
        np.full((4, 4), -1, np.int32),
        np.zeros((4, 4), np.int32),
        np.ones((4, 4), np.int32),
        np.array([[1]], np.int32),
        np.array([[1, -1, -1]], np.int32),
        np.array([[-1, 0, -1]], np.int32),
    ],
    ids=["empty", "unknown", "background", "one object everywhere", "one pixel", "no boundary", "no object"],
)
def test_degenerate_sketches_give_finite_targets(labels: npt.NDArray[np.int32]) -> None:
    got = targets_from_sketch(labels)
    for values in (got.flow, got.distance, got.lower):
        assert np.isfinite(values).all()
    assert not (got.known & (labels > 0)).any()
    assert (got.known == (labels == 0)).all()
    assert (got.bounded <= (labels > 0)).all()


def test_many_objects_do_not_overflow_and_ids_may_have_gaps() -> None:
    labels = (np.arange(300 * 300).reshape(300, 300) + 1).astype(np.uint32)
    got = targets_from_sketch(labels)
    assert got.known.all()
    assert (got.distance == 0.5).all()


def test_what_is_no_label_image_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="integers"):
        targets_from_sketch(np.zeros((3, 3)))
    with pytest.raises(InputError, match="same box"):
        targets_from_sketch(np.zeros((3, 3), np.int32), np.zeros((2, 3), bool))
    with pytest.raises(InputError, match="below 0"):
        targets_from_sketch(np.zeros((3, 3), np.int32), outside=0.0)
    with pytest.raises(InputError, match=r"below 2\^31"):
        region_codes(np.array([[2**31]], np.int64), None)
