"""Following the flow: against the oracle, under symmetry, at borders, and what it refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, TaskError, UnknownNameError
from sketchscale.geometry import Box, whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.follow import EndPoints, follow_flow
from sketchscale.integration.region import region_of
from tests.integration.fields import Fields, any_fields, planes_and_volumes
from tests.integration.fields import rule as usual
from tests.oracles import integration as oracle

NAMES = [{"method": "suppressed", "steps": 30}, {"method": "euler", "steps": 8}]


def follow(fields: Fields, config: IntegrationConfig) -> EndPoints:
    return follow_flow(fields, region_of(whole(fields.shape[1:]), fields.shape[1:], config), config)


def end_pixels(fields: Fields, config: IntegrationConfig) -> dict[tuple[int, ...], tuple[int, ...]]:
    ends, shape = follow(fields, config).ends, fields.shape[1:]
    return {q: tuple(int(i) for i in np.unravel_index(end, shape)) for q, end in np.ndenumerate(ends) if end >= 0}


@settings(max_examples=40, deadline=None)
@given(fields=planes_and_volumes(14, 5), rule=st.sampled_from(NAMES), threshold=st.sampled_from([-2.0, 0.0, 1.5]))
def test_end_points_and_their_counts_equal_those_of_the_oracle(fields, rule, threshold):
    rule = NAMES[0] if fields.ndim == 4 else rule
    config = IntegrationConfig(threshold=threshold, **rule)
    expected = oracle.end_points(fields, config)
    assert end_pixels(fields, config) == expected
    counts = follow(fields, config).counts
    assert {q: int(n) for q, n in np.ndenumerate(counts) if n} == dict(Counter(expected.values()))


@settings(max_examples=50, deadline=None)
@given(fields=planes_and_volumes(48, 20), where=st.tuples(*[st.floats(0, 0.99)] * 3), rule=st.sampled_from(NAMES))
def test_a_block_sees_the_ends_and_counts_of_the_whole_image(fields, where, rule):
    shape = fields.shape[1:]
    config = usual(len(shape), **(rule if len(shape) == 2 else {}))
    start = tuple(int(n * part) for n, part in zip(shape, where, strict=False))
    core = Box(start, tuple(a + 9 for a in start)).clip(shape)
    region = region_of(core, shape, config)
    points = follow_flow(fields[:, *region.loaded.slices], region, config)
    expected = follow(fields, config)
    near = region.zone.relative_to(region.window.start).slices
    assert np.array_equal(points.counts[near], expected.counts[region.window.slices][near])
    assert not ((points.counts > 0) & (expected.counts[region.window.slices] == 0)).any()
    at = np.unravel_index(np.maximum(points.ends, 0), region.window.shape)
    inside = tuple(i + a for i, a in zip(at, region.window.start, strict=True))
    moved = np.where(points.ends < 0, -1, np.ravel_multi_index(inside, shape))
    assert np.array_equal(moved, expected.ends[region.kept.slices])


@settings(max_examples=25, deadline=None)
@given(fields=any_fields())
def test_flips_and_transposes_commute_exactly_with_the_suppressed_walk(fields):
    config = IntegrationConfig(threshold=-2.0)
    sinks = follow(fields, config).counts
    flipped = fields[:, ::-1].copy()
    flipped[0] *= -1
    assert np.array_equal(follow(flipped, config).counts, sinks[::-1])
    turned = fields.transpose(0, 2, 1)[[1, 0, 2]]
    assert np.array_equal(follow(turned, config).counts, sinks.T)


@pytest.mark.parametrize("seed", range(4))
def test_exact_halves_round_away_from_zero_on_both_sides(seed):
    fields = np.ones((3, 12, 12), np.float16)
    fields[:2] = np.random.default_rng(seed).choice([-1, 0, 1], size=(2, 12, 12))
    config = IntegrationConfig(threshold=0.0, steps=30)
    assert end_pixels(fields, config) == oracle.end_points(fields, config)


@pytest.mark.parametrize("rule", NAMES)
def test_no_displacement_exceeds_the_reach_when_the_flow_is_constant(rule):
    config = IntegrationConfig(threshold=0.0, **rule)
    fields = np.ones((3, 30, 30), np.float16)
    fields[0] = 0
    assert config.reach - 2 < follow(fields, config).farthest <= config.reach


def test_the_default_reach_is_six_pixels_and_the_halo_fourteen():
    config = IntegrationConfig(threshold=-2.0)
    assert (config.reach, config.margin, config.halo) == (6, 7, 14)
    assert int(config.gains.sum()) / 2**14 == pytest.approx(5.878, abs=1e-3)


def test_the_euler_halo_covers_two_hundred_steps():
    assert IntegrationConfig(threshold=0.0, method="euler").halo == 2 + 2 * 201


def test_look_ups_beyond_the_image_see_the_edge_pixel_and_ends_stay_inside():
    fields = np.ones((3, 1, 9), np.float16)
    fields[0] = 0
    ends = follow(fields, IntegrationConfig(threshold=0.0)).ends
    assert ends.tolist() == [[6, 7, 8, 8, 8, 8, 8, 8, 8]]


def test_a_threshold_of_zero_is_a_threshold():
    fields = np.zeros((3, 1, 3), np.float16)
    fields[2] = [[-1, 0, 1]]
    assert (follow(fields, IntegrationConfig(threshold=0.0)).ends >= 0).tolist() == [[False, False, True]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_flow_that_is_not_finite_is_refused_in_the_foreground_and_ignored_outside(value):
    fields = np.ones((3, 4, 4), np.float16)
    fields[2, 0] = -5
    fields[0, 0, 1] = value
    assert (follow(fields, IntegrationConfig(threshold=0.0)).ends[0] == -1).all()
    fields[0, 2, 1] = value
    with pytest.raises(InputError, match="not finite at 1 foreground pixels"):
        follow(fields, IntegrationConfig(threshold=0.0))


def test_a_distance_that_is_no_number_is_background():
    fields = np.full((3, 1, 1), np.nan, np.float16)
    assert follow(fields, IntegrationConfig(threshold=-2.0)).ends.tolist() == [[-1]]


@pytest.mark.parametrize("rule", NAMES)
def test_a_look_up_outside_the_reach_is_an_error_not_a_clipped_answer(monkeypatch, rule):
    config = IntegrationConfig(threshold=0.0, **rule)
    fields = np.ones((3, 20, 20), np.float16)
    monkeypatch.setattr(IntegrationConfig, "reach", property(lambda self: 2))
    with pytest.raises(TaskError, match="left the halo"):
        follow(fields, config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", float("nan")),
        ("steps", 0),
        ("steps", 1001),
        ("link_radius", 0),
        ("min_size", -1),
        ("max_size", 5),
        ("prominence", -8.5),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(InputError, match=field):
        IntegrationConfig(**{"threshold": -2.0, field: value})


def test_an_unknown_method_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="suppressed"):
        IntegrationConfig(threshold=-2.0, method="supressed")  # type: ignore[arg-type]
