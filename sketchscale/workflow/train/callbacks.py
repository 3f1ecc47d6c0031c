"""What happens during the steps of a training: progress lines, pictures, new strokes."""

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
    """Pass on at most one line of progress every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._last = say, time.monotonic()

    def __call__(self, line: str, *, now: bool = False) -> None:
        """Pass the line on if enough time has passed, or at once with `now`."""
        if now or time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            self._say(line)


class Watch:
    """Callbacks of one training.

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
        """Record a step, report it, and redraw the curve when it is due."""
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
        """Return the time left, including calibration where time is limited; "" at the first step."""
        first = self._first or step
        if self._until is not None:
            left = self._until - time.monotonic()
        elif step.step > first.step:
            left = (step.elapsed_s - first.elapsed_s) / (step.step - first.step) * (self.config.steps - step.step)
        else:
            return ""
        left = max(0.0, left)
        return f", {left:.0f} s left" if left < 100 else f", {left / 60:.0f} min left"

    def draw(self) -> None:
        """Write the loss curve."""
        self.drawn = time.monotonic()
        if not self.config.preview_every or not self.steps:
            return
        curves = [("training", [(float(s.step), s.loss) for s in self.steps])]
        if scored := [(float(s.step), -s.score) for s in self.steps if s.score is not None]:
            curves.append(("held out", scored))
        put_blob(self.run, "loss.png", draw_curve(curves))

    def show(self, preview: Preview) -> None:
        """Write a preview picture."""
        raster = RasterSketch(labels=preview.labels, boundary=preview.boundary)
        picture = draw_preview(preview.image, raster, preview.distance, preview.threshold)
        put_blob(self.run, f"preview_{preview.step:06d}.png", picture)

    def refresh(self) -> list[AnnotatedImage] | None:
        """Return images with new strokes, or None where there are none; report strokes that cannot be used."""
        try:
            if not self.data.read_again():
                return None
            images = self.data.training()
            check_images(images, self.config, started=self._started)
        except InputError as error:
            self.say(f"changed strokes are not used: {error}")
            return None
        return images
