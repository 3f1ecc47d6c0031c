"""Run a study: train when asked, then segment, measure and classify every image, count, and write the report.

Every step can be resumed, and so can a study: with resume, finished steps are skipped. An image that fails does not
stop the others; it is listed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sketchscale.config import ClassifyOptions, Execution, SegmentOptions, Study, TrainOptions
from sketchscale.engine.base import Event
from sketchscale.errors import InputError, SetupError, SketchscaleError
from sketchscale.io.stores.addresses import is_local
from sketchscale.objects.annotation.examples import read_marks
from sketchscale.workflow.classify.apply import apply_classes, train_classes
from sketchscale.workflow.images import expand
from sketchscale.workflow.measure.count import count
from sketchscale.workflow.measure.measure import measure
from sketchscale.workflow.report.report import write_report
from sketchscale.workflow.runner import StageLine, keep_engines, quiet
from sketchscale.workflow.segment.segment import plan_segment, segment
from sketchscale.workflow.train.train import train
from sketchscale.workflow.verbs import share_of, verb

__all__ = ["plan_study", "run_study"]


def plan_study(study: Study, path: str) -> tuple[StageLine, ...]:
    """Return the stages of every image, with the existing model; nothing is written.

    Raises:
        MissingDataError: the model is not trained yet.
    """
    base = Path(path).parent
    options = _segment_options(study, base)
    return tuple(s for image in _images(study, base) for s in plan_segment(image, options, study.execution))


@verb()
def run_study(
    study: Study,
    path: str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    on_event: Callable[[Event], None] = quiet,
    say: Callable[[str], None] = lambda line: None,
    cancel: threading.Event | None = None,
) -> dict[str, Any]:
    """Run a study.

    Args:
        path: of the study file; names in it are relative to its folder.
        resume, overwrite: as for each step.

    Returns:
        Counts per image and class, failed images, path of the report.

    Raises:
        SketchscaleError: training failed, or every image did.
    """
    base = Path(path).parent
    execution = replace(study.execution, resume=resume, overwrite=overwrite)
    images = _images(study, base)
    parts = (study.train is not None) + len(images) * (2 + (study.classify is not None))
    listeners = (share_of(on_event, part, parts) for part in itertools.count())
    if study.train is not None:
        _train(study.train, base, execution, say, next(listeners))
    options = _segment_options(study, base)
    done, failed = [], []
    with keep_engines():
        for i, image in enumerate(images):
            say(f"{i + 1} of {len(images)}: {image}")
            try:
                if unknown := segment(image, options, execution, next(listeners)).warning:
                    say(f"warning: {unknown}")
                measure(image, options.labels, execution, next(listeners))
                done.append(image)
            except SetupError:  # store or cluster: every other image would fail too
                raise
            except SketchscaleError as error:
                say(f"error: {image}: {error}")
                failed.append((image, error))
    if not done:
        raise failed[-1][1]
    if study.classify is not None:
        _classify(study.classify, base, done, options.labels, execution, listeners, say)
    rows = [row for image in done for row in count(image, options.labels)]
    title = study.report.title or study.study.name
    model = options.model if study.train is not None else None
    page = str(base / study.report.out)
    report = write_report(done, options.labels, page, title=title, model=model, overwrite=resume or overwrite)
    return {"counts": rows, "failed": [image for image, _ in failed], "report": report}


def _images(study: Study, base: Path) -> list[str]:
    return expand([_resolved(base, name) for name in study.study.images])


def _resolved(base: Path, name: str) -> str:
    return str(base / name) if is_local(name) else name


def _segment_options(study: Study, base: Path) -> SegmentOptions:
    """Return the options with the model: the one trained here, a folder next to the study file, or a shipped name."""
    name = study.train.out if study.train is not None else study.segment.model
    local = base / name
    model = str(local) if study.train is not None or local.is_dir() else name
    return replace(study.segment, model=model)


def _train(
    options: TrainOptions,
    base: Path,
    execution: Execution,
    say: Callable[[str], None],
    on_event: Callable[[Event], None],
) -> None:
    out = base / options.out
    if execution.resume and (out / "config.json").is_file():
        say(f"train: {out} is there")
        return
    placed = replace(
        options,
        out=str(out),
        images=tuple(_resolved(base, name) for name in options.images),
        sketches=tuple(str(base / name) for name in options.sketches),
        validate=tuple(_resolved(base, name) for name in options.validate),
        validate_sketches=tuple(str(base / name) for name in options.validate_sketches),
        synthetic=tuple(_resolved(base, name) for name in options.synthetic),
        init=str(base / options.init) if options.init and (base / options.init).exists() else options.init,
    )
    say(train(placed, execution, on_step=say, on_event=on_event).summary)


def _classify(
    options: ClassifyOptions,
    base: Path,
    images: list[str],
    labels: str,
    execution: Execution,
    listeners: Iterator[Callable[[Event], None]],
    say: Callable[[str], None],
) -> None:
    """Train on annotated objects (of the first image where they name none), or take a classifier; apply it to all."""
    if options.classifier is None and options.annotations is None:
        raise InputError("[classify] names neither annotations nor a classifier; expected: one of them")
    folder = base / (options.classifier or "classes")
    if options.annotations is not None and not (execution.resume and folder.is_dir()):
        marks = str(base / options.annotations)
        result = train_classes(
            images if any(mark.image for mark in read_marks(marks)) else images[:1],
            labels,
            marks,
            str(folder),
            replace(options, init=str(base / options.init)) if options.init else options,
            overwrite=execution.overwrite,
        )
        say(result.summary)
    with keep_engines():
        for image in images:
            apply_classes(
                image, labels, str(folder), execution, next(listeners), masks=options.masks, precision=options.precision
            )
