"""Chunked equals whole, ids included: any shape, chunk, shard, block, engine; and what the plans refuse."""

from __future__ import annotations

import dataclasses
import itertools
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine import open_engine
from sketchscale.engine.base import Plan, run_plan
from sketchscale.errors import InputError, MissingDataError
from sketchscale.integration import plan as plans
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import (
    BlockTask,
    create_scratch,
    integrate,
    integrate_each,
    integrate_stored,
    merge_blocks,
    plan_outline,
    plan_relabel,
)
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from sketchscale.io.stores.blobs import delete_blobs
from tests.integration.fields import (
    Fields,
    any_fields,
    disc_labels,
    ellipsoid_labels,
    fields_of,
    helix_labels,
    planes_and_volumes,
    rule,
    spiral_labels,
)

RULES = (
    {},
    {"link_radius": 9},
    {"prominence": 8.0},
    {"method": "euler", "steps": 12},
    {"link_radius": 1, "prominence": -8.0, "join_share": 0.3},
    {"crowd": 3, "prominence": -8.0, "join_share": 0.3, "join_radius": 3},
    {"crowd": 2, "climb": 1, "link_radius": 5, "prominence": -8.0},
    {"crowd": 60, "climb": 8, "link_radius": 1, "prominence": -8.0},
)
STORE = "memory://integration"
FIELDS = ArrayRef(store=STORE, path="fields")
SCRATCH = ArrayRef(store=STORE, path="scratch")
TARGET = ArrayRef(store=STORE, path="labels")


def store(fields: Fields, chunk: tuple[int, ...], shards: tuple[int, ...] | None = None) -> None:
    shape = fields.shape[1:]
    create_array(FIELDS, shape=fields.shape, chunks=(len(fields), *chunk), dtype=np.float16)[:] = fields
    create_array(TARGET, shape=shape, chunks=chunk, shards=shards, dtype=np.uint32)


def run(
    fields: Fields,
    config: IntegrationConfig,
    block: tuple[int, ...],
    *,
    engine: str = "serial",
    chunk: tuple[int, ...] | None = None,
    shards: tuple[int, ...] | None = None,
) -> tuple[npt.NDArray[np.uint32], ObjectMap]:
    store(fields, chunk or block, shards)
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


@settings(max_examples=75, deadline=None)
@given(
    fields=planes_and_volumes(48, 12),
    chunk=st.tuples(*[st.integers(1, 12)] * 3),
    times=st.tuples(*[st.integers(1, 4)] * 3),
    sharded=st.booleans(),
    engine=st.sampled_from(["serial", "threads"]),
    options=st.sampled_from(RULES),
)
def test_any_chunks_shards_blocks_and_engine_give_the_labels_of_the_whole_image(
    fields, chunk, times, sharded, engine, options
):
    axes = fields.ndim - 1
    chunk = tuple(min(c, n) for c, n in zip(chunk, fields.shape[1:], strict=False))
    block = tuple(c * t for c, t in zip(chunk, times, strict=False))
    if np.prod(block) < (16 if axes == 2 else 150):  # fewer tasks; blocks of one pixel have their own test
        block = tuple(b * (8 if axes == 2 else 3) for b in block)
    config = rule(axes, min_size=4, **({} if axes == 3 and "method" in options else options))
    shards = block if sharded else None
    labels, objects = run(fields, config, block, chunk=chunk, shards=shards, engine=engine)
    check(labels, objects, integrate(fields, config))


@pytest.mark.parametrize("shape", [(1, 1), (1, 13), (13, 1), (6, 7), (2, 3, 4), (1, 5, 2)])
def test_blocks_of_one_pixel_give_the_labels_of_the_whole_image(shape):
    axes = len(shape)
    fields = np.random.default_rng(2).normal(size=(axes + 1, *shape)).astype(np.float16)
    config = rule(axes, threshold=-0.5, min_size=0)
    check(*run(fields, config, (1,) * axes), integrate(fields, config))


@pytest.mark.parametrize(("axis", "thickness"), [(0, 1), (0, 3), (1, 1), (2, 1)])
def test_blocks_of_a_few_sections_give_the_labels_of_the_whole_volume(axis, thickness):
    shape = tuple(14 if a == axis else 22 for a in range(3))
    fields = fields_of(ellipsoid_labels(shape, 10, seed=3, radius=(3, 5)))
    fields[:3] += np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float16) * np.float16(0.1)
    labels, objects = run(fields, rule(3), tuple(thickness if a == axis else 16 for a in range(3)))
    assert objects.crossing > 5
    check(labels, objects, integrate(fields, rule(3)))


@pytest.mark.parametrize(("drawn", "blocks"), [(spiral_labels(96), 20), (helix_labels(40), 10)])
def test_an_object_that_winds_through_all_blocks_is_one_object(drawn, blocks):
    fields, config = fields_of(drawn), rule(drawn.ndim)
    labels, objects = run(fields, config, (16,) * drawn.ndim)
    assert (objects.count, objects.crossing) == (1, 1)
    assert objects.blocks[0] > blocks
    check(labels, objects, integrate(fields, config))


def test_an_object_over_the_corner_of_four_blocks_is_one_object():
    fields = fields_of((np.hypot(*(np.indices((40, 40)) - 19.5)) < 9).astype(int))
    labels, objects = run(fields, IntegrationConfig(threshold=-2.0), (20, 20))
    assert objects.blocks.tolist() == [4]
    assert np.array_equal(labels > 0, fields[2] > -2)


def test_two_balls_over_the_corner_of_eight_blocks_stay_two():
    """They touch along a diagonal of the volume, each of the four."""
    for corner in itertools.product((0, 1), (0, 1), (1,)):
        labels = np.zeros((20, 20, 20), np.int32)
        grid = np.indices(labels.shape)
        for number, centre in enumerate((9.5 - 3.2, 9.5 + 3.2), start=1):
            place = [centre if c else 19 - centre for c in corner]
            labels[sum((g - p) ** 2 for g, p in zip(grid, place, strict=True)) < 25] = number
        fields = fields_of(labels)
        found, objects = run(fields, rule(3), (10, 10, 10))
        assert objects.count == 2
        assert np.array_equal(found, integrate(fields, rule(3)))


@settings(max_examples=25, deadline=None)
@given(fields=any_fields())
def test_rules_that_walk_alike_share_the_walk_and_give_what_each_gives_alone(fields):
    rules = [IntegrationConfig(threshold=-2.0, **r) for r in RULES if "method" not in r]
    for each, labels in zip(rules, integrate_each(fields, rules), strict=True):
        assert np.array_equal(labels, integrate(fields, each))


def test_rules_that_walk_differently_do_not_share_a_walk():
    rules = [IntegrationConfig(threshold=-2.0), IntegrationConfig(threshold=-1.0)]
    with pytest.raises(InputError, match="2 ways"):
        next(integrate_each(np.zeros((3, 4, 4), np.float16), rules))


@pytest.mark.parametrize(
    ("shape", "block", "place"),
    [((10, 40), (10, 20), np.s_[3:8, 17:23]), ((8, 8, 8), (4, 4, 4), np.s_[3:5, 3:5, 3:6])],
)
def test_a_small_object_cut_by_faces_is_filtered_by_its_whole_size(shape, block, place):
    fields = np.zeros((len(shape) + 1, *shape), np.float16)
    fields[-1] = -5
    fields[-1][place] = 1
    size = int((fields[-1] > 0).sum())
    for smallest, count in ((size, 1), (size + 1, 0)):
        _, objects = run(fields, rule(len(shape), threshold=0.0, min_size=smallest), block)
        assert (objects.count, objects.dropped_small) == (count, 1 - count)
        assert objects.blocks.tolist() == [2 if len(shape) == 2 else 8] * count


def test_an_image_without_foreground_has_no_objects_and_all_its_chunks():
    fields = np.full((3, 20, 30), -5, np.float16)
    labels, objects = run(fields, IntegrationConfig(threshold=-2.0), (8, 8))
    assert not labels.any()
    assert objects.count == 0


def test_more_than_65535_objects_keep_their_numbers():
    fields = np.zeros((3, 530, 530), np.float16)
    fields[2] = -5
    fields[2, ::2, ::2] = 1
    config = IntegrationConfig(threshold=0.0, min_size=1, link_radius=1)
    labels, objects = run(fields, config, (265, 530), engine="threads")
    assert objects.count == labels.max() == 265**2 > 65535
    assert np.array_equal(labels[::2, ::2].ravel(), np.arange(1, 265**2 + 1))


def test_a_64_bit_target_gets_the_same_labels():
    fields = fields_of(disc_labels((40, 40), 6, seed=1))
    config = IntegrationConfig(threshold=-2.0)
    create_array(FIELDS, shape=fields.shape, chunks=(3, 16, 16), dtype=np.float16)[:] = fields
    create_array(TARGET, shape=(40, 40), chunks=(16, 16), dtype=np.uint64)
    integrate_stored(FIELDS, TARGET, config, open_engine("serial"), block=(16, 16), scratch=STORE + "-temporary")
    assert np.array_equal(open_array(TARGET)[:], integrate(fields, config))


def outline_of(fields: Fields, block: tuple[int, int], config: IntegrationConfig) -> Plan[BlockTask]:
    store(fields, block)
    create_scratch(SCRATCH, fields.shape[1:], block)
    return plan_outline(FIELDS, SCRATCH, STORE, config, block=block)


@pytest.mark.parametrize("options", [{}, {"link_radius": 1, "prominence": -8.0, "join_share": 0.2}])
def test_tasks_run_twice_in_any_order_and_a_second_merge_change_nothing(options):
    fields = fields_of(disc_labels((48, 48), 12, seed=4))
    config = IntegrationConfig(threshold=-2.0, **options)
    outline = outline_of(fields, (16, 16), config)
    backwards = dataclasses.replace(outline, tasks=outline.tasks[::-1])
    serial = open_engine("serial")
    first = run_plan(backwards, serial)[::-1]
    assert run_plan(outline, serial) == first
    assert merge_blocks(outline).area.tolist() == merge_blocks(outline).area.tolist()
    relabel = plan_relabel(outline, TARGET)
    assert run_plan(relabel, serial) == run_plan(relabel, serial)
    assert np.array_equal(open_array(TARGET)[:], integrate(fields, config))
    assert sum(result["pixels"] for result in first) == (fields[2] > -2).sum()


def test_the_order_of_merging_does_not_need_the_results_in_memory_but_every_blob():
    outline = outline_of(fields_of(disc_labels((32, 32), 4, seed=4)), (16, 16), IntegrationConfig(threshold=-2.0))
    run_plan(outline, open_engine("serial"))
    delete_blobs(STORE, "outline")
    with pytest.raises(InputError, match="absent"):
        merge_blocks(outline)


def test_a_task_holds_less_than_the_plan_declares():
    fields = np.tile(fields_of(disc_labels((128, 128), 30, seed=1)), (1, 4, 4))
    outline = outline_of(fields, (512, 512), IntegrationConfig(threshold=-2.0))
    plans.outline_block(outline.tasks[0], outline.config)
    tracemalloc.start()
    plans.outline_block(outline.tasks[0], outline.config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < outline.task_bytes


def test_fields_that_were_not_written_are_an_error_not_background():
    create_array(FIELDS, shape=(3, 16, 16), chunks=(3, 8, 8), dtype=np.float16)
    create_scratch(SCRATCH, (16, 16), (8, 8))
    outline = plan_outline(FIELDS, SCRATCH, STORE, IntegrationConfig(threshold=-2.0), block=(8, 8))
    with pytest.raises(MissingDataError, match="absent"):
        run_plan(outline, open_engine("serial"))


def test_plans_refuse_wrong_arrays_before_the_first_task():
    config = IntegrationConfig(threshold=-2.0)
    fields = np.zeros((3, 16, 16), np.float16)
    outline = outline_of(fields, (8, 8), config)
    with pytest.raises(InputError, match="cut the write units"):
        plan_outline(FIELDS, SCRATCH, STORE, config, block=(12, 8))
    create_array(TARGET, shape=(16, 16), chunks=(8, 8), dtype=np.uint16)
    with pytest.raises(InputError, match="uint16"):
        plan_relabel(outline, TARGET)
    create_array(TARGET, shape=(16, 17), chunks=(8, 8), dtype=np.uint32)
    with pytest.raises(InputError, match="shape"):
        plan_relabel(outline, TARGET)
    create_array(FIELDS, shape=(3, 16, 16), chunks=(3, 8, 8), dtype=np.float32)
    with pytest.raises(InputError, match="float32"):
        plan_outline(FIELDS, SCRATCH, STORE, config, block=(8, 8))
    create_array(FIELDS, shape=(2, 16, 16), chunks=(2, 8, 8), dtype=np.float16)
    with pytest.raises(InputError, match="flow along each axis, distance"):
        plan_outline(FIELDS, SCRATCH, STORE, config, block=(8, 8))
    with pytest.raises(InputError, match="flow along each axis, distance"):
        integrate(np.zeros((3, 4, 4), np.int16), config)  # type: ignore[arg-type]
