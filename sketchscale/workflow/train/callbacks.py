"""What is done beside the steps of a training: words, pictures, new strokes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sketchscale.annotations.sketch import RasterSketch
from sketchscale.errors import InputError
from sketchscale.io.stores.blobs import put_blob
from sketchscale.reports.training import draw_curve, draw_preview
from sketchscale.training.checks import check_images
from sketchscale.training.config import Step, TrainingConfig
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.previews import Preview
from sketchscale.workflow.train.images import SketchedImages

__all__ = ["Paced", "Watch"]

_CURVE_EVERY_S = 10.0
_LINE_EVERY_S = 4.0


class Paced:
    """Lines of progress, of which only one every few seconds is passed on."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self, line: str, *, now: bool = False) -> None:
        """Pass the line on if it is time, or if it has to be said now."""
        if now or time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            self._say(line)


class Watch:
    """Of one training.

    Args:
        run: address of the run folder.
        say: called with a line of text every few seconds.
        started: whether training starts from a model.
        until: when the whole training has to be over (`time.monotonic`); None where steps are counted.
    """

    def __init__(
        self,
        data: SketchedImages,
        config: TrainingConfig,
        run: str,
        say: Callable[[str], None],
        until: float | None = None,
        *,
        started: bool = False,
    ) -> None:
        self._started = started
        self.data, self.config, self.run, self.say = data, config, run, say
        self._until, self._pace = until, Paced(say)
        self._first: Step | None = None
        self.steps: list[Step] = []
        self.taken: list[dict[str, Any]] = []
        self.drawn = time.monotonic()

    def note(self, step: Step) -> None:
        self.steps.append(step)
        if step.annotation:
            self.taken.append({"step": step.step, "sketches": [sketch.sha256 for sketch in self.data.sketches]})
        self._first = self._first or step
        held_out = "" if step.score is None else f"  held out {-step.score:.4f}"
        strokes = f"  annotation {step.annotation[:12]}" if step.annotation else ""
        time_ = f"rate {step.rate:.1e}  {step.elapsed_s:.0f} s{self._left(step)}"
        now = step is self._first or step.step == self.config.steps or bool(held_out or strokes)
        self._pace(f"step {step.step}  loss {step.loss:.4f}  {time_}{held_out}{strokes}", now=now)
        if self.config.preview_every and time.monotonic() - self.drawn > _CURVE_EVERY_S:
            self.draw()

    def _left(self, step: Step) -> str:
        """Time left, with calibration where the time is limited; empty on the first step, which tells nothing."""
        first = self._first or step
        if self._until is not None:
            left = self._until - time.monotonic()
        elif step.step > first.step:
            left = (step.elapsed_s - first.elapsed_s) / (step.step - first.step) * (self.config.steps - step.step)
        else:
            return ""
        return f", {_words(max(0.0, left))} left"

    def draw(self) -> None:
        self.drawn = time.monotonic()
        if not self.config.preview_every or not self.steps:
            return
        curves = [("training", [(float(s.step), s.loss) for s in self.steps])]
        if scored := [(float(s.step), -s.score) for s in self.steps if s.score is not None]:
            curves.append(("held out", scored))
        put_blob(self.run, "loss.png", draw_curve(curves))

    def show(self, preview: Preview) -> None:
        raster = RasterSketch(labels=preview.labels, boundary=preview.boundary)
        picture = draw_preview(preview.image, raster, preview.distance, preview.threshold)
        put_blob(self.run, f"preview_{preview.step:06d}.png", picture)

    def refresh(self) -> list[AnnotatedImage] | None:
        """New strokes, when they can be used; else a line that says why not, and training goes on without."""
        try:
            if not self.data.read_again():
                return None
            images = self.data.training()
            check_images(images, self.config, started=self._started)
        except InputError as error:
            self.say(f"changed strokes are not used: {error}")
            return None
        return images


def _words(seconds: float) -> str:
    """A time as people say it.

    >>> _words(4.2), _words(190)
    ('4 s', '3 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
