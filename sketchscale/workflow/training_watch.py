"""What is done beside the steps of a training: words, pictures, new strokes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sketchscale.annotations.sketch import RasterSketch
from sketchscale.errors import InputError
from sketchscale.io.blobs import delete_blob, list_blobs, put_blob
from sketchscale.io.store import join_address
from sketchscale.reports.training import draw_curve, draw_preview
from sketchscale.training.checks import check_images
from sketchscale.training.config import Step, TrainingConfig
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.previews import Preview
from sketchscale.workflow.training_images import SketchedImages

__all__ = ["Watch"]

_CURVE_EVERY_S = 10.0


class Watch:
    """Of one training.

    Args:
        run: address of the run folder.
        say: called with a line of text every so often.
    """

    def __init__(self, data: SketchedImages, config: TrainingConfig, run: str, say: Callable[[str], None]) -> None:
        self.data, self.config, self.run, self.say = data, config, run, say
        self.steps: list[Step] = []
        self.taken: list[dict[str, Any]] = []
        self.drawn = time.monotonic()

    def begin(self, *, fresh: bool, notes: Sequence[str]) -> None:
        for note in notes:
            self.say(note)
        for key in list_blobs(self.run, "") if fresh else ():
            if key.startswith("preview_") or key in ("bad_batch.npz", "stop", "state.safetensors"):
                delete_blob(self.run, key)
        stop = join_address(self.run, "stop")
        self.say(f"to end early with a model: make the file {stop}; Ctrl-C saves the state for --resume")

    def note(self, step: Step) -> None:
        self.steps.append(step)
        if step.annotation:
            self.taken.append({"step": step.step, "sketches": [sketch.sha256 for sketch in self.data.sketches]})
        if step.step == 1 or step.step % 25 == 0 or step.score is not None or step.annotation:
            held_out = "" if step.score is None else f"  held out {-step.score:.4f}"
            strokes = f"  annotation {step.annotation[:12]}" if step.annotation else ""
            rate = f"rate {step.rate:.1e}  {step.elapsed_s:.0f} s"
            self.say(f"step {step.step}  loss {step.loss:.4f}  {rate}{held_out}{strokes}")
        if self.config.preview_every and time.monotonic() - self.drawn > _CURVE_EVERY_S:
            self.draw()

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
            check_images(images, self.config)
        except InputError as error:
            self.say(f"changed strokes are not used: {error}")
            return None
        return images
