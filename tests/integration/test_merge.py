"""Joining sinks: against all pairs, across blocks, votes, filters and numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sketchscale.errors import InputError
from sketchscale.evaluation import score_labels
from sketchscale.geometry import whole
from sketchscale.integration.borders import Borders, borders_of
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.follow import EndPoints
from sketchscale.integration.links import link_ends
from sketchscale.integration.merge import BlockObjects, Unifier, join_components, number_objects
from sketchscale.integration.plan import integrate
from sketchscale.integration.region import region_of
from sketchscale.integration.sinks import link_sinks
from tests.integration.fields import any_plane, ellipsoid_labels, fields_of, planes_and_volumes
from tests.integration.fields import rule as usual
from tests.oracles import integration as oracle

BORDERS = ({}, {"prominence": 0.0}, {"prominence": -8.0}, {"prominence": 6.0})
ENDS = (
    {"join_share": 0.3},
    {"join_share": 0.5, "join_radius": 2, "prominence": -8.0},
    {"join_share": 0.0, "join_radius": 3},
)
CROWDS = ({"crowd": 1}, {"crowd": 3}, {"crowd": 2, "climb": 1}, {"crowd": 60, "climb": 8})


@settings(max_examples=50, deadline=None)
@given(
    sinks=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=3, max_side=9), elements=st.integers(0, 1)),
    keep=st.floats(0.1, 1),
    radius=st.integers(1, 4),
)
def test_linked_sinks_are_the_components_of_all_pairs_within_the_radius(sinks, keep, radius):
    sinks = sinks * (np.random.default_rng(0).random(sinks.shape) < keep)
    ids, count = link_sinks(sinks, radius)
    nodes = {tuple(map(int, q)): 1 for q in np.argwhere(sinks)}
    group = oracle.components(nodes, IntegrationConfig(threshold=0.0, link_radius=radius))
    expected = {number: i for i, number in enumerate(sorted(set(group.values())), start=1)}
    assert count == len(expected)
    assert np.array_equal(ids > 0, sinks > 0)
    assert all(ids[node] == expected[number] for node, number in group.items())


def test_sinks_just_within_the_radius_are_linked_and_just_beyond_are_not():
    for gap, objects in ((3, 1), (4, 2)):
        for step in ((0, gap), (gap, 0), (gap, gap), (gap, -gap)):
            sinks = np.zeros((12, 12), np.uint16)
            sinks[5, 5] = sinks[5 + step[0], 5 + step[1]] = 1
            assert link_sinks(sinks, 3)[1] == objects


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(("crowd", "pieces"), [(1, 1), (3, 1), (4, 2)])
def test_end_points_of_just_a_crowd_are_linked_over_the_radius_and_those_below_only_climb(axes, crowd, pieces):
    config = IntegrationConfig(threshold=0.0, link_radius=3, climb=1, crowd=crowd)
    shape = (1,) * (axes - 1) + (4,)
    region = region_of(whole(shape), shape, config)
    counts = np.array([3, 0, 0, 3], np.uint16).reshape(shape)
    ends = np.array([0, -1, -1, 3], np.int32).reshape(shape)
    points = EndPoints(ends=ends, bits=np.zeros((axes + 1, *shape), np.uint16), counts=counts, farthest=0)
    ids, n = link_ends(points, region, config)
    assert n == pieces
    assert (ids > 0).ravel().tolist() == [True, False, False, True]


@settings(max_examples=60, deadline=None)
@given(
    fields=planes_and_volumes(12, 5),
    radius=st.integers(1, 3),
    rule=st.sampled_from(BORDERS + ENDS),
    crowd=st.sampled_from(CROWDS),
)
def test_labels_equal_those_of_the_oracle(fields, radius, rule, crowd):
    config = usual(fields.ndim - 1, steps=12, link_radius=radius, min_size=3, max_size=150, **rule, **crowd)
    assert np.array_equal(integrate(fields, config), oracle.integrate(fields, config))


@settings(max_examples=40, deadline=None)
@given(
    fields=planes_and_volumes(48, 16),
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([1, -1])] * 3),
    rule=st.sampled_from(BORDERS[:1] + ENDS),
)
def test_turned_and_mirrored_fields_give_turned_and_mirrored_objects(fields, order, signs, rule):
    axes = fields.ndim - 1
    order, signs = [a for a in order if a < axes], signs[:axes]
    config = usual(axes, min_size=4, crowd=1, **rule)  # climbing prefers the first of equal crowds
    mirror = (slice(None), *(slice(None, None, s) for s in signs))
    turned = fields.transpose(0, *(1 + a for a in order))[mirror].copy()
    turned[:-1] = turned[order] * np.array(signs, np.float16).reshape(-1, *(1,) * axes)
    expected = integrate(fields, config).transpose(order)[mirror[1:]]
    found = integrate(turned, config)
    pairs = np.unique(np.stack([expected.ravel(), found.ravel()], axis=1), axis=0)
    assert len(pairs) == len(np.unique(expected)) == len(np.unique(found))


@settings(max_examples=25, deadline=None)
@given(fields=any_plane(40), axis=st.integers(0, 2), share=st.sampled_from([None, 0.3]), crowd=st.sampled_from([1, 4]))
def test_a_volume_of_one_section_gives_the_labels_of_the_plane(fields, axis, share, crowd):
    config = IntegrationConfig(threshold=-2.0, min_size=4, join_share=share, crowd=crowd)
    volume = np.zeros((4, *np.insert(fields.shape[1:], axis, 1)), np.float16)
    volume[[*(a for a in range(3) if a != axis), 3]] = np.expand_dims(fields, axis + 1)
    assert np.array_equal(np.squeeze(integrate(volume, config), axis), integrate(fields, config))


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1, 1)])
def test_exact_fields_of_touching_ellipsoids_give_them_back(spacing):
    truth = ellipsoid_labels((48 // spacing[0], 64, 64), 24, seed=1, radius=(6, 11), flat=spacing[0])
    touching = sum(
        int(((a != b) & (a > 0) & (b > 0)).any())
        for a, b in ((truth[1:], truth[:-1]), (truth[:, 1:], truth[:, :-1]), (truth[..., 1:], truth[..., :-1]))
    )
    assert touching == 3
    labels = integrate(fields_of(truth, spacing), usual(3))
    best = [np.bincount(truth[labels == k]).argmax() for k in range(1, labels.max() + 1)]
    assert len(best) == truth.max() == len(set(best))
    for k, t in enumerate(best, start=1):
        overlap = ((labels == k) & (truth == t)).sum() / ((labels == k) | (truth == t)).sum()
        assert overlap > 0.9


@pytest.mark.parametrize(("seed", "radius"), [(3, (6, 11)), (5, (12, 18))])
def test_crowds_keep_neighbours_apart_under_noise_that_links_all_end_points(seed, radius):
    truth = ellipsoid_labels((52, 60, 60), 10, seed=seed, radius=radius)
    fields = fields_of(truth)
    fields[:3] += np.random.default_rng(0).normal(size=fields[:3].shape).astype(np.float16) * np.float16(0.5)
    scores = {}
    for crowd in (1, 8):
        labels = integrate(fields, usual(3, crowd=crowd))
        scores[crowd] = score_labels(truth, labels).as_dict()["ap"]["0.5"]
    assert scores[1] < 0.5
    assert scores[8] > 0.8


def test_touching_discs_stay_apart_and_are_numbered_by_their_first_pixel():
    y, x = np.indices((96, 96))
    labels = np.where(np.hypot(y % 16 - 7.5, x % 16 - 7.5) < 8.4, y // 16 * 6 + x // 16 + 1, 0)
    found = integrate(fields_of(labels), IntegrationConfig(threshold=-2.0))
    first = [int(np.flatnonzero(found == k)[0]) for k in range(1, found.max() + 1)]
    assert first == sorted(first)
    pairs = np.unique(np.stack([labels.ravel(), found.ravel()], axis=1), axis=0)
    assert len(pairs) == 37
    assert len(np.unique(found)) == 37


def test_borders_join_the_pieces_of_a_long_object_that_links_leave_apart():
    y, x = np.indices((90, 40))
    rod = fields_of(((np.abs((x - 20) * 0.9 + (y - 45) * 0.43) < 4) & (y > 4) & (y < 86)).astype(int))
    rod[:2] += np.random.default_rng(5).normal(scale=0.5, size=rod[:2].shape).astype(np.float16)
    pieces = integrate(rod, IntegrationConfig(threshold=-2.0, prominence=-8.0))
    assert pieces.max() > 1
    assert integrate(rod, IntegrationConfig(threshold=-2.0)).max() == 1


def test_the_pass_is_the_lower_side_of_the_border_and_joins_below_the_prominence():
    fields = np.full((3, 1, 24), 4, np.float16)
    fields[0] = 0
    fields[1] = np.where(np.arange(24) < 12, -0.01, 0.01)
    config = IntegrationConfig(threshold=0.0, min_size=0, prominence=2.0)
    for side, height, count in ((12, 1, 2), (11, 1, 2), (12, 2, 2), (12, 3, 1)):  # flow allows 0.0008 px less than 2
        bordering = fields.copy()
        bordering[2, 0, side] = height
        assert integrate(bordering, config).max() == count


@pytest.mark.parametrize("axes", [2, 3])
def test_flow_changes_what_a_border_allows_by_eight_px_times_the_mean_scalar_product_of_its_sides(axes):
    """Two columns of pixels: flow along axis 0 on one side, turned by so many degrees per row on the other."""
    config = IntegrationConfig(threshold=0.0, prominence=2.0)
    shape = (2,) + (1,) * (axes - 2) + (2,)
    region = region_of(whole(shape), shape, config)
    for turns, allowed in (((0, 0), 10), ((60, 60), 6), ((0, 90), 6), ((90, 90), 2), ((0, 180), 2), ((180, 180), -6)):
        fields = np.zeros((axes + 1, *shape), np.float64)
        fields[0, ..., 0] = 1
        for row, turn in enumerate(np.deg2rad(turns)):
            fields[0, row, ..., 1], fields[axes - 1, row, ..., 1] = np.cos(turn), np.sin(turn)
        bits = fields.astype(np.float16).view(np.uint16)
        points = EndPoints(ends=np.zeros(shape, np.int32), bits=bits, counts=np.empty(0, np.uint16), farthest=0)
        found = np.broadcast_to(np.array([1, 2], np.uint32), shape)
        border = borders_of(np.ascontiguousarray(found), points, region, config)
        assert border.vote / (border.pairs * 2.0**24) == pytest.approx(allowed, abs=0.01)
        rises = border.saddle + np.array([[allowed - 0.02], [allowed + 0.02]])
        assert [bool(border.joining(low)[0]) for low in rises] == [True, False]


def test_sizes_at_the_limits_are_kept_and_beyond_them_dropped():
    fields = np.zeros((3, 5, 30), np.float16)
    fields[2] = -5
    fields[2, 1:4, 2:5] = fields[2, 1:4, 10:14] = fields[2, 1:4, 20:25] = 1
    sizes = {
        (9, 15): [9, 12, 15],
        (10, 15): [12, 15],
        (9, 14): [9, 12],
        (12, 12): [12],
        (0, None): [9, 12, 15],
        (16, None): [],
    }
    for (low, high), expected in sizes.items():
        labels = integrate(fields, IntegrationConfig(threshold=0.0, min_size=low, max_size=high))
        assert np.bincount(labels.ravel())[1:].tolist() == expected


def _block(area: list[int], first: list[int], shared: dict[int, int]) -> BlockObjects:
    return BlockObjects(
        area=np.array(area, np.int64),
        first=np.array(first, np.int64),
        box=np.array([[f // 10, f % 10, f // 10 + 1, f % 10 + 1] for f in first], np.int64).reshape(-1, 4),
        shared=np.array(list(shared), np.int64),
        shared_id=np.array(list(shared.values()), np.int32),
        peak=np.full(len(area), 4, np.float32),
        pair=np.empty((0, 2), np.int32),
        pairs=np.empty(0, np.int64),
        saddle=np.empty(0, np.float32),
        vote=np.empty(0, np.int64),
        near=np.empty(0, np.int64),
    )


def test_a_chain_of_shared_sinks_makes_one_object_of_four_blocks():
    blocks = [
        _block([3, 1], [7, 2], {11: 1}),
        _block([4], [8], {11: 1, 12: 1}),
        _block([5, 6], [40, 50], {12: 2, 30: 1}),
        _block([7], [60], {30: 1, 99: 1}),
    ]
    unifier = Unifier()
    unifier.add_row(blocks[:2], keep_from=0)
    unifier.add_row(blocks[2:], keep_from=100)
    config = IntegrationConfig(threshold=0.0, min_size=0)
    roots = join_components(blocks, unifier.roots())
    objects, labels = number_objects(blocks, roots, 100, config)
    assert labels.tolist() == [2, 1, 2, 3, 2, 3]
    assert objects.area.tolist() == [1, 13, 12]
    assert objects.first.tolist() == [2, 7, 40]
    assert objects.blocks.tolist() == [1, 3, 2]


def _bordering(saddle: float, vote: float, near: int) -> BlockObjects:
    """Two objects with a peak of 4 px and a border of one pair, whose vote is in px."""
    block = _block([1, 1], [1, 2], {5: 1, 6: 2})
    border = {"pair": [[1, 2]], "pairs": [1], "saddle": [saddle], "vote": [vote * 2**24], "near": [near]}
    types = {"pair": np.int32, "saddle": np.float32}
    return BlockObjects.of(block.arrays() | {k: np.array(v, types.get(k, np.int64)) for k, v in border.items()})


def _joined(blocks: list[BlockObjects]) -> int:
    unifier = Unifier()
    unifier.add_row(blocks, keep_from=0)
    return int(join_components(blocks, unifier.roots()).max()) + 1


def test_votes_of_two_blocks_are_averaged_and_their_saddles_compared_before_they_count():
    # peaks of 4 px, so the pass at 3 px is 1 px below: the mean of both votes has to be more than that
    cases = (
        ((1, 5), (3, -2), 1),
        ((3, 5), (1, -3), 2),
        ((2, 5), (2, -1), 2),
        ((2, 5), (2, -0.9), 1),
        ((3, -1), (3, -1), 2),
    )
    for first, second, count in cases:
        assert _joined([_bordering(*first, -1), _bordering(*second, -1)]) == count


def test_ends_join_whatever_distance_and_flow_say_when_those_of_both_blocks_together_are_for_it():
    for first, second, count in ((5, -4, 1), (-4, 5, 1), (5, -5, 2), (-1, -1, 2)):
        assert _joined([_bordering(0, -9, first), _bordering(0, -9, second)]) == count


def _border_of(apart: list[tuple[int, int]], config: IntegrationConfig) -> Borders:
    """Two columns of pixels, two objects; in row i the two ends are `apart[i]` from one another, along y and x."""
    shape = (len(apart), 2)
    region = region_of(whole(shape), (99, 99), config)
    width = region.window.shape[1]
    ends = np.array([[0, abs(y) * width + abs(x)] for y, x in apart], np.int32)
    points = EndPoints(ends=ends, bits=np.zeros((3, *shape), np.uint16), counts=np.empty(0, np.uint16), farthest=0)
    return borders_of(np.tile(np.array([1, 2], np.uint32), (shape[0], 1)), points, region, config)


def test_a_border_is_for_joining_when_more_than_the_share_of_it_ends_within_the_radius():
    near, far = (3, 4), (4, 4)
    cases = ((2, 0.5, False), (3, 0.5, True), (1, 0.25, False), (2, 0.25, True), (4, 1.0, False), (4, None, False))
    for count, share, joins in (*cases, (1, 0.0, True), (0, 0.0, False)):
        rule = IntegrationConfig(threshold=0.0, join_share=share, join_radius=5)
        border = _border_of([near] * count + [far] * (4 - count), rule)
        assert border.pair.tolist() == [[1, 2]]
        assert (border.near[0] > 0) == joins


def test_ends_that_lie_in_other_rows_of_the_window_are_measured_in_the_image():
    rule = IntegrationConfig(threshold=0.0, join_share=0.5, join_radius=2)
    for apart, joins in (((2, 0), True), ((0, 2), True), ((1, 1), True), ((2, 1), False), ((0, 3), False)):
        assert (_border_of([apart], rule).near[0] > 0) == joins


def test_shares_and_radii_out_of_range_are_refused():
    for wrong in ({"join_share": 1.1}, {"join_share": -0.1}, {"join_radius": -1}, {"join_radius": 65}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            IntegrationConfig(threshold=0.0, **wrong)


def test_no_objects_at_all_are_no_objects():
    config = IntegrationConfig(threshold=0.0)
    objects, labels = number_objects([], np.empty(0, np.int64), 0, config)
    assert (objects.count, objects.crossing, labels.size) == (0, 0, 0)
    assert integrate(np.zeros((3, 0, 5), np.float16), config).shape == (0, 5)
    assert integrate(np.zeros((4, 0, 5, 5), np.float16), config).shape == (0, 5, 5)


def test_fields_and_rules_that_do_not_fit_are_refused():
    for wrong in (np.zeros((3, 4, 4, 4), np.float16), np.zeros((4, 4, 4), np.float16), np.zeros((4, 1, 1, 1), int)):
        with pytest.raises(InputError, match="flow along each axis, distance"):
            integrate(wrong, usual(3))
    with pytest.raises(InputError, match="for 3 axes"):
        integrate(np.zeros((4, 4, 4, 4), np.float16), usual(3, method="euler"))
    for rule in ({"crowd": 0}, {"climb": 99}):
        with pytest.raises(InputError, match=next(iter(rule))):
            IntegrationConfig(threshold=0.0, **rule)
    broken = np.ones((4, 2, 2, 2), np.float16)
    broken[1, 0, 1] = np.nan
    with pytest.raises(InputError, match="not finite at"):
        integrate(broken, usual(3))


@pytest.mark.parametrize("seed", range(3))
def test_without_the_shared_sinks_objects_would_fall_apart_at_the_faces(seed):
    """The control: what the union-find over shared sinks is for."""
    blocks = [_block([3], [7], {11: 1}), _block([4], [8 + seed], {11: 1})]
    apart = join_components(blocks, np.arange(2))
    unifier = Unifier()
    unifier.add_row(blocks, keep_from=0)
    assert (apart.max(), unifier.roots().max()) == (1, 0)
