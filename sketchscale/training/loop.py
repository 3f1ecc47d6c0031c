"""Training: optimise, validate, log, save, resume.

    step t ─ batch(seed, t) ─ loss ─ clip ─ optimiser at rate(t) ─ average ─▶ every so often: log, validate, save

What it guarantees:
  * the batch of step t is a function of the data, the configuration and t, and the saved state holds all that is
    carried from step to step: interrupted and resumed training ends with the weights of uninterrupted training, to the
    bit, on the same device and number of threads (a time limit is the exception, as clocks differ);
  * the learning rate follows the schedule, and the log says which rate was applied;
  * a loss that is not a number ends training with the last good state on disk;
  * the threshold that comes with the model is set on the annotated pixels (see `choose_threshold`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import nn

from sketchscale import __version__
from sketchscale.errors import InputError, MissingDataError, ResumeError, TaskError
from sketchscale.losses import BatchTargets, find_loss
from sketchscale.networks import create_network
from sketchscale.networks.checkpoint import Model, ModelConfig, replace_file
from sketchscale.training.checks import check_images
from sketchscale.training.config import OPTIMIZERS, Step, TrainingConfig, find_device, rate_at
from sketchscale.training.patches import PatchSource, TrainingImage
from sketchscale.training.thresholds import choose_threshold, median_diameter, predict_image, smallest_size

__all__ = [
    "OPTIMIZERS",
    "Step",
    "TrainingConfig",
    "choose_threshold",
    "find_device",
    "predict_image",
    "rate_at",
    "train",
]


def train(
    images: Sequence[TrainingImage],
    config: TrainingConfig,
    *,
    run_folder: str | Path,
    init: Model | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    validate: Callable[[Model], float] | None = None,
    resume: bool = False,
) -> Model:
    """Train a network on sketches or dense labels.

    Args:
        images: with at least one foreground, one background and one boundary (drawn, or between labels) among them.
        run_folder: for the state and `log.jsonl`. A file named `stop` in it ends training as if it were done.
        init: weights to start from; its network must have the shape of `config.network`.
        on_step: called after every step.
        validate: larger is better; called every `config.validate_every` steps.
        resume: go on from the state in `run_folder`; without one, start.

    Returns:
        A model that was not saved yet.

    Raises:
        InputError: the sketch lacks background, foreground or boundaries; channels differ from the network's.
        ResumeError: the state was made with another configuration.
        TaskError: the loss is not a number.
        SetupError: the device is not there.
        KeyboardInterrupt: goes on to the caller after the state was saved.
    """
    check_images(images, config)
    run = _Run(images, config, Path(run_folder), init)
    if resume:
        run.restore()
    with _threads(config.threads):
        run.optimise(on_step, validate)
        return run.finish()


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Run:
    """The state of one `train` call."""

    def __init__(
        self, images: Sequence[TrainingImage], config: TrainingConfig, folder: Path, init: Model | None
    ) -> None:
        self.config, self.folder, self.images = config, folder, images
        self.device = find_device(config.device)
        self.source = PatchSource(images, size=config.patch, augment=config.augment, outside=config.outside)
        self.loss = find_loss(config.loss.name)
        network = create_network(config.network, seed=config.seed)
        if init is not None:
            _start_from(network, init)
        self.network = network.to(self.device).train()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.best: dict[str, torch.Tensor] | None = None
        options = {"decoupled_weight_decay": True} if config.optimizer == "radam" else {}
        self.optimizer = OPTIMIZERS[config.optimizer](
            self.network.parameters(), lr=config.rate, weight_decay=config.weight_decay, **options
        )
        self.step, self.elapsed_s, self.best_score, self.stale = 0, 0.0, -math.inf, 0
        self.log: list[Step] = []
        self.stopped = "steps"

    @property
    def progress(self) -> float:
        share = self.step / self.config.steps
        if self.config.minutes is not None:
            share = max(share, self.elapsed_s / (60 * self.config.minutes))
        return min(1.0, share)

    def optimise(self, on_step: Callable[[Step], None], validate: Callable[[Model], float] | None) -> None:
        saved = began = time.monotonic()
        spent = self.elapsed_s
        try:
            while not self._done():
                line = self._advance(validate)
                self.elapsed_s = spent + time.monotonic() - began
                self.log.append(replace(line, elapsed_s=self.elapsed_s))
                on_step(self.log[-1])
                if time.monotonic() - saved > self.config.save_every_s:
                    self.save()
                    saved = time.monotonic()
        except KeyboardInterrupt:
            self.save()
            raise
        self.save()

    def _done(self) -> bool:
        if self.progress >= 1:
            self.stopped = "minutes" if self.step < self.config.steps else "steps"
        elif self.config.validate_every and self.stale >= self.config.patience:
            self.stopped = "no better validation"
        elif (self.folder / "stop").exists():
            self.stopped = "stop file"
        else:
            return False
        return True

    def _advance(self, validate: Callable[[Model], float] | None) -> Step:
        rate = rate_at(self.progress, self.config)
        loss = self._optimise_once(rate)
        self.step += 1
        self._average()
        score = None
        if validate is not None and self.config.validate_every and self.step % self.config.validate_every == 0:
            score = self._validate(validate)
        return Step(step=self.step, loss=loss, rate=rate, elapsed_s=0.0, progress=self.progress, score=score)

    def _optimise_once(self, rate: float) -> float:
        rng = np.random.default_rng((self.config.seed, self.step))
        image, targets = self.source.batch(rng, self.config.batch)
        targets = _moved(targets, self.device)
        image = image.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            prediction = self.network(image)
        loss = self.loss(prediction, targets, self.config.loss)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._save_if_finite()
            raise TaskError(
                f"step {self.step + 1}: the loss is {value}; expected: a number; "
                f"to fix: a smaller training rate (now {self.config.rate}), then run again with --resume"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return value

    def _average(self) -> None:
        """Early on the mean is short, so that the random start is forgotten."""
        decay = min(self.config.average, self.step / (self.step + 10))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def _validate(self, validate: Callable[[Model], float]) -> float:
        score = float(validate(self._model(self.average)))
        if score > self.best_score:
            self.best_score, self.stale = score, 0
            self.best = {k: v.clone() for k, v in self.average.items()}
        else:
            self.stale += 1
        return score

    def _model(self, weights: dict[str, torch.Tensor], config: ModelConfig | None = None) -> Model:
        network = create_network(self.config.network)
        network.load_state_dict({k: v.cpu() for k, v in weights.items()})
        network.eval().requires_grad_(False)
        c = self.config
        config = config or ModelConfig(
            network=c.network,
            low=c.low,
            high=c.high,
            outside=c.outside,
            threshold=(0.5 + c.outside) / 2 if c.threshold is None else c.threshold,
            min_size=20 if c.min_size is None else c.min_size,
        )
        return Model(network=network, config=config, provenance=self._provenance())

    def finish(self) -> Model:
        model = self._model(self.best or self.average)
        found = replace(model.config, diameter=round(median_diameter(self.images), 2), notes=model.config.notes)
        if self.config.threshold is None:
            found = replace(found, threshold=choose_threshold(model, self.images))
        if self.config.min_size is None:
            found = replace(found, min_size=smallest_size(self.images))
        return replace(model, config=found)

    def _provenance(self) -> dict[str, Any]:
        return {
            "sketchscale": __version__,
            "torch": str(torch.__version__),
            "training": json.loads(json.dumps(asdict(self.config))),
            "images": len(self.images),
            "steps": self.step,
            "seconds": round(self.elapsed_s, 1),
            "ended_by": self.stopped,
        }

    def save(self) -> None:
        """State into one file, replaced whole; the log beside it."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        tensors |= {f"best.{k}": v for k, v in (self.best or {}).items()}
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
        about = {
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "best_score": self.best_score,
            "stale": self.stale,
            "config": _identity(self.config),
        }
        data = safetensors.torch.save(
            {k: v.detach().cpu().contiguous() for k, v in tensors.items()}, metadata={"about": json.dumps(about)}
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / "state.safetensors", data)
        lines = "".join(json.dumps(asdict(line)) + "\n" for line in self.log)
        replace_file(self.folder / "log.jsonl", lines.encode())

    def _save_if_finite(self) -> None:
        """The weights are still those of the step before; running means may have caught what is wrong."""
        if all(bool(torch.isfinite(v.float()).all()) for v in self.network.state_dict().values()):
            self.save()

    def restore(self) -> None:
        path = self.folder / "state.safetensors"
        if not path.exists():
            return
        try:
            with safetensors.safe_open(path, framework="pt") as stored:
                about = json.loads(stored.metadata()["about"])
                tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
            lines = (self.folder / "log.jsonl").read_text().splitlines()
        except FileNotFoundError as error:
            raise MissingDataError(f"{self.folder} lacks {error.filename}; {_START_AGAIN}") from error
        except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path} does not read ({error}); {_START_AGAIN}") from error
        _check_identity(about["config"], _identity(self.config))
        self._take(tensors)
        self.log = [Step(**json.loads(line)) for line in lines][: about["step"]]
        self.step, self.elapsed_s = about["step"], about["elapsed_s"]
        self.best_score, self.stale = about["best_score"], about["stale"]

    def _take(self, tensors: dict[str, torch.Tensor]) -> None:
        def part(name: str) -> dict[str, torch.Tensor]:
            return {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}

        self.network.load_state_dict(part("network"))
        self.average = {k: v.to(self.device) for k, v in part("average").items()}
        self.best = part("best") or None
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in part("optimizer").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})


_START_AGAIN = "expected: the state of an interrupted training; to fix: start again with --overwrite"


def _identity(config: TrainingConfig) -> dict[str, Any]:
    """What resumed training must have in common; how long it may take and how often it saves is free."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    for free in ("minutes", "save_every_s", "device", "threads"):
        values.pop(free)
    return values


def _check_identity(stored: dict[str, Any], wanted: dict[str, Any]) -> None:
    differing = sorted(k for k in {*stored, *wanted} if stored.get(k) != wanted.get(k))
    if differing:
        raise ResumeError(
            f"the training to resume differs in {', '.join(differing)}; expected: the same configuration; "
            f"to fix: set it back, or start again with --overwrite"
        )


def _start_from(network: nn.Module, init: Model) -> None:
    weights, wanted = init.network.state_dict(), network.state_dict()
    if {k: v.shape for k, v in weights.items()} != {k: v.shape for k, v in wanted.items()}:
        raise InputError.of(
            found=f"weights of {init.config.network}",
            expected="the shape of the network to train",
            fix="the same widths",
        )
    network.load_state_dict(weights)


def _moved(targets: BatchTargets, device: torch.device) -> BatchTargets:
    return BatchTargets(**{name: getattr(targets, name).to(device) for name in BatchTargets.__slots__})
