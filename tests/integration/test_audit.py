"""The seam audit: silent on what the plans wrote, loud on every kind of damage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine import open_engine
from sketchscale.engine.base import Json, Plan, run_plan
from sketchscale.errors import InputError, QualityError
from sketchscale.integration.audit import _certain_components, audit_seams
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.merge import BlockObjects, ObjectMap
from sketchscale.integration.plan import BlockTask, create_scratch, merge_blocks, plan_outline, plan_relabel
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from tests.integration.fields import Fields, disc_labels, ellipsoid_labels, fields_of, planes_and_volumes, rule

STORE = "memory://integration-audit"
TARGET = ArrayRef(store=STORE, path="labels")
Labels = npt.NDArray[np.uint32]


def finished_run(
    fields: Fields, block: tuple[int, ...], config: IntegrationConfig
) -> tuple[Plan[BlockTask], list[Json], ObjectMap]:
    source, scratch = ArrayRef(store=STORE, path="fields"), ArrayRef(store=STORE, path="scratch")
    create_array(source, shape=fields.shape, chunks=(len(fields), *block), dtype=np.float16)[:] = fields
    create_array(TARGET, shape=fields.shape[1:], chunks=block, dtype=np.uint32)
    create_scratch(scratch, fields.shape[1:], block)
    serial = open_engine("serial")
    outline = plan_outline(source, scratch, STORE, config, block=block)
    outcome = run_plan(outline, serial)
    objects = merge_blocks(outline)
    run_plan(plan_relabel(outline, TARGET), serial)
    return outline, outcome, objects


@settings(max_examples=40, deadline=None)
@given(
    fields=planes_and_volumes(48, 24),
    block=st.sampled_from([(12, 16, 16), (24, 48, 8), (100, 100, 100)]),
    seed=st.integers(0, 99),
    share=st.sampled_from([None, 0.3]),
    crowd=st.sampled_from([1, 3, 8]),
)
def test_a_window_of_any_run_agrees_with_what_was_stored(fields, block, seed, share, crowd):
    axes = fields.ndim - 1
    config = rule(axes, min_size=9, join_share=share, crowd=crowd)
    outline, outcome, objects = finished_run(fields, block[-axes:], config)
    record = audit_seams(outline, outcome, objects, TARGET, windows=4, size=40 if axes == 2 else 20, seed=seed)
    assert record.crossing == objects.crossing
    assert record.windows == 4
    assert record.farthest <= record.reach


def drawn(axes: int) -> Fields:
    if axes == 2:
        return fields_of(disc_labels((128, 128), 40, seed=2))
    return fields_of(ellipsoid_labels((48, 48, 48), 30, seed=2, radius=(4, 6)))


@pytest.mark.parametrize(("axes", "block", "size", "halo"), [(2, 32, 96, 14), (3, 24, 40, 15)])
def test_the_record_says_what_was_compared(axes: int, block: int, size: int, halo: int):
    fields = drawn(axes)
    outline, outcome, objects = finished_run(fields, (block,) * axes, rule(axes))
    record = audit_seams(outline, outcome, objects, TARGET, windows=4, size=size)
    assert (record.blocks, record.halo, record.pixels) == (len(outline.tasks), halo, 4 * size**axes)
    assert record.objects > 10
    assert record.crossing > 5
    assert 1 < record.farthest <= 6


def test_a_closed_piece_is_certain_when_no_open_one_can_be_joined_with_it():
    """Pieces 1 and 2 closed, 3 open: joining needs the flow or the ends for it; a border of closed pieces is whole."""
    for vote, near, certain in ((-1, -1, True), (0, 0, True), (1, -1, False), (-1, 1, False)):
        pairs = {
            "pair": np.array([[1, 2], [2, 3]], np.int32),
            "pairs": np.ones(2, np.int64),
            "saddle": np.zeros(2, np.float32),
        }
        votes = {"vote": np.array([9, vote]), "near": np.array([9, near])}
        none = {name: np.empty(0) for name in ("area", "first", "box", "shared", "shared_id", "peak")}
        closed = np.array([True, True, False])
        assert _certain_components(closed, BlockObjects.of(none | pairs | votes)).tolist() == [True, certain, False]


def split(labels: Labels) -> None:
    middle = len(labels) // 2
    label = np.intersect1d(labels[middle - 1], labels[middle]).max()
    labels[:middle][labels[:middle] == label] = 1


def joined(labels: Labels) -> None:
    labels[labels == labels.max()] = 1


def cut(labels: Labels) -> None:
    labels[len(labels) // 2 - 1 : len(labels) // 2 + 1] = 0


def grown(labels: Labels) -> None:
    labels[labels == 0] = 1


def swapped(labels: Labels) -> None:
    labels[labels > 0] = labels.max() + 1 - labels[labels > 0]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("damage", [split, joined, cut, grown, swapped])
def test_damaged_labels_fail_the_audit(damage: Callable[[Labels], None], axes: int):
    fields = drawn(axes)
    outline, outcome, objects = finished_run(fields, (fields.shape[1] // 2,) * axes, rule(axes))
    labels = np.asarray(open_array(TARGET)[:])
    damage(labels)
    open_array(TARGET, read_only=False)[:] = labels
    with pytest.raises(QualityError, match="seam audit, window"):
        audit_seams(outline, outcome, objects, TARGET, windows=4, size=fields.shape[1])


def test_no_windows_only_collect_figures_and_negative_ones_are_refused():
    outline, outcome, objects = finished_run(np.zeros((3, 8, 8), np.float16), (8, 8), IntegrationConfig(threshold=0.0))
    assert audit_seams(outline, outcome, objects, TARGET, windows=0).pixels == 0
    with pytest.raises(InputError, match="audit windows"):
        audit_seams(outline, outcome, objects, TARGET, windows=-1)
