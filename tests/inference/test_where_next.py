"""Uncertainty and choice: against loops, under flips, and what a person would expect of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sketchscale.errors import InputError
from sketchscale.inference.where_next import (
    FLIPS,
    choose_places,
    flip_tile,
    look_of,
    mean_fields,
    uncertainty_of,
    unflip_fields,
)
from tests.oracles import places as oracle


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (4, 3, 3, 5), elements=st.floats(-2, 2, width=32)), st.sampled_from((-1.0, 0.0, 0.5)))
def test_uncertainty_is_what_the_loops_say(views: np.ndarray, threshold: float) -> None:
    found = uncertainty_of(views, threshold)
    np.testing.assert_allclose(found, oracle.uncertainty(views.astype(float), threshold), atol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1


@pytest.mark.parametrize("flip", FLIPS)
def test_a_field_that_follows_its_image_is_the_same_in_every_mirror(flip: tuple[bool, bool]) -> None:
    """The gradient of a mirrored landscape, mirrored back, is the gradient: signs and axes are right."""

    def fields(landscape: np.ndarray) -> np.ndarray:
        return np.stack([*np.gradient(landscape), landscape])

    landscape = np.random.default_rng(0).normal(size=(7, 9)).cumsum(0).cumsum(1)
    back = unflip_fields(fields(flip_tile(landscape, flip)), flip)
    np.testing.assert_allclose(back, fields(landscape), rtol=1e-5)


def test_views_that_agree_on_unit_flow_are_certain() -> None:
    views = np.zeros((4, 3, 2, 2))
    views[:, 0], views[:, 2] = 1.0, 5.0
    assert uncertainty_of(views, 0.0).max() == 0
    views[:2, 0] = -1.0
    assert uncertainty_of(views, 0.0).min() == 1


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[float], list[list[float]], list[list[float]], int]:
    number = st.integers(0, 40).map(lambda k: k / 8)
    look = st.lists(number, min_size=3, max_size=3)
    looks = draw(st.lists(look, min_size=1, max_size=9))
    values = draw(st.lists(number, min_size=len(looks), max_size=len(looks)))
    return values, looks, draw(st.lists(look, max_size=3)), draw(st.integers(1, 10))


@settings(max_examples=50, deadline=None)
@given(candidates())
def test_choices_are_those_of_the_loops(case: tuple[list[float], list[list[float]], list[list[float]], int]) -> None:
    found, wanted = choose_places(*case), oracle.choose(*case)
    assert [c.score for c in found] == pytest.approx([score for _, score in wanted], abs=1e-9)
    assert len({c.index for c in found}) == len(found) == min(case[3], len(case[1]))
    assert all(a.score >= b.score for a, b in itertools.pairwise(found))


def test_ten_boxes_are_not_ten_times_the_same_place() -> None:
    looks = [[0.0, 0.0]] * 8 + [[5.0, 0.0], [0.0, 5.0]]
    chosen = choose_places([0.9] * 8 + [0.5, 0.4], looks, [], 3)
    assert [c.index for c in chosen] == [0, 8, 9]


def test_a_place_like_the_annotated_one_waits() -> None:
    looks = [[0.0], [0.1], [4.0], [4.2]]
    assert choose_places([0.9, 0.9, 0.3, 0.3], looks, [[0.0]], 1)[0].index == 2


def test_no_candidate_no_choice_and_none_wanted_is_refused() -> None:
    assert choose_places([], [], [[1.0]], 3) == ()
    with pytest.raises(InputError, match="0 places"):
        choose_places([1.0], [[1.0]], [], 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 3), (64, 64)])
def test_a_look_has_the_same_numbers_for_every_box(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pixels, views = rng.normal(size=(2, *shape)).astype(np.float32), rng.normal(size=(4, 3, *shape)).astype(np.float32)
    look = look_of(pixels, mean_fields(views), 0.0)
    assert len(look) == 2 * 6 + 4
    assert np.isfinite(look).all()
    empty = look_of(pixels, mean_fields(views), 1e9)
    assert empty[-4:] == (0, 0, 0, 0)
