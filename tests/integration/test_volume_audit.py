"""The seam audit of volumes: silent on what the plans wrote, loud on every kind of damage."""

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
from sketchscale.integration.audit import audit_seams
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import BlockTask, create_scratch, merge_blocks, plan_outline, plan_relabel
from sketchscale.io.arrays import ArrayRef, create_array, open_array
from tests.integration.volumes import Fields, any_volume, ellipsoid_labels, space_rule, volume_fields_of

STORE = "memory://integration-volume-audit"
TARGET = ArrayRef(store=STORE, path="labels")


def finished_run(
    fields: Fields, block: tuple[int, int, int], config: IntegrationConfig
) -> tuple[Plan[BlockTask], list[Json], ObjectMap]:
    source, scratch = ArrayRef(store=STORE, path="fields"), ArrayRef(store=STORE, path="scratch")
    create_array(source, shape=fields.shape, chunks=(4, *block), dtype=np.float16)[:] = fields
    create_array(TARGET, shape=fields.shape[1:], chunks=block, dtype=np.uint32)
    create_scratch(scratch, fields.shape[1:], block)
    outline = plan_outline(source, scratch, STORE, config, block=block)
    outcome = run_plan(outline, open_engine("serial"))
    objects = merge_blocks(outline)
    run_plan(plan_relabel(outline, TARGET), open_engine("serial"))
    return outline, outcome, objects


@settings(max_examples=25, deadline=None)
@given(
    fields=any_volume(24),
    block=st.sampled_from([(12, 12, 12), (24, 8, 16), (40, 40, 40)]),
    crowd=st.sampled_from([1, 3, 8]),
    seed=st.integers(0, 99),
)
def test_a_window_of_any_run_agrees_with_what_was_stored(fields, block, crowd, seed):
    outline, outcome, objects = finished_run(fields, block, space_rule(threshold=-2.0, min_size=9, crowd=crowd))
    record = audit_seams(outline, outcome, objects, TARGET, windows=3, size=20, seed=seed)
    assert (record.crossing, record.windows) == (objects.crossing, 3)
    assert record.farthest <= record.reach


def drawn() -> Fields:
    return volume_fields_of(ellipsoid_labels((48, 48, 48), 30, seed=2, radius=(4, 6)))


def test_the_record_says_what_was_compared():
    outline, outcome, objects = finished_run(drawn(), (24, 24, 24), space_rule(threshold=-2.0))
    record = audit_seams(outline, outcome, objects, TARGET, windows=3, size=40)
    assert (record.blocks, record.halo, record.pixels) == (8, 15, 3 * 40**3)
    assert record.objects > 10
    assert record.crossing > 5
    assert audit_seams(outline, outcome, objects, TARGET, windows=0).pixels == 0
    with pytest.raises(InputError, match="audit windows"):
        audit_seams(outline, outcome, objects, TARGET, windows=-1)


def joined(labels: npt.NDArray[np.uint32]) -> None:
    labels[labels == labels.max()] = 1


def cut(labels: npt.NDArray[np.uint32]) -> None:
    labels[23:25] = 0


def grown(labels: npt.NDArray[np.uint32]) -> None:
    labels[labels == 0] = 1


@pytest.mark.parametrize("damage", [joined, cut, grown])
def test_damaged_labels_fail_the_audit(damage: Callable[[npt.NDArray[np.uint32]], None]):
    outline, outcome, objects = finished_run(drawn(), (24, 24, 24), space_rule(threshold=-2.0))
    labels = np.asarray(open_array(TARGET)[:])
    damage(labels)
    open_array(TARGET, read_only=False)[:] = labels
    with pytest.raises(QualityError, match="seam audit, window"):
        audit_seams(outline, outcome, objects, TARGET, windows=2, size=48)
