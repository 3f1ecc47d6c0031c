"""The public function that runs a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sketchscale.config import Study, load_study
from sketchscale.engine.base import Event
from sketchscale.workflow.runner import quiet
from sketchscale.workflow.study import run_study

__all__ = ["run"]


def run(
    study: str | Path | Study,
    path: str | Path | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    on_event: Callable[[Event], None] = quiet,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train, segment, measure, classify, count and report, as described by a study file.

    Args:
        study: the file; or its content, with its `path`, because names in it are relative to its folder.
        overrides: of keys of the file, as in "segment.min_size=30".
        resume: skip what an interrupted run finished.
        overwrite: replace existing output.
        say: called with a line of text now and then.

    Returns:
        Counts per image and class, failed images, path of the report.

    Raises:
        InputError: names the file and the key.
        SketchscaleError: training failed, or every image did.
    """
    place = str(study) if path is None else str(path)
    settings = study if isinstance(study, Study) else load_study(study, overrides)
    return run_study(settings, place, resume=resume, overwrite=overwrite, on_event=on_event, say=say)
