"""Train a model on the sketches of one or many images.

OUT/model.safetensors, config.json, provenance.json     the model, when training has ended
OUT/run/                                                what training reports and keeps while it runs:
    state.safetensors, log.jsonl, bad_batch.npz, stop   see training.state
    loss.png, preview_<step>.png                        see reports.training; each write replaces the whole file

OUT and images may be addresses in object storage; sketches are files. Several processes train one network when started
by torchrun, or with the engine "ray". Then the first process alone reads sketches and writes OUT; all read pixels of
the images.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from sketchscale.annotations.opening import SketchReading, sketch_files
from sketchscale.config import Execution, TrainOptions
from sketchscale.engine.base import Event
from sketchscale.engine.cancelling import check_cancelled
from sketchscale.errors import InputError
from sketchscale.io.stores.addresses import join_address
from sketchscale.losses import find_loss
from sketchscale.networks.adapt import adapt_notes
from sketchscale.networks.checkpoint import Model, load_model, save_model
from sketchscale.training.checks import NO_BACKGROUND, check_images, lacks_background
from sketchscale.training.config import Step, SyntheticConfig, find_device
from sketchscale.training.distributed import join_world
from sketchscale.training.loop import Hooks, TrainingConfig
from sketchscale.training.loop import train as train_network
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.sizes import Sizes, choose_sizes
from sketchscale.training.state import kept_setting
from sketchscale.training.thresholds import choose_threshold
from sketchscale.workflow.compiling import INTEGRATION, compiling_line
from sketchscale.workflow.precision import settle_precision
from sketchscale.workflow.runner import Runner, quiet
from sketchscale.workflow.synthesize.scenes import SceneSource, check_sources, open_sources, scale_of, stream_of
from sketchscale.workflow.train.beside_start import compare_with_start, kept_halfway
from sketchscale.workflow.train.calibrate import calibrate
from sketchscale.workflow.train.callbacks import Paced, Watch
from sketchscale.workflow.train.chosen_loss import settle_loss
from sketchscale.workflow.train.common_scale import network_pixel_um, settle_scales
from sketchscale.workflow.train.configuration import SAVING_S, training_config, with_init, with_time_left
from sketchscale.workflow.train.images import Reading, SketchedImages
from sketchscale.workflow.train.known_kind import learn_kind
from sketchscale.workflow.train.network_shape import network_shape, refuse_options_of_planes
from sketchscale.workflow.train.on_ray import TrainCallbacks, train_anywhere
from sketchscale.workflow.train.output_folder import begin_output, check_output, writing_output
from sketchscale.workflow.train.rehearsal import rehearsal_of, rehearsed_share
from sketchscale.workflow.train.warnings import find_doubts
from sketchscale.workflow.train.worker_options import WorkerOptions
from sketchscale.workflow.verbs import verb

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The address of the model, and how its training ended.

    Attributes:
        warning: why the model should not be trusted, and what would help; empty where nothing is known.
    """

    model: str
    sha256: str
    steps: int
    loss: float
    seconds: float
    threshold: float
    min_size: int
    summary: str
    warning: str = ""


@verb({"histogram": 1, "train": 17, "calibrate": 2})
def train(
    options: TrainOptions,
    execution: Execution | None = None,
    on_step: Callable[[str], None] = lambda line: None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
) -> TrainResult:
    """Train on `options.images` with `options.sketches`, on scenes of `options.synthetic`, or on both; save a model.

    `options.minutes` is the time for everything: the time for reading is taken from the steps, and a tenth is kept for
    calibration. Strokes that are added to the sketches meanwhile are used within seconds.
    Processes started by `torchrun` train together, and the first one writes.

    Args:
        on_step: called with a line of text every few seconds, by the first process.

    Raises:
        InputError: a sketch does not fit its image, or lacks what training needs; or the minutes are over before the
            first step; nothing was written.
        OutputExistsError: the model folder is there; overwrite or resume.
        OutputError: the model folder cannot be written.
        TaskError: the loss is not a number; see training.loop.
    """
    minutes = None if options.steps is not None else options.minutes
    refuse_options_of_planes(options)
    options = with_init(options, resume=execution is not None and execution.resume)
    sizes = choose_sizes(minutes, width=options.width, batch=options.batch, patch=options.patch, volume=options.volume)
    options = replace(options, width=sizes.width, batch=sizes.batch, patch=sizes.patch)
    callbacks = TrainCallbacks(say=on_step, on_event=on_event)
    return train_anywhere(_train_here, options, _WORKER_OPTIONS, execution or Execution(), callbacks, batch=sizes.batch)


_WORKER_OPTIONS = WorkerOptions(
    addresses=("out", "images", "sketches", "validate", "validate_sketches", "synthetic"),
    names=("init",),
    files=("sketches", "validate_sketches"),
    kind="sketch",
    expected="a file with an annotation",
    beside=sketch_files,
    fits=bytes.startswith,  # because strokes may be added to a sketch
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """What the first process read and decided; the others need not see sketches, initial models or the output."""

    data: SketchedImages
    held_out: list[AnnotatedImage]
    others: list[AnnotatedImage]
    config: TrainingConfig
    init: Model | None
    notes: tuple[str, ...]
    rehearses: bool


def _train_here(options: TrainOptions, execution: Execution, callbacks: TrainCallbacks) -> TrainResult:
    began = time.monotonic()
    until = None if options.minutes is None or options.steps is not None else began + 60 * options.minutes
    with join_world(find_device(options.device)) as world:
        sources: list[SceneSource] = []
        world.all_do(lambda: sources.extend(open_sources(options.synthetic, options.channels)))
        ready = world.first_does(lambda: _prepare(options, execution, callbacks, sources, began))
        world.all_do(lambda: sources.extend(rehearsal_of(options, ready.config) if ready.rehearses else ()))
        world.all_do(ready.data.check_readable)
        world.all_do(lambda: check_sources(sources, ready.config))
        scenes = stream_of(sources, ready.config)
        callbacks = callbacks if world.first else replace(callbacks, say=lambda line: None, on_event=quiet)
        run, started = join_address(options.out, "run"), ready.init is not None
        watch = Watch(ready.data, ready.config, run, callbacks.say, until, started=started)
        options = replace(options, loss=ready.config.loss.name)
        with writing_output(options.out):
            world.first_does(lambda: _begin(options.out, ready, callbacks.say, fresh=not execution.resume))
            model = train_network(
                ready.data.training(),
                ready.config,
                run_folder=watch.run,
                init=ready.init,
                validation=[*ready.held_out, *ready.others],
                on_step=partial(_note, watch, callbacks, ready.config.steps),
                hooks=Hooks(
                    refresh=watch.refresh,
                    on_preview=watch.show,
                    interrupted=callbacks.interrupted,
                    scenes=scenes,
                    settle=lambda model, images: _calibrated(model, ready, images, until, callbacks),
                ),
                resume=execution.resume,
            )
            watch.draw()
        pixel_um = network_pixel_um(ready.data)
        model = replace(model, config=replace(model.config, pixel_um=pixel_um))
        provenance = {"synthetic": [source.about for source in sources]} if sources else {}
        return _save(replace(model, provenance={**model.provenance, **provenance}), options, watch, world.first)


def _note(watch: Watch, callbacks: TrainCallbacks, steps: int, step: Step) -> None:
    watch.note(step)
    callbacks.on_event(Event(kind="done", stage="train", done=step.step, total=steps, fraction=step.progress))


def _prepare(
    options: TrainOptions, execution: Execution, callbacks: TrainCallbacks, sources: Sequence[SceneSource], began: float
) -> _Ready:
    check_output(options.out, execution, callbacks.token)
    init = None if options.init in (None, "random") else load_model(options.init)
    pace = Paced(callbacks.say)

    def on_event(event: Event) -> None:
        callbacks.on_event(event)
        pace(f"reading images, {event.stage}: {event.done} of {event.total}")

    with Runner(execution, on_event) as runner:
        scale = scale_of(sources) if init is None else (init.config.low, init.config.high)
        settle = partial(settle_scales, options, init=init, resume=execution.resume)
        data, held_out, others = _read(options, scale, runner, callbacks.say, settle)
    images = data.training()
    channels = images[0].channels if images else sources[0].channels
    options = settle_loss(options, images, callbacks.say, resume=execution.resume)
    shape = network_shape(options, channels, init, data)
    config = training_config(options, shape, bool(held_out or others), started=init is not None)
    kept = partial(kept_setting, options.out, resume=execution.resume)
    precision = settle_precision(
        options.precision, options.device, "training", kept=partial(kept, "precision"), say=callbacks.say
    )
    config = replace(config, low=scale[0], high=scale[1], scales=data.scales, precision=precision)
    config = replace(config, start=init.sha256 if init is not None else None)
    began_without = kept("seed") is not None and kept("synthetic", "share") is None
    again = [] if sources or not images or began_without else rehearsal_of(options, config)
    if sources or again:
        share = (0.5 if options.synthetic_share is None else options.synthetic_share) if images else 1.0
        share = rehearsed_share(options) if again else share
        digests = tuple(source.sha256 for source in [*sources, *again])
        config = replace(config, synthetic=SyntheticConfig(sha256=digests, share=share))
    check_images(images, config, started=init is not None)
    if lacks_background(images):
        callbacks.say(f"warning: {NO_BACKGROUND}; what is background is what the model to start from takes for it")
    config = with_time_left(config, began)
    notes = _notes(config, init)
    return _Ready(
        data=data, held_out=held_out, others=others, config=config, init=init, notes=notes, rehearses=bool(again)
    )


def _begin(out: str, ready: _Ready, say: Callable[[str], None], *, fresh: bool) -> None:
    for note in ready.notes:
        say(note)
    begin_output(out, say, fresh=fresh, pictures="preview_", made="model")


def _notes(config: TrainingConfig, init: Model | None) -> tuple[str, ...]:
    """Return lines on what is trained, and on what cannot be kept of the model to start from."""
    network = config.network
    sizes = Sizes(width=network.widths[0], batch=config.batch, patch=config.patch)
    chosen = f"network {network.name} of {len(network.widths)} levels, {sizes}, {config.precision}"
    return chosen, *(adapt_notes(init, network, target=config.target) if init else ())


def _calibrated(
    model: Model, ready: _Ready, trained: Sequence[AnnotatedImage], until: float | None, callbacks: TrainCallbacks
) -> Model:
    """Return the model with threshold, joining rule and smallest size set on annotation, and the kind of its images.

    Validation images show more than training images, so they are used where enough objects are annotated on them.
    """
    pace = Paced(callbacks.say)

    def on_window(done: int, total: int) -> None:
        check_cancelled()
        callbacks.on_event(Event(kind="start", stage="calibrate", done=done, total=total))
        if not done and (line := compiling_line(*INTEGRATION)):
            callbacks.say(line)
        pace(f"calibrating threshold, joining and smallest size: window {done + 1} of {total}", now=done == 0)

    end = None if until is None else until - 2 * SAVING_S  # a window that was begun is finished
    interior = find_loss(ready.config.loss.name).interior
    init = ready.init
    start = init.config if init is not None and init.target.rule == "flow" and not init.config.logit else None
    rule: dict[str, Any] = {"start": start} | ({"prefer": 0.0, "telling": 1} if interior else {})
    for images in (ready.others, trained):
        calibrated = calibrate(model, images, until=end, on_window=on_window, **rule)
        if calibrated is not model:
            break
    else:
        threshold = choose_threshold(model, trained, until=end, prefer=rule.get("prefer"))
        calibrated = replace(model, config=replace(model.config, threshold=threshold))
    held_out = [*ready.others, *ready.held_out]
    if not interior:
        calibrated = kept_halfway(calibrated, init, held_out, trained, until=end)
    beside = compare_with_start(calibrated, init, held_out, trained, until=end)
    if beside is not None:
        callbacks.say(beside.line)
        record = asdict(beside) | {"warning": beside.warning}
        calibrated = replace(calibrated, provenance={**calibrated.provenance, "beside_start": record})
    return learn_kind(calibrated, [*trained, *ready.others], ready.data.brightness)


def _read(
    options: TrainOptions,
    scale: tuple[float, float],
    runner: Runner,
    say: Callable[[str], None],
    settle: Callable[..., tuple[float, ...]],
) -> tuple[SketchedImages, list[AnnotatedImage], list[AnnotatedImage]]:
    """Return the sketched images, the held-out annotation, and the validation images."""
    sketch = SketchReading(kind=options.sketch_kind, classes=options.sketch_classes)
    reading = Reading(
        channels=options.channels,
        low=scale[0],
        high=scale[1],
        on_conflict=options.on_conflict,
        sketch=sketch,
        volume=options.volume,
    )
    if not (options.images or options.sketches or options.synthetic):
        raise InputError.of(found="no image", expected="images with --sketch, or --synthetic", fix="name some")
    if options.synthetic_share is not None and not options.synthetic:
        raise InputError.of(found="--synthetic-share alone", expected="--synthetic, too", fix="name a synthesis")
    if options.hold_out is not None and not options.images:
        raise InputError.of(
            found="--hold-out without images", expected="sketches to hold some of out", fix="--validate, or neither"
        )
    if options.hold_out is not None and options.loss != "auto" and find_loss(options.loss).dense:
        raise InputError.of(
            found=f"--hold-out with the loss {options.loss}, which needs every pixel",
            expected="other images to score",
            fix="name them with --validate",
        )
    data = SketchedImages(options.images, options.sketches, reading, runner, say=say)
    data.scales = settle(data, say=say)
    held_out = [] if options.hold_out is None else data.hold_out(options.hold_out, options.seed)
    others: list[AnnotatedImage] = []
    if options.validate or options.validate_sketches:
        validation = SketchedImages(options.validate, options.validate_sketches, reading, runner, say=say)
        validation.scales = settle(validation, resume=False) if data.scales else ()
        others = validation.training()
    return data, held_out, others


def _save(model: Model, options: TrainOptions, watch: Watch, first: bool) -> TrainResult:
    sketches, warning = watch.data.sketches, find_doubts(model.provenance, options)
    provenance: dict[str, Any] = {
        **model.provenance,
        **({"warning": warning} if warning else {}),
        "options": {k: v for k, v in asdict(options).items() if k not in ("out", "images", "sketches")},
        "sketches": [sketch.sha256 for sketch in sketches],
        "annotated": [asdict(sketch.summary()) for sketch in sketches],
        "taken_in": watch.taken,
    }
    sha256 = save_model(options.out, model.network, model.config, provenance) if first else ""
    config, steps, seconds = model.config, int(provenance["steps"]), float(provenance["seconds"])
    losses = provenance["curve"]["loss"]
    loss = losses[-1][1] if losses else float("nan")
    if warning:
        watch.say(f"warning: {warning}")
    return TrainResult(
        model=options.out,
        sha256=sha256,
        steps=steps,
        loss=loss,
        seconds=seconds,
        threshold=config.threshold,
        min_size=config.min_size,
        summary=f"{options.out}: {steps} steps in {seconds:.0f} s ({provenance['ended_by']}), loss {loss:.4f}, "
        f"threshold {config.threshold:g}{model.target.unit}, objects from {config.min_size} px",
        warning=warning,
    )
