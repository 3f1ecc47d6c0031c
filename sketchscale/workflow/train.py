"""Train a model on the sketches of one or many images.

OUT/model.safetensors, config.json, provenance.json     the model, when training has ended
OUT/run/                                                what training says and keeps while it runs:
    state.safetensors, log.jsonl, bad_batch.npz, stop   see training.state
    loss.png, preview_<step>.png                        see reports.training; replaced whole
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sketchscale.annotations.sketch import RasterSketch
from sketchscale.config import Execution, TrainOptions
from sketchscale.engine.base import Event
from sketchscale.errors import InputError, OutputError, OutputExistsError
from sketchscale.losses import LossConfig, find_loss
from sketchscale.networks import NetworkConfig
from sketchscale.networks.adapt import adapt_notes
from sketchscale.networks.checkpoint import Model, load_model, replace_file, save_model
from sketchscale.reports.training import draw_curve, draw_preview
from sketchscale.training.checks import check_images
from sketchscale.training.distributed import is_first_process
from sketchscale.training.loop import Hooks, Step, TrainingConfig
from sketchscale.training.loop import train as train_network
from sketchscale.training.patches import TrainingImage
from sketchscale.training.previews import Preview
from sketchscale.workflow.calibrate import calibrate
from sketchscale.workflow.runner import Runner, quiet
from sketchscale.workflow.training_images import Reading, SketchedImages

__all__ = ["TrainResult", "train"]

_CURVE_EVERY_S = 10.0


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

    Strokes that are added to the sketches meanwhile are learned from within seconds. Started by `torchrun`, the
    processes train together, and the first one writes.

    Args:
        on_step: called with a line of text every so often, by the first process.

    Raises:
        InputError: a sketch does not fit its image, or lacks what training needs; nothing was written.
        OutputExistsError: the model folder is there; overwrite or resume.
        OutputError: the model folder cannot be written.
        TaskError: the loss is not a number; see training.loop.
    """
    execution = execution or Execution()
    first, folder = is_first_process(), Path(options.out)
    if first:
        _check_output(folder, execution)
    init = None if options.init in (None, "random") else load_model(options.init)
    with Runner(execution, on_event) as runner:
        data, held_out, others = _read(options, init, runner)
    images = data.training()
    config = _training_config(options, images[0].image.shape[0], init, bool(held_out or others))
    check_images(images, config)
    watch = _Watch(data, config, folder / "run", on_step if first else lambda line: None)
    with _writing(folder):
        if first:
            _probe(folder)
            watch.begin(fresh=not execution.resume, notes=adapt_notes(init, config.network) if init else ())
        model = train_network(
            images,
            config,
            run_folder=folder / "run",
            init=init,
            validation=[*held_out, *others],
            on_step=watch.note,
            hooks=Hooks(refresh=watch.refresh, on_preview=watch.show),
            resume=execution.resume,
        )
        watch.draw()
    if first:
        calibrated = calibrate(model, others)
        # other images say more, where enough objects are annotated on them; else calibration leaves the model alone
        model = calibrate(model, data.training()) if calibrated is model else calibrated
    return _save(folder, model, options, watch, first)


class _Watch:
    """What is done beside the steps: words, pictures, new strokes."""

    def __init__(self, data: SketchedImages, config: TrainingConfig, run: Path, say: Callable[[str], None]) -> None:
        self.data, self.config, self.run, self.say = data, config, run, say
        self.steps: list[Step] = []
        self.taken: list[dict[str, Any]] = []
        self.drawn = time.monotonic()

    def begin(self, *, fresh: bool, notes: Sequence[str]) -> None:
        for note in notes:
            self.say(note)
        if fresh and self.run.exists():
            for path in [*self.run.glob("preview_*.png"), self.run / "bad_batch.npz", self.run / "stop"]:
                path.unlink(missing_ok=True)
        self.say(f"to end early with a model: touch {self.run / 'stop'}; Ctrl-C saves the state for --resume")

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
        replace_file(self.run / "loss.png", draw_curve(curves))

    def show(self, preview: Preview) -> None:
        raster = RasterSketch(labels=preview.labels, boundary=preview.boundary)
        picture = draw_preview(preview.image, raster, preview.distance, preview.threshold)
        replace_file(self.run / f"preview_{preview.step:06d}.png", picture)

    def refresh(self) -> list[TrainingImage] | None:
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


def _read(
    options: TrainOptions, init: Model | None, runner: Runner
) -> tuple[SketchedImages, list[TrainingImage], list[TrainingImage]]:
    """What is taught from, held-out annotation, other images; a model to start from says how intensities are scaled."""
    scale = init.config if init else TrainingConfig()
    reading = Reading(channels=options.channels, low=scale.low, high=scale.high, on_conflict=options.on_conflict)
    if options.hold_out is not None and find_loss(options.loss).dense:
        raise InputError.of(
            found=f"--hold-out with the loss {options.loss}, which needs every pixel",
            expected="other images to score",
            fix="name them with --validate",
        )
    data = SketchedImages(options.images, options.sketches, reading, runner)
    held_out = [] if options.hold_out is None else data.hold_out(options.hold_out, options.seed)
    others: list[TrainingImage] = []
    if options.validate or options.validate_sketches:
        others = SketchedImages(options.validate, options.validate_sketches, reading, runner).training()
    return data, held_out, others


def _training_config(options: TrainOptions, channels: int, init: Model | None, validated: bool) -> TrainingConfig:
    outputs = find_loss(options.loss).outputs
    widths = tuple(options.width * 2**level for level in range(4))
    fresh = NetworkConfig(name=options.network, channels=channels, widths=widths, outputs=outputs)
    scale = init.config if init else TrainingConfig()
    by_steps = options.steps is not None
    return TrainingConfig(
        network=replace(init.config.network, channels=channels, outputs=outputs) if init else fresh,
        loss=LossConfig(name=options.loss),
        low=scale.low,
        high=scale.high,
        steps=options.steps if options.steps is not None else 100_000,
        minutes=None if by_steps else options.minutes,
        batch=options.batch,
        patch=options.patch,
        rate=options.rate,
        optimizer=options.optimizer,
        precision=options.precision,
        compile=options.compile,
        device=options.device,
        threads=options.threads,
        seed=options.seed,
        validate_every=options.validate_every if validated else 0,
        patience=options.patience,
        preview_every=options.preview_every,
    )


def _save(folder: Path, model: Model, options: TrainOptions, watch: _Watch, first: bool) -> TrainResult:
    sketches = watch.data.sketches
    provenance: dict[str, Any] = {
        **model.provenance,
        "options": {k: v for k, v in asdict(options).items() if k not in ("out", "images", "sketches")},
        "sketches": [sketch.sha256 for sketch in sketches],
        "annotated": [asdict(sketch.summary()) for sketch in sketches],
        "taken_in": watch.taken,
    }
    sha256 = save_model(folder, model.network, model.config, provenance) if first else ""
    config, steps, seconds = model.config, int(provenance["steps"]), float(provenance["seconds"])
    losses = provenance["curve"]["loss"]
    loss = losses[-1][1] if losses else float("nan")
    return TrainResult(
        model=str(folder),
        sha256=sha256,
        steps=steps,
        loss=loss,
        seconds=seconds,
        threshold=config.threshold,
        min_size=config.min_size,
        summary=f"{folder}: {steps} steps in {seconds:.0f} s ({provenance['ended_by']}), loss {loss:.4f}, "
        f"threshold {config.threshold:g} px, objects from {config.min_size} px",
    )
