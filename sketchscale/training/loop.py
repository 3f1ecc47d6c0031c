"""Training: optimise, validate, log, save, resume.

    step t ─ batch(seed, t), drawn ahead ─ learn at rate(t) ─ average ─▶ every so often: log, validate, preview, save
                   ▲
    new strokes ───┘  from the next step on

What it guarantees:
  * the batch of step t is a function of the annotation as it stands at t, the configuration and t, and the saved state
    holds all that is carried from step to step: interrupted and resumed training ends with the weights of uninterrupted
    training, to the bit, on the same device and number of threads (a time limit is the exception, as clocks differ).
    Where strokes were added, that is said of a training that meets the same annotation at the same steps; the log names
    the annotation (its SHA-256) on the first step and wherever it changed, and resumed training starts with what is
    annotated then;
  * an interrupt (Ctrl-C, SIGTERM) is acted on between two steps, after the state was saved;
  * the learning rate follows the schedule, and the log says which rate was applied;
  * a loss that is not a number ends training with the last good state and the offending batch on disk;
  * the threshold that comes with the model is set on the annotated pixels, by default by `choose_threshold`.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import torch

from sketchscale import __version__
from sketchscale.errors import TaskError
from sketchscale.networks import create_network
from sketchscale.networks.adapt import adapt_weights
from sketchscale.networks.checkpoint import Model, ModelConfig
from sketchscale.networks.targets import TARGETS
from sketchscale.training.checks import annotation_sha256, check_images
from sketchscale.training.config import OPTIMIZERS, Step, TrainingConfig, find_device, rate_at
from sketchscale.training.distributed import World, join_world
from sketchscale.training.interrupts import SecondInterrupt, noted_interrupts
from sketchscale.training.learner import Learner, NotANumberError, part
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.prefetch import Batch, Prefetcher, choose_workers, move_batch, pin_batch
from sketchscale.training.previews import Preview, choose_window, make_preview
from sketchscale.training.state import Log, StopFile, check_identity, identity, read_state, write_bad_batch, write_state
from sketchscale.training.synthetic import SceneStream, SceneWindow, drawing_of
from sketchscale.training.thresholds import choose_threshold, median_diameter, predict_image, smallest_size
from sketchscale.training.validation import score_held_out

__all__ = [
    "OPTIMIZERS",
    "Hooks",
    "Step",
    "TrainingConfig",
    "choose_threshold",
    "find_device",
    "predict_image",
    "rate_at",
    "torch_threads",
    "train",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What a caller is asked while training runs. Of several processes the first alone asks.

    Attributes:
        refresh: asked every few seconds for all images anew; None where nothing changed.
        on_preview: given a preview every `preview_every` steps, and one at the end.
        interrupted: asked before every step; an interrupt that came by another way than a signal.
        scenes: where synthetic scenes come from; with `config.synthetic`.
        settle: sets the threshold, and what else it likes, of a trained model that gives distances, where the
            configuration does not say the threshold. Given the model and the images it was trained on.
        validate: larger is better; called every `validate_every` steps where no annotation is held out. For one
            process only.
    """

    refresh: Callable[[], Sequence[AnnotatedImage] | None] | None = None
    on_preview: Callable[[Preview], None] | None = None
    interrupted: Callable[[], bool] = lambda: False
    scenes: SceneStream | None = None
    settle: Callable[[Model, Sequence[AnnotatedImage]], Model] | None = None
    validate: Callable[[Model], float] | None = None


def train(
    images: Sequence[AnnotatedImage],
    config: TrainingConfig,
    *,
    run_folder: str | Path,
    init: Model | None = None,
    validation: Sequence[AnnotatedImage] = (),
    on_step: Callable[[Step], None] = lambda step: None,
    hooks: Hooks | None = None,
    resume: bool = False,
) -> Model:
    """Train a network on sketches or dense labels.

    Args:
        images: with at least one foreground, one background and one boundary (drawn, or between labels) among them;
            none where synthetic scenes alone are taught, see `config.synthetic` and `hooks.scenes`.
        run_folder: path or address for state and log, see training.state; only the first process uses it. A file named
            `stop` in it ends training as if it were done.
        init: weights to start from, see networks.adapt.
        validation: held-out annotation, scored every `config.validate_every` steps; see training.validation.
        on_step: called after every step, by the first process.
        resume: go on from the state in `run_folder`; without one, start.

    Returns:
        A model that was not saved yet: the mean of the weights, where it scored best if it was scored.

    Raises:
        InputError: the sketch lacks background, foreground or boundaries; channels differ from the network's;
            `init` is of another architecture.
        ResumeError: the state was made with another configuration.
        TaskError: the loss is not a number.
        SetupError: the device is not there.
        KeyboardInterrupt: an interrupt came, and the state was saved.
    """
    check_images(images, config)
    device = find_device(config.device)
    with join_world(device) as world, torch_threads(config.threads):
        place = _Place(folder=str(run_folder), device=device, world=world)
        run = _Run(images, config, place, init)
        run.listen(on_step, hooks or Hooks())
        run.prepare(validation, resume)
        run.optimise()
        return run.finish()


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads on the CPU; None leaves them alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a run happens."""

    folder: str
    device: torch.device
    world: World


def _with_threshold(model: Model, images: Sequence[AnnotatedImage]) -> Model:
    return replace(model, config=replace(model.config, threshold=choose_threshold(model, images)))


_ENDS = ("", "steps", "minutes", "no better validation", "stop file", "interrupt")
"""Why training ends; the later of two wins, as an interrupt must not pass for a finished run."""


class _Run:
    """The state of one `train` call."""

    def __init__(
        self, images: Sequence[AnnotatedImage], config: TrainingConfig, place: _Place, init: Model | None
    ) -> None:
        self.config, self.folder, self.device, self.world = config, place.folder, place.device, place.world
        self.share = self.world.share(config.batch)
        network = create_network(config.network, seed=config.seed)
        if init is not None:
            network.load_state_dict(adapt_weights(init, config.network, target=config.target, seed=config.seed))
        self.learner = Learner(network, config, self.device, self.world)
        self.best: dict[str, torch.Tensor] | None = None
        self.step, self.elapsed_s, self.best_score, self.stale = 0, 0.0, -math.inf, 0
        self.log, self.stopped = Log(self.folder), "steps"
        self.stop_file = StopFile(self.folder, config.refresh_every_s)
        self.score: Callable[[], float] | None = None
        self.images, self.scenes = tuple(images), SceneWindow(config)

    def _take_images(self, images: Sequence[AnnotatedImage]) -> None:
        self.images, self.new_annotation = tuple(images), annotation_sha256(images)
        self.shown = self.images or self.scenes.fixed
        self.window = choose_window(self.shown)
        self.draw = drawing_of(self.images, self.scenes, self.config)

    def listen(self, on_step: Callable[[Step], None], hooks: Hooks) -> None:
        self.on_step, self.hooks = on_step, hooks
        self.scenes.stream = hooks.scenes
        self._take_images(self.images)

    def prepare(self, validation: Sequence[AnnotatedImage], resume: bool) -> None:
        """Everything that can refuse, before the first file is written."""
        found = self.world.first_does(lambda: read_state(self.folder) if resume else None)
        if found is not None:
            self._restore(*found)
        validate = self.hooks.validate
        if validation:
            held_out = score_held_out(validation, self.config, self.device, self.world)
            self.score = lambda: held_out(self.learner.still(self.learner.average))
        elif validate is not None:
            self.score = lambda: float(validate(self._model(self.learner.average)))
        self.world.first_does(lambda: self.log.start(self.step))

    @property
    def progress(self) -> float:
        share = self.step / self.config.steps
        if self.config.minutes is not None:
            share = max(share, self.elapsed_s / (60 * self.config.minutes))
        return min(1.0, share)

    def optimise(self) -> None:
        """Step until it ends; the state is saved however it does, but by a second interrupt within a step."""
        now = time.monotonic()
        self.began, self.looked, self.saved = now - self.elapsed_s, now, now
        self.batches = self._draw_ahead()
        try:
            self._loop()
        except SecondInterrupt:
            raise
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            self.batches.close()
            self.log.close()

    def _loop(self) -> None:
        with noted_interrupts() as interrupted:
            while not self._ended(interrupted() or self.hooks.interrupted()):
                self._advance()
                self._save_now_and_then()
        if self.stopped == "interrupt":
            raise KeyboardInterrupt
        self._show(last=True)
        self.save()

    def _draw_ahead(self) -> Prefetcher[Batch]:
        def draw(step: int) -> Batch:
            batch = self.draw(step, self.share)
            return pin_batch(batch) if self.device.type == "cuda" else batch

        workers = choose_workers(self.config.workers, self.device)
        return Prefetcher(draw, range(self.step, self.config.steps), workers=workers)

    def _ended(self, interrupted: bool) -> bool:
        """Whether to stop, and new strokes if there are any; decided by all processes together."""
        due = self.hooks.refresh is not None and time.monotonic() - self.looked >= self.config.refresh_every_s
        end, due_now, self.elapsed_s = self.world.largest([self._end(interrupted), due, self.elapsed_s])
        if end:
            self.stopped = _ENDS[int(end)]
            if self.world.first:
                self.stop_file.remove()
        elif due_now:
            self._refresh()
        return bool(end)

    def _end(self, interrupted: bool) -> int:
        reasons = (
            self.step >= self.config.steps,
            self.progress >= 1 and self.step < self.config.steps,
            bool(self.config.validate_every) and self.stale >= self.config.patience,
            self.world.first and self.stop_file.is_there(),
            interrupted,
        )
        return max((i for i, reason in enumerate(reasons, start=1) if reason), default=0)

    def _refresh(self) -> None:
        self.looked = time.monotonic()
        images = self.hooks.refresh() if self.hooks.refresh is not None and self.world.first else None
        images = self.world.first_says(images)
        if images is not None:
            check_images(images, self.config)
            self.batches.close()
            self._take_images(images)
            self.batches = self._draw_ahead()

    def _advance(self) -> None:
        rate = rate_at(self.progress, self.config)
        batch = move_batch(self.batches.take(), self.device)
        try:
            loss = self.learner.learn(batch, rate)
        except NotANumberError as error:
            self._fail(error, batch)
        self.step += 1
        self.learner.update_average(self.step)
        score = self._validate()
        self.elapsed_s = time.monotonic() - self.began
        new = self.new_annotation if self.new_annotation != self.log.annotation else None
        if self.world.first:
            self.log.add(
                Step(
                    step=self.step,
                    loss=loss,
                    rate=rate,
                    elapsed_s=self.elapsed_s,
                    progress=self.progress,
                    score=score,
                    annotation=new,
                )
            )
            self.on_step(self.log.lines[-1])
        self._show()

    def _fail(self, error: NotANumberError, batch: Batch) -> NoReturn:
        """The learner is as it was before the step, and so it is saved."""
        path = write_bad_batch(self.folder, batch, step=self.step + 1, loss=error.loss) if self.world.first else None
        self.save(failed=True)
        raise TaskError(
            f"step {self.step + 1}: {error}; expected: a number; the batch is in {path}, the weights before it are "
            f"kept; to fix: look for senseless pixels in the batch, or go on with --resume and a smaller --rate (now "
            f"{self.config.rate:g})"
        ) from error

    def _validate(self) -> float | None:
        every = self.config.validate_every
        if self.score is None or not every or self.step % every:
            return None
        score = self.score()
        if score > self.best_score:
            self.best_score, self.stale = score, 0
            self.best = {k: v.clone() for k, v in self.learner.average.items()}
        else:
            self.stale += 1
        return score

    def _show(self, last: bool = False) -> None:
        every, show = self.config.preview_every, self.hooks.on_preview
        if show is None or not self.world.first or not every or not self.step or (self.step % every == 0) == last:
            return
        position, box = self.window
        show(make_preview(self._model(self.learner.average), self.shown[position], box, self.step))

    def _model(self, weights: Mapping[str, torch.Tensor]) -> Model:
        """On the device."""
        c = self.config
        config = ModelConfig(
            network=c.network,
            target=c.target,
            low=c.low,
            high=c.high,
            outside=c.outside,
            threshold=TARGETS[c.target].middle(c.outside) if c.threshold is None else c.threshold,
            min_size=20 if c.min_size is None else c.min_size,
        )
        return Model(network=self.learner.still(weights), config=config, provenance=self._provenance())

    def finish(self) -> Model:
        model = self._model(self.best or self.learner.average)
        found = replace(model.config, diameter=round(median_diameter(self.shown), 2), notes=model.config.notes)
        if self.config.min_size is None:
            found = replace(found, min_size=smallest_size(self.shown))
        model = replace(model, config=found, network=model.network.cpu())
        if self.config.threshold is None and model.target.lengths and self.world.first:
            return (self.hooks.settle or _with_threshold)(model, self.shown)
        return model

    def _provenance(self) -> dict[str, Any]:
        return {
            "sketchscale": __version__,
            "torch": str(torch.__version__),
            "training": json.loads(json.dumps(asdict(self.config))),
            "images": len(self.images),
            "processes": self.world.size,
            "steps": self.step,
            "seconds": round(self.elapsed_s, 1),
            "ended_by": self.stopped,
            "curve": self.log.curve(),
        }

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self.saved > self.config.save_every_s:
            self.save()
            self.saved = time.monotonic()

    def save(self, *, failed: bool = False) -> None:
        """The log, then the state that counts on it."""
        if not self.world.first:
            return
        about = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "best_score": self.best_score,
            "stale": self.stale,
            "failed": failed,
            "scaler": self.learner.scaler.state_dict(),
            "config": identity(self.config),
        }
        self.log.sync()
        best = {f"best.{k}": v for k, v in (self.best or {}).items()}
        write_state(self.folder, self.learner.tensors() | best, about)

    def _restore(self, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
        check_identity(about["config"], identity(self.config), failed=bool(about.get("failed")))
        self.learner.take(tensors, about.get("scaler", {}))
        self.best = {k: v.to(self.device) for k, v in part(tensors, "best").items()} or None
        self.step, self.elapsed_s = about["step"], about["elapsed_s"]
        self.best_score, self.stale = about["best_score"], about["stale"]
