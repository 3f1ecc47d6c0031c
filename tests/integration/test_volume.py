"""Integration of volumes: against the oracle, under symmetry, chunked equals whole, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine import open_engine
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.follow import follow_flow
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import integrate, integrate_stored, plan_outline
from sketchscale.integration.region import region_of
from sketchscale.integration.sinks import link_sinks
from sketchscale.io.arrays import ArrayRef, create_array, open_array
from sketchscale.metrics import score_labels
from tests.integration.fields import any_fields
from tests.integration.volumes import Fields, any_volume, ellipsoid_labels, space_rule, volume_fields_of
from tests.oracles import volume as oracle

STORE = "memory://integration-volume"
FIELDS, TARGET = ArrayRef(store=STORE, path="fields"), ArrayRef(store=STORE, path="labels")
RULES = (
    {},
    {"crowd": 1},
    {"crowd": 3, "saddle": 1.0},
    {"crowd": 2, "climb": 1, "link_radius": 5, "saddle": 1.0},
    {"crowd": 60, "climb": 8, "link_radius": 1, "saddle": 1.0},
    {"saddle": 0.0, "agreement": -1.0},
    {"crowd": 3, "saddle": 1.0, "join_share": 0.3, "join_radius": 3},
)


@settings(max_examples=30, deadline=None)
@given(fields=any_volume(5), rule=st.sampled_from(RULES))
def test_every_voxel_ends_and_is_labelled_as_the_oracle_says(fields, rule):
    config = space_rule(threshold=-2.0, steps=9, min_size=3, max_size=150, **rule)
    shape = fields.shape[1:]
    points = follow_flow(fields, region_of(whole(shape), shape, config), config)
    found = {
        q: tuple(int(i) for i in np.unravel_index(end, shape)) for q, end in np.ndenumerate(points.ends) if end >= 0
    }
    assert found == oracle.end_points(fields, config)
    assert np.array_equal(integrate(fields, config), oracle.integrate(fields, config))


@settings(max_examples=25, deadline=None)
@given(fields=any_volume(16), order=st.permutations(range(3)), signs=st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_turned_and_mirrored_fields_give_turned_and_mirrored_objects(fields, order, signs):
    config = space_rule(threshold=-2.0, min_size=0, crowd=1)  # climbing prefers the first of equal crowds
    flips = (slice(None), *(slice(None, None, s) for s in signs))
    turned = fields.transpose(0, *(1 + a for a in order))[flips].copy()
    turned[:3] = turned[list(order)] * np.array(signs, np.float16)[:, None, None, None]
    expected = integrate(fields, config).transpose(order)[flips[1:]]
    found = integrate(turned, config)
    pairs = np.unique(np.stack([expected.ravel(), found.ravel()], axis=1), axis=0)
    assert len(pairs) == len(np.unique(expected)) == len(np.unique(found))


@settings(max_examples=25, deadline=None)
@given(fields=any_fields(40), axis=st.integers(0, 2), share=st.sampled_from([None, 0.3]))
def test_a_volume_of_one_section_gives_the_labels_of_the_plane(fields, axis, share):
    rule = {"threshold": -2.0, "min_size": 4, "join_share": share}
    volume = np.zeros((4, *np.insert(fields.shape[1:], axis, 1)), np.float16)
    rows = [a for a in range(3) if a != axis]
    volume[[*rows, 3]] = np.expand_dims(fields, axis + 1)
    found = integrate(volume, IntegrationConfig(**rule, crowd=1))
    assert np.array_equal(np.squeeze(found, axis), integrate(fields, IntegrationConfig(**rule)))


@settings(max_examples=30, deadline=None)
@given(
    sinks=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99)).map(
        lambda s: (np.random.default_rng(s[3]).random(s[:3]) < 0.08).astype(np.uint16)
    ),
    radius=st.integers(1, 4),
)
def test_links_of_runs_are_the_links_of_all_pairs(sinks, radius):
    ids, n = link_sinks(sinks, radius)
    nodes = [tuple(map(int, q)) for q in np.argwhere(sinks)]
    group = oracle.components(dict.fromkeys(nodes, 1), space_rule(threshold=0.0, link_radius=radius, crowd=1))
    names = {g: i for i, g in enumerate(dict.fromkeys(group.values()), start=1)}
    assert n == len(names)
    assert {q: int(ids[q]) for q in nodes} == {q: names[group[q]] for q in nodes}
    assert np.array_equal(link_sinks(sinks[:1], radius)[0][0], link_sinks(sinks[0], radius)[0])


def run(
    fields: Fields,
    config: IntegrationConfig,
    block: tuple[int, ...],
    chunk: tuple[int, ...] | None = None,
    engine: str = "serial",
) -> tuple[npt.NDArray[np.uint32], ObjectMap]:
    shape = fields.shape[1:]
    create_array(FIELDS, shape=fields.shape, chunks=(4, *(chunk or block)), dtype=np.float16)[:] = fields
    create_array(TARGET, shape=shape, chunks=chunk or block, dtype=np.uint32)
    opened = open_engine(engine, 2)
    try:
        objects = integrate_stored(FIELDS, TARGET, config, opened, block=block, scratch=STORE + "-temporary")
    finally:
        opened.close()
    return np.asarray(open_array(TARGET)[:]), objects


def check(labels: npt.NDArray[np.uint32], objects: ObjectMap, expected: npt.NDArray[np.uint32]) -> None:
    assert np.array_equal(labels, expected)
    assert objects.area.tolist() == np.bincount(expected.ravel())[1:].tolist()
    for number, (first, box) in enumerate(zip(objects.first, objects.box, strict=True), start=1):
        where = np.argwhere(expected == number)
        assert first == np.flatnonzero(expected == number)[0]
        assert box.tolist() == [*where.min(axis=0), *(where.max(axis=0) + 1)]


@settings(max_examples=25, deadline=None)
@given(
    fields=any_volume(12),
    chunk=st.tuples(st.integers(1, 7), st.integers(2, 7), st.integers(2, 7)),
    times=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    rule=st.sampled_from(RULES),
    engine=st.sampled_from(["serial", "threads"]),
)
def test_any_chunks_and_blocks_give_the_labels_of_the_whole_volume(fields, chunk, times, rule, engine):
    chunk = tuple(min(c, n) for c, n in zip(chunk, fields.shape[1:], strict=True))
    block = tuple(c * t for c, t in zip(chunk, times, strict=True))
    if np.prod(block) < 150:  # keeps the number of tasks small; thin blocks have their own test
        block = tuple(3 * b for b in block)
    config = space_rule(threshold=-2.0, min_size=4, **rule)
    check(*run(fields, config, block, chunk, engine), integrate(fields, config))


@pytest.mark.parametrize(("axis", "thickness"), [(0, 1), (0, 2), (0, 3), (1, 1), (2, 1)])
def test_blocks_of_a_few_sections_give_the_labels_of_the_whole_volume(axis, thickness):
    shape = tuple(14 if a == axis else 22 for a in range(3))
    fields = volume_fields_of(ellipsoid_labels(shape, 10, seed=3, radius=(3, 5)))
    fields[:3] += np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float16) * np.float16(0.1)
    config = space_rule(threshold=-2.0)
    labels, objects = run(fields, config, tuple(thickness if a == axis else 16 for a in range(3)))
    assert objects.crossing > 5
    check(labels, objects, integrate(fields, config))


def test_a_helix_through_all_blocks_is_one_object():
    grid = np.indices((40, 40, 40))
    mask = np.zeros((40, 40, 40), bool)
    for t in np.linspace(0, 3, 300):
        centre = (4 + 10.5 * t, 19.5 + 12 * np.sin(2 * np.pi * t), 19.5 + 12 * np.cos(2 * np.pi * t))
        mask |= sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < 16
    fields = volume_fields_of(mask.astype(np.int32))
    config = space_rule(threshold=-2.0)
    labels, objects = run(fields, config, (16, 16, 16))
    assert (objects.count, objects.crossing) == (1, 1)
    assert objects.blocks[0] > 10
    check(labels, objects, integrate(fields, config))


def test_a_small_object_over_eight_blocks_is_filtered_by_its_whole_size():
    fields = np.zeros((4, 8, 8, 8), np.float16)
    fields[3] = -5
    fields[3, 3:5, 3:5, 3:6] = 1
    for smallest, count in ((12, 1), (13, 0)):
        _, objects = run(fields, space_rule(threshold=0.0, min_size=smallest), (4, 4, 4))
        assert (objects.count, objects.dropped_small) == (count, 1 - count)
        assert objects.blocks.tolist() == [8] * count


@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1, 1)])
def test_exact_fields_of_touching_ellipsoids_give_them_back(spacing):
    truth = ellipsoid_labels((48 // spacing[0], 64, 64), 24, seed=1, radius=(6, 11), flat=spacing[0])
    touching = sum(
        int(((a != b) & (a > 0) & (b > 0)).any())
        for a, b in ((truth[1:], truth[:-1]), (truth[:, 1:], truth[:, :-1]), (truth[..., 1:], truth[..., :-1]))
    )
    assert touching == 3
    labels = integrate(volume_fields_of(truth, spacing), space_rule(threshold=-2.0))
    best = [np.bincount(truth[labels == k]).argmax() for k in range(1, labels.max() + 1)]
    assert len(best) == truth.max() == len(set(best))
    for k, t in enumerate(best, start=1):
        overlap = ((labels == k) & (truth == t)).sum() / ((labels == k) | (truth == t)).sum()
        assert overlap > 0.9


@pytest.mark.parametrize(("seed", "radius"), [(3, (6, 11)), (5, (12, 18))])
def test_crowds_keep_neighbours_apart_under_noise_that_links_all_end_points(seed, radius):
    truth = ellipsoid_labels((52, 60, 60), 10, seed=seed, radius=radius)
    fields = volume_fields_of(truth)
    fields[:3] += np.random.default_rng(0).normal(size=fields[:3].shape).astype(np.float16) * np.float16(0.5)
    scores = {}
    for crowd in (1, 8):
        labels = integrate(fields, space_rule(threshold=-2.0, crowd=crowd))
        scores[crowd] = score_labels(truth, labels).as_dict()["ap"]["0.5"]
    assert scores[1] < 0.5
    assert scores[8] > 0.8


def test_empty_volumes_have_no_objects():
    config = space_rule(threshold=0.0)
    assert integrate(np.zeros((4, 0, 5, 5), np.float16), config).shape == (0, 5, 5)
    labels, objects = run(np.full((4, 5, 5, 5), -1, np.float16), config, (2, 2, 2))
    assert (objects.count, labels.any()) == (0, False)


def test_wrong_fields_and_rules_are_refused():
    config = space_rule(threshold=0.0)
    for wrong in (np.zeros((3, 4, 4, 4), np.float16), np.zeros((4, 4, 4), np.float16), np.zeros((4, 1, 1, 1), int)):
        with pytest.raises(InputError, match="flow along each axis, distance"):
            integrate(wrong, config)
    with pytest.raises(InputError, match="for 3 axes"):
        integrate(np.zeros((4, 4, 4, 4), np.float16), space_rule(threshold=0.0, method="euler"))
    for rule in ({"crowd": 0}, {"climb": 99}, {"steps": 0}):
        with pytest.raises(InputError):
            space_rule(threshold=0.0, **rule)
    broken = np.ones((4, 2, 2, 2), np.float16)
    broken[1, 0, 1] = np.nan
    with pytest.raises(InputError, match="not finite at"):
        integrate(broken, config)
    create_array(FIELDS, shape=(4, 8, 8, 8), chunks=(4, 4, 4, 4), dtype=np.float16)[:] = -1
    create_array(TARGET, shape=(8, 8, 8), chunks=(8, 8, 8), dtype=np.uint32)
    with pytest.raises(InputError, match="cut the write units"):
        integrate_stored(FIELDS, TARGET, config, open_engine("serial"), block=(4, 4, 4), scratch=STORE)
    with pytest.raises(InputError, match="whole write units"):
        plan_outline(FIELDS, TARGET, STORE, config, block=(4, 4, 4))


def test_two_balls_over_the_corner_of_eight_blocks_stay_two():
    """They touch along a diagonal of the volume, each of the four."""
    for corner in itertools.product((0, 1), (0, 1), (1,)):
        labels = np.zeros((20, 20, 20), np.int32)
        grid = np.indices(labels.shape)
        for number, centre in enumerate((9.5 - 3.2, 9.5 + 3.2), start=1):
            place = [centre if c else 19 - centre for c in corner]
            labels[sum((g - p) ** 2 for g, p in zip(grid, place, strict=True)) < 25] = number
        fields = volume_fields_of(labels)
        found, objects = run(fields, space_rule(threshold=-2.0), (10, 10, 10))
        assert objects.count == 2
        assert np.array_equal(found, integrate(fields, space_rule(threshold=-2.0)))
