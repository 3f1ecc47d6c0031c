"""Train a segmenter on sketches or dense labels, in the frame of training.frame.

Further guarantees:
  * the batch of step t is a function of the annotation as it stands at t, the configuration and t. Where strokes were
    added, "to the bit" holds for a training that meets the same annotation at the same steps; the log names the
    annotation (its SHA-256) on the first step and wherever it changed, and resumed training starts with what is
    annotated then;
  * the learning rate follows the schedule, and the log says which rate was applied;
  * the threshold that comes with the model is set on the annotated pixels, by default by `choose_threshold`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from sketchscale.losses import find_loss
from sketchscale.networks import create_network
from sketchscale.networks.adapt import adapt_weights
from sketchscale.networks.checkpoint import Model, ModelConfig
from sketchscale.networks.precision import torch_threads
from sketchscale.networks.targets import TARGETS
from sketchscale.training.checks import annotation_sha256, check_images
from sketchscale.training.config import OPTIMIZERS, Step, TrainingConfig, find_device, rate_at
from sketchscale.training.distributed import World, join_world
from sketchscale.training.frame import Frame
from sketchscale.training.learner import Learner, part
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.prefetch import Batch, move_batch, pin_batch
from sketchscale.training.previews import Preview, choose_window, make_preview
from sketchscale.training.synthetic import SceneStream, SceneWindow, drawing_of
from sketchscale.training.thresholds import (
    choose_threshold,
    object_diameter,
    predict_image,
    predicted_areas,
    smallest_size,
)
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
    "train",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Callbacks during training; of several processes only the first calls them.

    Attributes:
        refresh: called every few seconds; returns all images again, or None where nothing changed.
        on_preview: given a preview every `preview_every` steps, and one at the end.
        interrupted: called before every step; returns whether an interrupt came by another way than a signal.
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
        images: with some foreground, with background unless there is `init`, and with boundaries (drawn, or between
            labels) unless the loss does without them; none where synthetic scenes alone teach, see `config.synthetic`
            and `hooks.scenes`.
        run_folder: path or address for state and log, see training.state; only the first process uses it. A file named
            `stop` in it ends training as if it were done.
        init: weights to start from, see networks.adapt.
        validation: held-out annotation, scored every `config.validate_every` steps; see training.validation.
        on_step: called after every step, by the first process.
        resume: go on from the state in `run_folder`; without one, start.

    Returns:
        A model that was not saved yet: the mean of the weights, where it scored best if it was scored.

    Raises:
        InputError: the sketch lacks what the loss needs, see training.checks; channels differ from the network's;
            `init` is of another architecture.
        ResumeError: the state was made with another configuration.
        TaskError: the loss is not a number.
        SetupError: the device is not there.
        KeyboardInterrupt: an interrupt came, and the state was saved.
    """
    check_images(images, config, started=init is not None)
    device = find_device(config.device)
    with join_world(device) as world, torch_threads(config.threads):
        run = _Run(images, config, str(run_folder), device, world)
        run.begin(init, hooks or Hooks(), validation)
        run.on_step = on_step
        run.run(resume=resume)
        return run.finish()


def _with_threshold(model: Model, images: Sequence[AnnotatedImage]) -> Model:
    prefer = 0.0 if find_loss(model.provenance["training"]["loss"]["name"]).interior else None
    return replace(model, config=replace(model.config, threshold=choose_threshold(model, images, prefer=prefer)))


_VOLUME_TILES: dict[str, Any] = {"tile": 128, "overlap": 32}
"""Along y and x. A tile of 64 x 128 x 128 px of a network of width 8 needs 0.3 GB."""


class _Run(Frame[Batch]):
    """The state of one `train` call."""

    config: TrainingConfig
    free = (*Frame.free, "minutes", "workers", "compile", "refresh_every_s", "preview_every", "keep_bytes", "start")
    free_after_failure = (*Frame.free_after_failure, "clip")

    def __init__(
        self, images: Sequence[AnnotatedImage], config: TrainingConfig, folder: str, device: torch.device, world: World
    ) -> None:
        super().__init__(config, folder, device, world)
        self.minutes, self.workers, self.look_every_s = config.minutes, config.workers, config.refresh_every_s
        self.images, self.scenes = tuple(images), SceneWindow(config)
        self.best: dict[str, torch.Tensor] | None = None
        self.best_score, self.stale = -math.inf, 0
        self.validate: Callable[[], float] | None = None
        self.started = False

    def begin(self, init: Model | None, hooks: Hooks, validation: Sequence[AnnotatedImage]) -> None:
        """Make the network, and set images, validation and the caller's hooks."""
        config = self.config
        network = create_network(config.network, seed=config.seed)
        self.started = init is not None
        if init is not None:
            network.load_state_dict(adapt_weights(init, config.network, target=config.target, seed=config.seed))
        threshold = init.config.threshold if init is not None else None
        self.learner = Learner(network, config, self.device, self.world, start=threshold)
        self.hooks, self.interrupted, self.refreshes = hooks, hooks.interrupted, hooks.refresh is not None
        self.show_every = config.preview_every if hooks.on_preview else 0
        self.scenes.stream = hooks.scenes
        self._take_images(self.images)
        validate = hooks.validate
        if validation:
            held_out = score_held_out(validation, config, self.device, self.world)
            self.validate = lambda: held_out(self.learner.still(self.learner.average))
        elif validate is not None:
            self.validate = lambda: float(validate(self._model(self.learner.average)))

    def _take_images(self, images: Sequence[AnnotatedImage]) -> None:
        self.images, self.new_annotation = tuple(images), annotation_sha256(images)
        self.shown = self.images or self.scenes.fixed
        self.window = choose_window(self.shown)
        self.patches = drawing_of(self.images, self.scenes, self.config)

    def draw(self, step: int) -> Batch:
        """Return this process's share of a step's batch; in pinned memory for CUDA."""
        batch = self.patches(step, self.share)
        return pin_batch(batch) if self.device.type == "cuda" else batch

    def refresh(self) -> bool:
        """Take new images from the caller, if there are any; return whether there were."""
        images = self.hooks.refresh() if self.hooks.refresh is not None and self.world.first else None
        images = self.world.first_says(images)
        if images is not None:
            check_images(images, self.config, started=self.started)
            self._take_images(images)
        return images is not None

    def learn(self, batch: Batch) -> dict[str, Any]:
        """Take a step with the scheduled rate, and return the fields of its Step."""
        rate = rate_at(self.progress, self.config)
        loss = self.learner.learn(move_batch(batch, self.device), rate)
        self.learner.update_average(self.step + 1)
        new = self.new_annotation if self.new_annotation != self.log.annotation else None
        return {"loss": loss, "rate": rate, "annotation": new}

    def named(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return image and targets of a batch by name."""
        image, targets = batch
        return {"image": image, **{f.name: getattr(targets, f.name) for f in fields(targets)}}

    def score(self) -> float | None:
        """Validate every `validate_every` steps, keep the best weights, and return the score."""
        every = self.config.validate_every
        if self.validate is None or not every or self.step % every:
            return None
        score = self.validate()
        if score > self.best_score:
            self.best_score, self.stale = score, 0
            self.best = {k: v.clone() for k, v in self.learner.average.items()}
        else:
            self.stale += 1
        return score

    def is_stale(self) -> bool:
        """Return whether the last `patience` validations brought no better score."""
        return bool(self.config.validate_every) and self.stale >= self.config.patience

    def show(self) -> None:
        """Give the caller a preview."""
        assert self.hooks.on_preview is not None
        position, box = self.window
        model = self._model(self.learner.average)
        self.hooks.on_preview(make_preview(model, self.shown[position], box, self.step))

    def _model(self, weights: Mapping[str, torch.Tensor]) -> Model:
        """Return the model with these weights, on the device."""
        c = self.config
        config = ModelConfig(
            network=c.network,
            target=c.target,
            low=c.low,
            high=c.high,
            outside=c.outside,
            finds_scale=bool(c.scales) and TARGETS[c.target].rule == "flow",
            threshold=TARGETS[c.target].middle(c.outside) if c.threshold is None else c.threshold,
            min_size=20 if c.min_size is None else c.min_size,
            **({} if c.network.dim == 2 else _VOLUME_TILES),
        )
        provenance = {**self.provenance(), "images": len(self.images), "curve": self.log.curve()}
        return Model(network=self.learner.still(weights), config=config, provenance=provenance)

    def finish(self) -> Model:
        """Return the trained model on the CPU, with object sizes and threshold set."""
        model, areas = self._model(self.best or self.learner.average), None
        network = self.config.network
        if self.images and (find_loss(self.config.loss.name).interior or network.dim == 3):
            at_zero = replace(model, config=replace(model.config, threshold=self.config.threshold or 0.0))
            areas = predicted_areas(at_zero, self.shown)
            areas = areas if areas.size else None
        found = replace(model.config, diameter=round(object_diameter(self.shown, areas, network.anisotropy), 2))
        if self.config.min_size is None:
            found = replace(found, min_size=smallest_size(self.shown, areas))
        model = replace(model, config=found, network=model.network.cpu())
        if self.config.threshold is None and model.target.lengths and self.world.first:
            return (self.hooks.settle or _with_threshold)(model, self.shown)
        return model

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the learner's tensors and the best weights."""
        return self.learner.tensors() | {f"best.{k}": v for k, v in (self.best or {}).items()}

    def numbers(self) -> dict[str, Any]:
        """Return the scores and the state of the loss scaler."""
        scaler = self.learner.scaler.state_dict()
        return {"best_score": self.best_score, "stale": self.stale, "scaler": scaler}

    def take(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """Restore what `tensors` and `numbers` returned."""
        self.learner.take(tensors, numbers.get("scaler", {}))
        self.best = {k: v.to(self.device) for k, v in part(tensors, "best").items()} or None
        self.best_score, self.stale = numbers["best_score"], numbers["stale"]
