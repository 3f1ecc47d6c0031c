"""The watershed of h/v maps: as the slow twin says, the same for any block, and an object for every disc."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.engine import open_engine
from sketchscale.engine.base import Json, Plan, run_plan
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import BlockTask, create_scratch, plan_relabel
from sketchscale.integration.watershed.audit import audit_floods
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.integration.watershed.plan import hover_labels, merge_basins, plan_flood
from sketchscale.io.arrays import ArrayRef, create_array, open_array
from tests.integration.fields import disc_labels
from tests.oracles import watershed as oracle

Fields = npt.NDArray[np.float16]
Labels = npt.NDArray[np.uint32]

STORE = "memory://watershed"
TARGET = ArrayRef(store=STORE, path="labels")
RULES = (
    WatershedConfig(window=5, holes=6, opening=1, min_size=3),
    WatershedConfig(window=3, holes=0, opening=0, min_size=0),
    WatershedConfig(window=7, holes=40, opening=2, edge=0.0, min_size=5, max_size=60),
    WatershedConfig(window=9, holes=3, opening=1, edge=-1.0, min_size=4),
)


def maps_of(labels: npt.NDArray[np.integer]) -> Fields:
    """v, h, m."""
    return maps_from_labels(labels)[[1, 0, 2]].astype(np.float16)


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    return np.stack([rng.uniform(-1, 1, shape), rng.uniform(-1, 1, shape), rng.uniform(0, 1.6, shape)]).astype(
        np.float16
    )


def _steps(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    """Few values, so that plateaus and ties are everywhere."""
    fields = rng.integers(-1, 2, (3, *shape)).astype(np.float16)
    fields[2] = rng.random(shape) < 0.8
    return fields


def _flat(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = np.zeros((3, *shape), np.float16)
    fields[2] = rng.random(shape) < rng.choice([0.5, 0.6, 0.95])
    return fields


def _discs(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = maps_of(disc_labels(shape, 12, int(rng.integers(1 << 30)), (2, 11))).astype(np.float32)
    fields[:2] += rng.normal(0, 0.2, (2, *shape))
    fields[2] -= rng.random(shape) < 0.05
    return fields.astype(np.float16)


def _snake(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    """One piece of foreground that goes through every block, with few markers."""
    fields = np.zeros((3, *shape), np.float16)
    fields[2, ::2] = 1
    fields[2, 1::4, -1:] = fields[2, 3::4, :1] = 1
    fields[:2] = rng.choice([-0.5, 0.5], (2, *shape)) if rng.random() < 0.5 else 0
    return fields


@st.composite
def any_maps(draw: st.DrawFn, largest: int = 40) -> Fields:
    shape = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    kind = draw(st.sampled_from([_noise, _steps, _flat, _discs, _snake]))
    return kind(shape, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))


def finished_run(
    fields: Fields, config: WatershedConfig, block: tuple[int, int], engine: str = "serial"
) -> tuple[Plan[BlockTask], list[Json], ObjectMap, Labels]:
    shape = fields.shape[1:]
    source, scratch = ArrayRef(store=STORE, path="fields"), ArrayRef(store=STORE, path="scratch")
    create_array(source, shape=fields.shape, chunks=(3, *block), dtype=np.float16)[:] = fields
    create_array(TARGET, shape=shape, chunks=block, dtype=np.uint32)
    create_scratch(scratch, shape, block)
    opened = open_engine(engine, 2)
    try:
        outline = plan_flood(source, scratch, STORE, config, block=block)
        outcome = run_plan(outline, opened)
        objects = merge_basins(outline)
        run_plan(plan_relabel(outline, TARGET), opened)
    finally:
        opened.close()
    return outline, outcome, objects, np.asarray(open_array(TARGET)[:])


@settings(max_examples=60, deadline=None)
@given(fields=any_maps(26), config=st.sampled_from(RULES))
def test_labels_are_those_of_the_slow_twin(fields, config):
    np.testing.assert_array_equal(hover_labels(fields, config), oracle.hover_labels(fields, config))


BLOCKS = [(1, 1000), (7, 7), (1000, 1), (16, 5), (3, 8), (64, 64)]


@settings(max_examples=50, deadline=None)
@given(fields=any_maps(), config=st.sampled_from(RULES), block=st.sampled_from(BLOCKS))
def test_blocks_do_not_show(fields, config, block):
    *_, objects, labels = finished_run(fields, config, block)
    expected = hover_labels(fields, config)
    np.testing.assert_array_equal(labels, expected)
    check(objects, expected)


@pytest.mark.nightly
@settings(max_examples=400, deadline=None)
@given(fields=any_maps(90), config=st.sampled_from(RULES), block=st.sampled_from([*BLOCKS, (31, 17), (8, 45)]))
def test_blocks_do_not_show_in_larger_images(fields, config, block):
    np.testing.assert_array_equal(finished_run(fields, config, block)[-1], hover_labels(fields, config))


def check(objects: ObjectMap, expected: Labels) -> None:
    assert objects.area.tolist() == np.bincount(expected.ravel())[1:].tolist()
    for number, (first, box) in enumerate(zip(objects.first, objects.box, strict=True), start=1):
        y, x = np.nonzero(expected == number)
        assert first == y[0] * expected.shape[1] + x[0]
        assert box.tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]


@settings(max_examples=20, deadline=None)
@given(fields=any_maps(48), block=st.sampled_from([(16, 16), (48, 8), (100, 100)]), seed=st.integers(0, 99))
def test_a_window_of_any_run_agrees_with_what_was_stored(fields, block, seed):
    outline, outcome, objects, _ = finished_run(fields, RULES[0], block)
    record = audit_floods(outline, outcome, objects, TARGET, windows=4, size=40, seed=seed)
    assert record.crossing == objects.crossing
    assert record.windows == 4
