"""Train a synthesis on images with centre points.

OUT/synthesis.safetensors, points.npz, synthesis.json, provenance.json    the synthesis, when training has ended
OUT/run/                                                                  what training reports and keeps:
    state.safetensors, log.jsonl, bad_batch.npz, stop   see synthesis.training
    loss.png, sheet_<step>.png                          see reports.synthesis; each write replaces the whole file

OUT and images may be addresses in object storage; points are files. Several processes train together when started by
torchrun, or with the engine "ray". Then the first one alone reads points and writes OUT; all read pixels.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.io.stores.addresses import join_address
from sketchscale.io.stores.blobs import put_blob
from sketchscale.options import SynthesisOptions
from sketchscale.reports.synthesis import SheetRow, draw_sheet, drawn_row, real_row
from sketchscale.reports.training import draw_curve
from sketchscale.synthesis.gan import PAPER_SIZE, GanConfig
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.model import save_synthesis
from sketchscale.synthesis.scenes import PointedSource
from sketchscale.synthesis.training import Sample, SynthesisHooks, make_scenes, train_synthesis
from sketchscale.training.config import Step, find_device
from sketchscale.training.distributed import join_world
from sketchscale.training.state import kept_setting
from sketchscale.workflow.precision import settle_precision
from sketchscale.workflow.runner import Runner, quiet
from sketchscale.workflow.synthesize.clicked_images import StoredImage, hold_in_memory, read_pointed
from sketchscale.workflow.train.on_ray import TrainCallbacks, train_anywhere
from sketchscale.workflow.train.output_folder import begin_output, check_output, writing_output
from sketchscale.workflow.train.worker_options import WorkerOptions, single_file
from sketchscale.workflow.verbs import verb

__all__ = ["SynthesisResult", "synthesize_train"]

SCALE = (1.0, 99.8)
"""Percentiles of an image that become -1 and 1."""

_CURVE_EVERY_S, _CURVE_POINTS = 10.0, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisResult:
    """The address of the synthesis, and how its training ended."""

    synthesis: str
    sha256: str
    steps: int
    seconds: float
    summary: str


@verb({"histogram": 1, "train": 19})
def synthesize_train(
    options: SynthesisOptions,
    execution: Execution | None = None,
    on_step: Callable[[str], None] = lambda line: None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
) -> SynthesisResult:
    """Train on `options.images` with `options.points`, pair by pair, and save the folder `options.out`.

    Processes started by `torchrun`, or with the engine "ray", train together, and the first one writes.

    Args:
        on_step: called with a line of text every so often, by the first process.

    Raises:
        InputError: images or points do not fit; nothing was written.
        OutputExistsError: the folder is there; overwrite or resume.
        OutputError: it cannot be written.
        TaskError: a loss is not a number; or workers of a cluster died too often.
        SetupError, UnreachableError: the cluster lacks what is asked for, or does not answer.
    """
    callbacks = TrainCallbacks(say=on_step, on_event=on_event)
    batch = gan_config(options, channels=1).batch  # does not depend on the channels
    return train_anywhere(_train_here, options, _WORKER_OPTIONS, execution or Execution(), callbacks, batch=batch)


_WORKER_OPTIONS = WorkerOptions(
    addresses=("out", "images", "points"),
    files=("points",),
    kind="points",
    expected="a .csv, .geojson or .jsonl file",
    beside=single_file,
    fits=operator.eq,  # because a restart must find the same points
)


def _train_here(options: SynthesisOptions, execution: Execution, callbacks: TrainCallbacks) -> SynthesisResult:
    with join_world(find_device(options.device)) as world:
        stored = world.first_does(lambda: _read(options, execution, callbacks))
        config = replace(
            gan_config(options, stored[0].channels),
            precision=world.first_does(lambda: _precision(options, execution, callbacks)),
        )
        world.first_does(lambda: make_scenes(stored, config))  # refuses what does not fit before anything is written
        images: list[PointedSource] = []
        world.all_do(lambda: images.extend(hold_in_memory(stored)))
        watch = _Watch(join_address(options.out, "run"), callbacks.say)

        def note(step: Step) -> None:
            watch.note(step)
            callbacks.on_event(Event(kind="done", stage="train", done=step.step, total=config.steps))

        with writing_output(options.out):
            fresh = not execution.resume
            world.first_does(
                lambda: begin_output(options.out, callbacks.say, fresh=fresh, pictures="sheet_", made="synthesis")
            )
            synthesis = train_synthesis(
                images,
                config,
                run_folder=watch.run,
                scale=SCALE,
                hooks=SynthesisHooks(on_step=note, on_sample=watch.show, interrupted=callbacks.interrupted),
                resume=execution.resume,
            )
        recorded = {k: v for k, v in asdict(options).items() if k not in ("out", "images", "points")}
        provenance = {**synthesis.provenance, "options": recorded}
        sha256 = save_synthesis(options.out, replace(synthesis, provenance=provenance)) if world.first else ""
    steps, seconds = int(provenance["steps"]), float(provenance["seconds"])
    return SynthesisResult(
        synthesis=options.out,
        sha256=sha256,
        steps=steps,
        seconds=seconds,
        summary=f"{options.out}: {steps} steps in {seconds:.0f} s ({provenance['ended_by']}), "
        f"{provenance['objects']} points in {len(images)} images",
    )


def gan_config(options: SynthesisOptions, channels: int) -> GanConfig:
    """Return the configuration: what the options give, else what their `size` means; without the precision."""
    base = PAPER_SIZE if options.size == "paper" else GanConfig()
    names = "steps", "batch", "crop", "given", "rate", "threads", "save_every_s", "sheet_every", "seed", "device"
    given = {name: getattr(options, name) for name in names}
    width = base.generator.width if options.width is None else options.width
    return replace(
        base,
        **{name: value for name, value in given.items() if value is not None},
        generator=replace(
            base.generator, channels=channels, width=width, noise=options.noise, local_noise=options.local_noise
        ),
        prior=LayoutPrior(diameter=options.diameter, spread=options.spread, crowding=options.crowding),
    )


def _precision(
    options: SynthesisOptions, execution: Execution, callbacks: TrainCallbacks
) -> Literal["float32", "bfloat16"]:
    """Return the precision of the steps; layouts and sample pictures are always float32."""
    kept = partial(kept_setting, options.out, "precision", resume=execution.resume)
    settled = settle_precision(options.precision, options.device, "training", kept=kept, say=callbacks.say)
    return "bfloat16" if settled == "bfloat16" else "float32"


def _read(options: SynthesisOptions, execution: Execution, callbacks: TrainCallbacks) -> list[StoredImage]:
    check_output(options.out, execution, callbacks.token)
    low, high = SCALE
    with Runner(execution, callbacks.on_event) as runner:
        return read_pointed(
            options.images, options.points, channels=options.channels, low=low, high=high, runner=runner
        )


class _Watch:
    """Callbacks of a training: progress lines and pictures."""

    def __init__(self, run: str, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self.steps: list[Step] = []
        self.every = 1
        self.drawn = time.monotonic()

    def note(self, step: Step) -> None:
        """Record a step, report it, and redraw the curve when it is due."""
        if step.step % self.every == 0:
            self.steps.append(step)
        if len(self.steps) > 2 * _CURVE_POINTS:
            self.every *= 2
            self.steps = [kept for kept in self.steps if kept.step % self.every == 0]
        if step.step == 1 or step.step % 25 == 0:
            terms = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in (step.terms or {}).items())
            self.say(f"step {step.step}  {terms}  {step.elapsed_s:.0f} s")
        if time.monotonic() - self.drawn > _CURVE_EVERY_S:
            self.draw()

    def draw(self) -> None:
        """Write the curve of every term, from where this process began."""
        self.drawn = time.monotonic()
        names = [name for name in (self.steps[0].terms or {}) if name != "critics"] if self.steps else []
        curves = [
            (name.replace("_", " "), [(float(s.step), (s.terms or {})[name]) for s in self.steps]) for name in names
        ]
        if curves:
            put_blob(self.run, "loss.png", draw_curve(curves))

    def show(self, sample: Sample) -> None:
        """Write a sheet of samples."""
        self.draw()
        put_blob(self.run, f"sheet_{sample.step:06d}.png", draw_sheet(sheet_rows(sample)))


def sheet_rows(sample: Sample) -> list[SheetRow]:
    """Return rows of drawn layouts, then of real crops."""
    scenes = sample.scenes
    count = len(scenes.maps)
    drawn = [
        drawn_row(scenes.maps[i].numpy(), _shown(sample.painted[i].numpy()), sample.read[i].numpy())
        for i in range(count)
    ]
    real = [
        real_row(
            _shown(scenes.image[i].numpy()),
            np.argwhere(scenes.image_points[i].numpy()).astype(np.float64),
            sample.found[i].numpy(),
            _shown(sample.repainted[i].numpy()),
        )
        for i in range(count)
    ]
    return [*drawn, *real]


def _shown(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale an image from [-1, 1] to [0, 1]."""
    return (image + np.float32(1)) / np.float32(2)
