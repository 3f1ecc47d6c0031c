"""Holes and flow errors: as the obvious way has it, and the same for every block."""

from __future__ import annotations

import uuid

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import create_scratch, integrate, merge_blocks, plan_outline, plan_relabel
from sketchscale.integration.refine import RefineConfig, flow_error, refine_labels
from sketchscale.integration.refine_plan import Refined, number_refined, plan_finish, plan_inspect
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, read_box, write_box
from tests.integration.fields import disc_labels, ellipsoid_labels, fields_of, planes_and_volumes, spiral_labels
from tests.oracles.refine import error_of, refine_whole

CONFIG = IntegrationConfig(threshold=-1.0, min_size=4)
shares = st.sampled_from([None, 0.0, 0.03, 0.3, 10.0])
limits = st.sampled_from([None, 0.0, 0.1, 0.4, 1.0, 4.0])


def store_fields(store: str, fields: npt.NDArray[np.float16]) -> ArrayRef:
    ref = ArrayRef(store=store, path="fields")
    create_array(
        ref, shape=fields.shape, chunks=(len(fields), *(8,) * (fields.ndim - 1)), dtype="float16", compress=False
    )
    write_box(ref, whole(fields.shape), fields)
    return ref


def refine_stored(
    fields: npt.NDArray[np.float16], refine: RefineConfig, block: tuple[int, ...], engine: str = "serial"
) -> tuple[npt.NDArray[np.uint32], Refined]:
    """All stages from stored fields to refined labels."""
    shape, store = fields.shape[1:], f"memory://refine-{uuid.uuid4()}"
    refs = {name: ArrayRef(store=store, path=name) for name in ("provisional", "merged", "labels")}
    stored = store_fields(store, fields)
    for name in ("merged", "labels"):
        create_array(refs[name], shape=shape, chunks=block, dtype="uint32")
    create_scratch(refs["provisional"], shape, block)
    outline = plan_outline(stored, refs["provisional"], store, CONFIG, block=block)
    running = open_engine(engine, 2)
    run_plan(outline, running)
    objects = merge_blocks(outline)
    run_plan(plan_relabel(outline, refs["merged"], stage="join"), running)
    inspect = plan_inspect(outline, objects, refs["merged"], refine)
    run_plan(inspect, running)
    refined = number_refined(inspect, objects)
    run_plan(plan_finish(outline, refs["labels"]), running)
    running.close()
    return read_box(refs["labels"], whole(shape)), refined


def pierced_discs(seed: int) -> npt.NDArray[np.float16]:
    """Discs with holes, some of whose flow points nowhere sensible."""
    rng = np.random.default_rng(seed)
    fields = fields_of(disc_labels((48, 40), 7, seed, radius=(4, 12))).astype(np.float32)
    pierced = rng.random((48, 40)) < 0.02
    pierced |= np.roll(pierced, 1, 0) & (rng.random((48, 40)) < 0.5)
    fields[2, pierced] = -5
    wrong = disc_labels((48, 40), 2, seed + 1, radius=(5, 12)) > 0
    fields[:2, wrong] = rng.normal(size=(2, int(wrong.sum())))
    return fields.astype(np.float16)


def pierced_balls(seed: int) -> npt.NDArray[np.float16]:
    """The same of balls, with cavities in them."""
    rng, shape = np.random.default_rng(seed), (12, 20, 18)
    fields = fields_of(ellipsoid_labels(shape, 4, seed, radius=(3, 6))).astype(np.float32)
    fields[3, rng.random(shape) < 0.02] = -5
    wrong = ellipsoid_labels(shape, 1, seed + 1, radius=(3, 6)) > 0
    fields[:3, wrong] = rng.normal(size=(3, int(wrong.sum())))
    return fields.astype(np.float16)


anything = st.one_of(
    planes_and_volumes(48, 14),
    st.builds(pierced_discs, st.integers(0, 500)),
    st.builds(pierced_balls, st.integers(0, 500)),
)


@settings(max_examples=40, deadline=None)
@given(fields=anything, share=shares, limit=limits)
def test_refinement_is_what_flooding_and_loops_give(
    fields: npt.NDArray[np.float16], share: float | None, limit: float | None
) -> None:
    labels = integrate(fields, CONFIG)
    found = refine_labels(labels, fields, RefineConfig(fill_holes=share, flow_error=limit))
    # a threshold that an error meets to the last digit may fall either way, the errors are compared below
    if limit is None or all(abs(error_of(found == k, fields) - limit) > 1e-6 for k in range(1, found.max() + 1)):
        np.testing.assert_array_equal(found, refine_whole(labels, fields, share, limit))


@settings(max_examples=20, deadline=None)
@given(fields=anything, share=shares, limit=limits, block=st.tuples(*[st.integers(1, 4)] * 3))
def test_any_block_gives_the_labels_of_the_whole(
    fields: npt.NDArray[np.float16],
    share: float | None,
    limit: float | None,
    block: tuple[int, ...],
) -> None:
    refine = RefineConfig(fill_holes=share, flow_error=limit)
    sides = tuple(8 * n for n in block[: fields.ndim - 1])
    found, refined = refine_stored(fields, refine, sides)
    np.testing.assert_array_equal(found, refine_labels(integrate(fields, CONFIG), fields, refine))
    assert refined.count == found.max(initial=0)


def test_an_object_over_many_blocks_is_judged_whole() -> None:
    fields = fields_of(spiral_labels(120))
    for limit, count in ((0.2, 1), (1e-9, 0)):
        found, refined = refine_stored(fields, RefineConfig(flow_error=limit), (40, 40), "threads")
        assert (found.max(), refined.dropped) == (count, 1 - count)


def test_a_hole_as_large_as_a_block_is_filled_from_the_block_of_the_first_pixel() -> None:
    fields = np.zeros((3, 40, 40), np.float16)
    fields[2, 2:38, 2:38], fields[2, 0:2] = 3, -5
    fields[2, :, 0:2] = fields[2, 38:] = fields[2, :, 38:] = -5
    fields[2, 6:34, 6:34] = -5
    for share, area in ((10.0, 36 * 36), (0.5, 36 * 36 - 28 * 28)):
        found, _ = refine_stored(fields, RefineConfig(fill_holes=share), (16, 16))
        assert (found == 1).sum() == area


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_cavity_is_filled_and_a_tunnel_to_the_border_of_the_volume_is_not(axis: int) -> None:
    labels = np.zeros((9, 9, 9), np.uint32)
    labels[:, 2:7, 2:7] = 1
    cavity, tunnel = labels.copy(), labels.copy()
    cavity[3:6, 4, 4], tunnel[:, 4, 4] = 0, 0
    for drawn, filled in ((cavity, True), (tunnel, False)):
        turned = np.moveaxis(drawn, 0, axis)
        found = refine_labels(turned, np.zeros((4, 9, 9, 9), np.float16), RefineConfig(fill_holes=0.5))
        np.testing.assert_array_equal(found, np.moveaxis(labels if filled else drawn, 0, axis))


def test_thresholds_of_zero_are_values() -> None:
    fields = pierced_discs(3)
    labels = integrate(fields, CONFIG)
    assert refine_labels(labels, fields, RefineConfig(flow_error=0)).max() == 0 < labels.max()
    np.testing.assert_array_equal(refine_labels(labels, fields, RefineConfig(fill_holes=0)), labels)
    assert refine_labels(labels, fields, RefineConfig()) is labels


def test_a_good_mask_has_no_error_and_a_wrong_one_has_a_large_one() -> None:
    labels = disc_labels((40, 40), 1, 5, radius=(9, 9))
    mask = np.pad(labels > 0, 3)
    flow = np.pad(fields_of(labels)[:2].astype(np.float32), ((0, 0), (3, 3), (3, 3)))
    assert flow_error(mask, flow) < 0.02
    assert 3.9 < flow_error(mask, -flow) <= 4
    assert flow_error(np.ones((5, 5), bool), flow[:, :5, :5]) == 0


@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_values_that_are_no_limits_are_refused(wrong: float) -> None:
    for name in ("fill_holes", "flow_error"):
        with pytest.raises(InputError, match="at least 0"):
            RefineConfig(**{name: wrong})
