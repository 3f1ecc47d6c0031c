"""`--scratch`: the arrays between stages lie elsewhere, and nothing of the result knows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine.base import Event
from sketchscale.errors import ResumeError
from sketchscale.io.stores.blobs import list_blobs
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.segment.segment import segment
from tests.cluster.results import results_of
from tests.pipeline import draw_nuclei, store_image

pytestmark = pytest.mark.slow


def stop_after(stage: str) -> Callable[[Event], None]:
    """Progress that ends the run, as Ctrl-C does, when this stage has ended."""

    def on_event(event: Event) -> None:
        if (event.stage, event.kind) == (stage, "end"):
            raise KeyboardInterrupt

    return on_event


def resumed(execution: Execution) -> Execution:
    return replace(execution, resume=True)


def test_results_do_not_know_where_the_scratch_was(tmp_path: Path, model: str) -> None:
    found = []
    for name, scratch in (("beside", None), ("folder", str(tmp_path / "fast")), ("memory", "memory://scratch-test")):
        image = store_image(tmp_path / name, draw_nuclei((200, 330)))
        execution = Execution(engine="serial", block=128, scratch=scratch)
        segment(image, SegmentOptions(model=model, fill_holes=0.2), execution)
        measure(image, "nuclei", execution)
        found.append(results_of(image))
        if scratch is not None:
            assert not list_blobs(scratch, "")
        assert not list_blobs(image, ".sketchscale/segment-nuclei/scratch")
    assert found[0] == found[1] == found[2]


def test_the_arrays_are_in_the_scratch_and_a_resumed_run_finds_them(image: str, model: str, tmp_path: Path) -> None:
    execution = Execution(engine="serial", block=128, scratch=str(tmp_path / "fast"))
    with pytest.raises(KeyboardInterrupt):
        segment(image, SegmentOptions(model=model), execution, stop_after("blend"))
    assert {key.split("/")[1] for key in list_blobs(str(tmp_path / "fast"), "")} >= {"tiles-yx", "fields"}
    assert not list_blobs(image, ".sketchscale/segment-nuclei/scratch")
    with pytest.raises(ResumeError, match=re.escape(f"--scratch {tmp_path / 'fast'}")):
        segment(image, SegmentOptions(model=model), Execution(engine="serial", block=128, resume=True))
    assert segment(image, SegmentOptions(model=model), resumed(execution)).n > 20
    assert not list_blobs(str(tmp_path / "fast"), "")


def test_two_images_share_a_scratch_and_do_not_meet(tmp_path: Path, model: str) -> None:
    execution = Execution(engine="serial", block=128, scratch=str(tmp_path / "fast"))
    first, second = (store_image(tmp_path / name, draw_nuclei((200, 330), seed)) for seed, name in enumerate("ab"))
    with pytest.raises(KeyboardInterrupt):
        segment(first, SegmentOptions(model=model), execution, stop_after("blend"))
    alone = store_image(tmp_path / "alone", draw_nuclei((200, 330), 0))
    segment(second, SegmentOptions(model=model), execution)
    segment(first, SegmentOptions(model=model), resumed(execution))
    segment(alone, SegmentOptions(model=model), Execution(engine="serial", block=128))
    assert results_of(first) == results_of(alone) != results_of(second)


def test_arrays_in_the_scratch_of_a_failed_measurement_go_with_its_run(image: str, model: str, tmp_path: Path) -> None:
    segment(image, SegmentOptions(model=model), Execution(engine="serial"))
    execution = Execution(engine="serial", block=128, scratch=str(tmp_path / "fast"))
    with pytest.raises(KeyboardInterrupt):
        measure(image, "nuclei", execution, stop_after("measure"))
    assert list_blobs(str(tmp_path / "fast"), "")
    measure(image, "nuclei", resumed(execution))
    assert not list_blobs(str(tmp_path / "fast"), "")
