"""Train a model on the sketches of one or many images.

Only the surroundings of what was drawn are read: a sketch on a plate of 20,000 px costs the memory of its strokes.
Intensities are scaled by percentiles of the whole image, as in prediction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sketchscale.annotations.events import Stroke
from sketchscale.annotations.painting import extent_of
from sketchscale.annotations.sketch import Sketch, open_sketch
from sketchscale.config import Execution, TrainOptions
from sketchscale.engine.base import Event
from sketchscale.errors import InputError, OutputError, OutputExistsError
from sketchscale.geometry import Box, block_shape
from sketchscale.intensity import channel_ranges, normalize
from sketchscale.io.image import PlaneRef, open_image, read_plane
from sketchscale.losses import LossConfig
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model, load_model, replace_file, save_model
from sketchscale.training.loop import Step, TrainingConfig
from sketchscale.training.loop import train as train_network
from sketchscale.training.patches import TrainingImage
from sketchscale.workflow.runner import Runner, quiet
from sketchscale.workflow.segment import choose_channels

__all__ = ["TrainResult", "train"]

_MARGIN = 128
"""Pixels read around what was drawn: what the network sees beside a stroke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """Where the model is, and how its training ended."""

    model: str
    sha256: str
    steps: int
    loss: float
    seconds: float
    threshold: float
    min_size: int
    summary: str


def train(
    options: TrainOptions,
    execution: Execution | None = None,
    on_step: Callable[[str], None] = lambda line: None,
    on_event: Callable[[Event], None] = quiet,
) -> TrainResult:
    """Train on `options.images` with `options.sketches`, pair by pair, and save the model folder `options.out`.

    Args:
        on_step: called with a line of text every so often.

    Raises:
        InputError: a sketch does not fit its image, or lacks what training needs; nothing was written.
        OutputExistsError: the model folder is there; overwrite or resume.
        OutputError: the model folder cannot be written.
    """
    execution = execution or Execution()
    _check_output(Path(options.out), execution)
    with Runner(execution, on_event) as runner:
        images, sketches = _read_all(options, runner)
    init = load_model(options.init) if options.init else None
    config = _training_config(options, images[0].image.shape[0], init)
    steps: list[Step] = []

    def note(step: Step) -> None:
        steps.append(step)
        if step.step == 1 or step.step % 25 == 0:
            on_step(f"step {step.step}  loss {step.loss:.4f}  rate {step.rate:.1e}  {step.elapsed_s:.0f} s")

    folder = Path(options.out)
    with _writing(folder):
        _probe(folder)
        model = train_network(
            images, config, run_folder=folder / "run", init=init, on_step=note, resume=execution.resume
        )
    return _save(folder, model, options, sketches, steps)


def _check_output(folder: Path, execution: Execution) -> None:
    if (folder.exists() and any(folder.iterdir())) and not (execution.overwrite or execution.resume):
        raise OutputExistsError(
            f"{folder} is not empty; expected: a new model folder; to fix: another --out, --overwrite or --resume"
        )


def _probe(folder: Path) -> None:
    """Find out that a folder cannot be written before minutes of training, not after."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        replace_file(folder / "probe", b"?")
        (folder / "probe").unlink()
    finally:
        with contextlib.suppress(OSError):  # not empty: a run that is resumed
            folder.rmdir()


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Errors of the system while training saves its state, as ours."""
    try:
        yield
    except OSError as error:
        if isinstance(error, InputError):
            raise
        raise OutputError(
            f"cannot write {folder}: {error.strerror or error}; expected: a writable place with free space; "
            f"to fix: free space, then run again with --resume, or another --out"
        ) from error


def _read_all(options: TrainOptions, runner: Runner) -> tuple[list[TrainingImage], list[Sketch]]:
    if not options.images or len(options.images) != len(options.sketches):
        raise InputError.of(
            found=f"{len(options.images)} images and {len(options.sketches)} sketches",
            expected="one sketch for each image, in order",
            fix="repeat --sketch",
        )
    images: list[TrainingImage] = []
    sketches = []
    for address, path in zip(options.images, options.sketches, strict=True):
        plane = open_image(address).plane()
        sketch = open_sketch(path, shape=plane.shape)
        sketch.check(options.on_conflict)
        images += _surroundings(plane, sketch, options, runner)
        sketches.append(sketch)
    return images, sketches


def _surroundings(plane: PlaneRef, sketch: Sketch, options: TrainOptions, runner: Runner) -> list[TrainingImage]:
    """The parts of an image that were drawn on, normalised."""
    wanted = options.channels if options.channels is not None else tuple(range(len(plane.channels)))
    channels = choose_channels(plane, wanted)
    defaults = TrainingConfig()
    y, x = block_shape(plane.shape, plane.chunks, runner.execution.block)
    ranges = channel_ranges(runner.run, plane, (y, x), channels, low=defaults.low, high=defaults.high)
    parts = []
    for box in drawn_boxes(sketch):
        raster = sketch.rasterize(box)
        pixels = normalize(read_plane(plane, box, channels), ranges)
        parts.append(
            TrainingImage(image=pixels, labels=raster.labels, boundary=raster.boundary, name=f"{plane.array} {box}")
        )
    return parts


def drawn_boxes(sketch: Sketch, *, margin: int = _MARGIN) -> list[Box]:
    """Boxes that together hold everything drawn with a margin; boxes that overlap are one.

    Margins reach to the image's edge where it is near, so a stroke's surroundings are cut by the image only.
    """
    boxes: list[Box] = []
    for event in sketch.marks:
        low, high = extent_of(event)
        reach = margin + (int(event.radius_px) + 1 if isinstance(event, Stroke) else 0)
        box = Box((int(low[0]), int(low[1])), (int(high[0]) + 1, int(high[1]) + 1)).grow(reach).clip(sketch.shape)
        boxes = _joined(boxes, box)
    return sorted(boxes)


def _joined(boxes: Sequence[Box], box: Box) -> list[Box]:
    """The boxes and one more, joined with all it overlaps."""
    apart = list(boxes)
    while meeting := [other for other in apart if other.intersect(box).size]:
        apart = [other for other in apart if other not in meeting]
        corners = [box, *meeting]
        box = Box(
            (min(b.start[0] for b in corners), min(b.start[1] for b in corners)),
            (max(b.stop[0] for b in corners), max(b.stop[1] for b in corners)),
        )
    return [*apart, box]


def _training_config(options: TrainOptions, channels: int, init: Model | None) -> TrainingConfig:
    network = NetworkConfig(
        name=options.network, channels=channels, widths=tuple(options.width * 2**level for level in range(4))
    )
    config = TrainingConfig(
        network=init.config.network if init else network,
        loss=LossConfig(name=options.loss),
        device=options.device,
        seed=options.seed,
    )
    if options.steps is not None:
        return replace(config, steps=options.steps, minutes=None)
    return replace(config, steps=100_000, minutes=options.minutes)


def _save(
    folder: Path, model: Model, options: TrainOptions, sketches: Sequence[Sketch], steps: Sequence[Step]
) -> TrainResult:
    provenance: dict[str, Any] = {
        **model.provenance,
        "options": {k: v for k, v in asdict(options).items() if k not in ("out", "images", "sketches")},
        "sketches": [sketch.sha256 for sketch in sketches],
        "annotated": [asdict(sketch.summary()) for sketch in sketches],
    }
    sha256 = save_model(folder, model.network, model.config, provenance)
    last = steps[-1] if steps else Step(step=0, loss=float("nan"), rate=0.0, elapsed_s=0.0, progress=1.0)
    config = model.config
    return TrainResult(
        model=str(folder),
        sha256=sha256,
        steps=last.step,
        loss=last.loss,
        seconds=round(last.elapsed_s, 1),
        threshold=config.threshold,
        min_size=config.min_size,
        summary=f"{folder}: {last.step} steps in {last.elapsed_s:.0f} s, loss {last.loss:.4f}, "
        f"threshold {config.threshold:g} px, objects from {config.min_size} px",
    )
