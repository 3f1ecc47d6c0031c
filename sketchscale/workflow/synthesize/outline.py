"""Make sketches of clicked images: the outline of each object that a synthesis finds around its point.

Uncertain pixels stay unknown. A segmentation model may be used as well, and strokes on the same images overrule both.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.annotations.events import append_events
from sketchscale.annotations.opening import SketchReading, open_sketch_file
from sketchscale.annotations.readers import Stamp, events_from_labels, next_object
from sketchscale.annotations.sketch import Sketch
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.engine.cancelling import check_cancelled
from sketchscale.errors import InputError
from sketchscale.io.stores.output_files import replacing_file, require_local, writing_place
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.networks.precision import autocast
from sketchscale.options import OutlineOptions
from sketchscale.synthesis.model import Synthesis, load_synthesis
from sketchscale.synthesis.outlines import OutlineConfig, check_channels, check_model, leave_drawn, outline_image
from sketchscale.training.config import find_device
from sketchscale.workflow.precision import settle_precision
from sketchscale.workflow.runner import Runner, quiet, refuse_existing
from sketchscale.workflow.synthesize.clicked_images import StoredImage, read_pointed
from sketchscale.workflow.verbs import verb

__all__ = ["Outlined", "synthesize_outline"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlined:
    """A sketch that was written.

    Attributes:
        objects: how many were outlined or drawn. unknown: share of the pixels that stay unknown.
    """

    image: str
    sketch: str
    objects: int
    unknown: float

    @property
    def line(self) -> str:
        """A summary for people."""
        return f"{self.sketch}: {self.objects} objects, {self.unknown:.1%} of the pixels unknown"


@verb({"histogram": 1, "outline": 4})
def synthesize_outline(
    options: OutlineOptions,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
) -> list[Outlined]:
    """Write a sketch for each image.

    Raises:
        MissingDataError, InputError: no synthesis or model, other channels, points or sketches that do not fit, images
            of one name, a model that reads other images; nothing was written. Or pixels that are not finite, found when
            their image is read: sketches before it are kept.
        OutputExistsError: a sketch is there.
        OutputError: the folder cannot be written.
    """
    execution = execution or Execution()
    require_local(options.out)
    names = [PurePosixPath(address.rstrip("/")).name.split(".")[0] for address in options.images]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InputError.of(
            found=f"{names.count(repeated)} images are called {repeated}", expected="different names", fix="two runs"
        )
    targets = [Path(options.out) / f"{name}.jsonl" for name in names]
    for target in targets:
        refuse_existing(str(target), overwrite=execution.overwrite)
    config = OutlineConfig(
        foreground=options.foreground, background=options.background, all_clicked=options.all_clicked
    )
    synthesis = load_synthesis(options.synthesis)
    device = find_device(options.device)
    synthesis.masker.to(device)
    low, high = synthesis.config.low, synthesis.config.high
    with Runner(execution, on_event) as runner:
        images = read_pointed(
            options.images, options.points, channels=options.channels, low=low, high=high, runner=runner
        )
    for image in images:
        check_channels(synthesis, image)
    model = _model(options, synthesis, device)
    sketches = _sketches(options, images)
    with writing_place(options.out):
        Path(options.out).mkdir(parents=True, exist_ok=True)
    with autocast(options.device, settle_precision(options.precision, options.device)):
        written = []
        for image, sketch, target in zip(images, sketches, targets, strict=True):
            check_cancelled()
            written.append(_write(image, outline_image(synthesis, image, config, model), sketch, target))
            on_event(Event(kind="done", stage="outline", done=len(written), total=len(images)))
        return written


def _model(options: OutlineOptions, synthesis: Synthesis, device: torch.device) -> Model | None:
    if options.model is None:
        return None
    model = load_model(options.model)
    check_model(synthesis, model)
    model.network.to(device)
    return model


def _sketches(options: OutlineOptions, images: Sequence[StoredImage]) -> list[Sketch]:
    """Return one sketch for each image; an empty one where none was drawn."""
    if not options.sketches:
        return [Sketch(shape=image.shape, events=()) for image in images]
    if len(options.sketches) != len(images):
        raise InputError.of(
            found=f"{len(images)} images and {len(options.sketches)} sketches",
            expected="one sketch for each image, in order, or none",
            fix="repeat --sketch",
        )
    reading = SketchReading(kind=options.sketch_kind, classes=options.sketch_classes)
    return [
        open_sketch_file(path, shape=image.shape, reading=reading).sketch
        for path, image in zip(options.sketches, images, strict=True)
    ]


def _write(image: StoredImage, seen: npt.NDArray[np.int32], sketch: Sketch, target: Path) -> Outlined:
    """Write the strokes as they are, then the outlines next to them."""
    drawn = sketch.rasterize()
    labels = leave_drawn(seen, drawn)
    stamp = Stamp.now(image=sketch.image or target.stem)
    beside = events_from_labels(labels, stamp, first_object=next_object(sketch.events))
    with replacing_file(str(target)) as partial:
        append_events(partial, [*sketch.events, *beside])
    objects = len(np.unique(labels[labels > 0])) + len(np.unique(drawn.labels[drawn.labels > 0]))
    unknown = (labels < 0) & (drawn.labels < 0) & ~drawn.boundary
    return Outlined(image=image.name, sketch=str(target), objects=objects, unknown=float(unknown.mean()))
