"""Cancelled in the middle and resumed: the bytes of a run that nobody disturbed; and how far a verb says that it is."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sketchscale.annotations.events import Stroke, append_events
from sketchscale.config import Execution, SegmentOptions, TrainOptions
from sketchscale.engine.base import Event
from sketchscale.errors import Cancelled
from sketchscale.io.files.convert import ConvertConfig
from sketchscale.workflow.classify.apply import apply_classes, train_classes
from sketchscale.workflow.convert import convert_images
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.segment.segment import segment
from sketchscale.workflow.train.train import train
from sketchscale.workflow.verbs import share_of
from tests.pipeline import draw_nuclei
from tests.workflow.finished import annotate, files_of, options

SHAPE = (130, 200)
Verb = Callable[..., Any]


class Listener:
    """Notes fractions, and sets the event at the n-th finished task of a stage."""

    def __init__(self, stage: str = "", number: int = 0) -> None:
        self.stage, self.left, self.cancel = stage, number, threading.Event()
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if (event.stage, event.kind) == (self.stage, "done"):
            self.left -= 1
            if self.left == 0:
                self.cancel.set()

    def check(self, least: int = 2) -> None:
        fractions = [event.fraction for event in self.events]
        assert all(0 <= (a or 0) <= (b or 0) <= 1 for a, b in pairwise(fractions))
        assert (self.events[-1].kind, fractions[-1]) == ("finished", 1.0)
        assert len(set(fractions)) >= least


def interrupted(verb: Verb, stage: str, number: int) -> None:
    """Cancel a verb in a stage; then let it go on."""
    once = Listener(stage, number)
    with pytest.raises(Cancelled, match="run again with --resume"):
        verb(once, once.cancel, False)
    assert [e.kind for e in once.events].count("finished") == 0
    again = Listener()
    verb(again, again.cancel, True)
    again.check()


def run_twice(verb: Callable[[Path], Verb], stage: str, number: int, folders: Sequence[Path]) -> None:
    """In the first folder in one go, in the second cancelled and resumed: the same files, but for records of runs."""
    whole = Listener()
    verb(folders[0])(whole, whole.cancel, False)
    whole.check(least=5)
    interrupted(verb(folders[1]), stage, number)
    first, second = (
        {name: data for name, data in files_of(folder).items() if ".sketchscale" not in name} for folder in folders
    )
    assert first == second


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two with the same picture."""
    made = [tmp_path / name for name in ("whole", "halves")]
    for folder in made:
        folder.mkdir()
        np.save(folder / "image.npy", draw_nuclei(SHAPE))
    return made


def execution(resume: bool, **more: Any) -> Execution:
    return Execution(engine="threads", workers=1, block=64, resume=resume, **more)


def convert(folder: Path) -> Verb:
    def work(on_event: Any, cancel: threading.Event, resume: bool) -> None:
        config = ConvertConfig(chunk=64, levels=3, block=64)
        source, target = str(folder / "image.npy"), str(folder / "image.zarr")
        convert_images(source, target, config, execution(resume), on_event, cancel=cancel)

    return work


def test_convert_goes_on_after_it_was_cancelled(folders: list[Path]) -> None:
    run_twice(convert, "pixels", 3, folders)


@pytest.fixture
def images(folders: list[Path]) -> list[Path]:
    for folder in folders:
        convert(folder)(lambda event: None, threading.Event(), False)
    return twins(folders)


def twins(folders: list[Path]) -> list[Path]:
    """Make the second image a copy of the first, with its times, which identify it."""
    shutil.rmtree(folders[1] / "image.zarr")
    shutil.copytree(folders[0] / "image.zarr", folders[1] / "image.zarr", copy_function=shutil.copy2)
    return folders


@pytest.mark.parametrize("stage", ["predict", "relabel"])
def test_segment_goes_on_after_it_was_cancelled(images: list[Path], model: str, stage: str) -> None:
    def outline(folder: Path) -> Verb:
        return lambda on_event, cancel, resume: segment(
            str(folder / "image.zarr"), options(model), execution(resume), on_event, cancel=cancel
        )

    run_twice(outline, stage, 2, images)


def test_measure_and_classify_go_on_after_they_were_cancelled(images: list[Path], model: str, tmp_path: Path) -> None:
    for folder in images:
        segment(str(folder / "image.zarr"), options(model), execution(False))

    def measured(folder: Path) -> Verb:
        return lambda on_event, cancel, resume: measure(
            str(folder / "image.zarr"), "nuclei", execution(resume), on_event, cancel=cancel
        )

    run_twice(measured, "measure", 2, images)
    image, marks = str(images[0] / "image.zarr"), annotate(str(images[0] / "image.zarr"), tmp_path / "marks.csv")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        train_classes(image, "nuclei", marks, str(tmp_path / "classes"), cancel=stop)
    assert not (tmp_path / "classes").exists()
    train_classes(image, "nuclei", marks, str(tmp_path / "classes"), cancel=threading.Event())

    def classified(folder: Path) -> Verb:
        return lambda on_event, cancel, resume: apply_classes(
            str(folder / "image.zarr"),
            "nuclei",
            str(tmp_path / "classes"),
            execution(resume),
            on_event,
            masks=True,
            cancel=cancel,
        )

    run_twice(classified, "class-image", 1, twins(images))


def test_train_goes_on_after_it_was_cancelled(images: list[Path], tmp_path: Path) -> None:
    sketch = tmp_path / "sketch.jsonl"
    rows = [("foreground", 30), ("boundary", 34), ("background", 38)]
    append_events(
        sketch,
        [
            Stroke(points=((y, 20), (y, 90)), radius_px=3, label=label, id=label)  # type: ignore[arg-type]
            for label, y in rows
        ],
    )
    wanted = TrainOptions(
        images=(str(images[0] / "image.zarr"),),
        sketches=(str(sketch),),
        steps=8,
        width=8,
        batch=2,
        patch=64,
        precision="float32",
        compile="off",
        threads=1,
        preview_every=0,
    )

    def trained(folder: Path) -> Verb:
        return lambda on_event, cancel, resume: train(
            replace(wanted, out=str(folder / "model")), execution(resume), on_event=on_event, cancel=cancel
        )

    whole = Listener()
    trained(images[0])(whole, whole.cancel, False)
    whole.check(least=5)
    interrupted(trained(images[1]), "train", 3)
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in images]
    assert weights[0] == weights[1]


def test_a_job_that_is_cancelled_before_it_starts_writes_nothing(images: list[Path], model: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        segment(str(images[0] / "image.zarr"), SegmentOptions(model=model), execution(False), cancel=stop)
    assert not (images[0] / "image.zarr" / "labels").exists()


def test_a_verb_of_several_parts_says_once_that_it_is_finished() -> None:
    heard = Listener()
    for part in range(2):
        tell = share_of(heard, part, 2)
        tell(Event(kind="done", stage="predict", done=1, total=2, fraction=0.5))
        tell(Event(kind="finished", stage="", fraction=1.0))
    assert [(event.kind, event.fraction) for event in heard.events] == [("done", 0.25), ("done", 0.75)]
