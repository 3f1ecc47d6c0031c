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
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import nn

from sketchscale import __version__
from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.errors import InputError, MissingDataError, ResumeError, SetupError, TaskError, UnknownNameError
from sketchscale.geometry import Box, tile_cover
from sketchscale.losses import BatchTargets, LossConfig, find_loss
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import Model, ModelConfig, replace_file
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.patches import PatchSource, TrainingImage

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

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Attributes:
        network, loss, augment: see there.
        steps: at most; the schedule ends there.
        minutes: a second limit; the schedule follows whichever is nearer. None for none.
        batch, patch: patches per step, and their side in px (a multiple of the network's stride).
        optimizer: key of OPTIMIZERS.
        rate: peak of the learning rate; it rises over the first `warmup` share of the way, then falls to 0 as a cosine.
        weight_decay: of the optimiser, decoupled.
        clip: largest norm of a step's gradient.
        average: the model is the running mean of the weights with this decay per step; 0 for the last weights.
        precision: "bfloat16" halves the time of a step on most CPUs; "float32".
        device: "cpu", "cuda", "mps".
        threads: of torch on the CPU; None leaves it alone. Other counts give other last digits.
        seed: of weights and patches.
        validate_every: steps between calls of the validation, 0 for never; after `patience` calls without a better
            value training stops, and the best weights are the model.
        save_every_s: seconds between saved states.
        low, high, outside, min_size: see ModelConfig; min_size None takes it from the annotated objects.
        threshold: see ModelConfig; None sets it on the annotated pixels.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    steps: int = 1000
    minutes: float | None = None
    batch: int = 8
    patch: int = 160
    optimizer: str = "adamw"
    rate: float = 3e-3
    weight_decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 5.0
    average: float = 0.99
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    device: str = "cpu"
    threads: int | None = None
    seed: int = 0
    validate_every: int = 0
    patience: int = 5
    save_every_s: float = 180.0
    low: float = 1.0
    high: float = 99.8
    outside: float = -5.0
    threshold: float | None = None
    min_size: int | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError.among("optimizer", self.optimizer, OPTIMIZERS)
        find_loss(self.loss.name)
        stride = 1 << (len(self.network.widths) - 1)
        if self.patch < stride or self.patch % stride:
            raise InputError.of(
                found=f"patch {self.patch}", expected=f"a multiple of {stride} px, the network's stride", fix="224"
            )
        if self.steps < 1 or self.batch < 1 or self.rate <= 0 or (self.minutes is not None and self.minutes <= 0):
            raise InputError.of(
                found=f"steps {self.steps}, batch {self.batch}, rate {self.rate}, minutes {self.minutes}",
                expected="all above 0",
                fix="leave out what is not meant",
            )
        if not (0 <= self.warmup < 1 and 0 <= self.average < 1 and self.patience >= 1 and self.clip > 0):
            raise InputError.of(
                found=f"warmup {self.warmup}, average {self.average}, patience {self.patience}, clip {self.clip}",
                expected="warmup and average from 0 to below 1, patience at least 1, clip above 0",
                fix="0.1, 0.99, 5, 5",
            )
        if self.precision not in ("bfloat16", "float32"):
            raise UnknownNameError.among("precision", self.precision, ("bfloat16", "float32"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A line of the log. `score` is the validation's value where it was called; `progress` runs from 0 to 1."""

    step: int
    loss: float
    rate: float
    elapsed_s: float
    progress: float
    score: float | None = None


def rate_at(progress: float, config: TrainingConfig) -> float:
    """The learning rate at a share of the way, 0 to 1: a straight rise, then half a cosine down to 0.

    >>> c = TrainingConfig(rate=1.0, warmup=0.5)
    >>> [round(rate_at(p, c), 2) for p in (0.25, 0.5, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < config.warmup:
        return config.rate * max(progress / config.warmup, 1e-3)
    return config.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - config.warmup) / (1 - config.warmup))))


def find_device(name: str) -> torch.device:
    """A device that is there.

    Raises:
        SetupError: it is not.
        UnknownNameError: not a kind of device.
    """
    kind = name.split(":")[0]
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in present:
        raise UnknownNameError.among("device", name, present)
    if not present[kind]:
        raise SetupError(
            f"device {name!r} is not there; expected: a torch build and a machine that have it; to fix: --device cpu"
        )
    return torch.device(name)


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


def check_images(images: Sequence[TrainingImage], config: TrainingConfig) -> None:
    """Refuse what cannot be learned from.

    Raises:
        InputError: says which kind of stroke is missing.
    """
    if not images:
        raise InputError.of(found="no image", expected="at least one with a sketch", fix="name images to train on")
    for image in images:
        if image.image.shape[0] != config.network.channels:
            raise InputError.of(
                found=f"{image.name} has {image.image.shape[0]} channels",
                expected=f"{config.network.channels}, as the network",
                fix="choose channels, or set network.channels",
            )
    if not any((image.labels > 0).any() for image in images):
        raise InputError.of(found="no foreground stroke", expected="some objects", fix="draw inside a few objects")
    if not any((image.labels == 0).any() for image in images):
        raise InputError.of(
            found="no background stroke", expected="some background", fix="draw thick strokes where no object is"
        )
    targets = (targets_from_sketch(i.labels, i.boundary, outside=config.outside) for i in images)
    if not any((t.known & (t.distance > 0)).any() for t in targets):
        raise InputError.of(
            found="no pixel whose distance to a boundary is known",
            expected="boundary information",
            fix="draw the outlines of a few objects as boundary strokes, or background right up to them",
        )


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
        found = replace(model.config, diameter=round(_diameter(self.images), 2), notes=model.config.notes)
        if self.config.threshold is None:
            found = replace(found, threshold=choose_threshold(model, self.images))
        if self.config.min_size is None:
            found = replace(found, min_size=_smallest(self.images))
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


def predict_image(
    model: Model, image: npt.NDArray[np.float32], where: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float32]:
    """Fields of a normalised image in memory, for validation and thresholds; stored images go through prediction.

    Args:
        image: (c, y, x); beyond the lower right it continues as its mirror image, up to the stride.
        where: (y, x), pixels that are needed; tiles without any are left at 0. None for all.

    Returns:
        (outputs, y, x). Computed by tiles with the network's context around them, so that memory stays small.
    """
    stride, context = int(model.network.stride), int(model.network.context)  # type: ignore[arg-type]
    halo, (_, h, w) = -(-context // stride) * stride, image.shape
    padded = np.pad(image, ((0, 0), (0, -h % stride), (0, -w % stride)), mode="symmetric")
    out = np.zeros((model.config.network.outputs, h, w), np.float32)
    for tile in tile_cover((h, w), (512 // stride * stride,) * 2):
        if where is not None and not where[tile.write.slices].any():
            continue
        read = tile.write.grow(halo).clip(padded.shape[1:])
        read = Box(read.start, tuple(-(-n // stride) * stride for n in read.stop))
        with torch.inference_mode():
            batch = torch.from_numpy(padded[(slice(None), *read.slices)])[None]
            fields = model.network(batch.to(memory_format=torch.channels_last))[0].float().numpy()
        core = tile.write.relative_to(read.start)
        out[(slice(None), *tile.write.slices)] = fields[(slice(None), *core.slices)]
    return out


def choose_threshold(model: Model, images: Sequence[TrainingImage], *, most: int = 40) -> float:
    """The distance that best separates annotated foreground from annotated background.

    Rule: among -4, -3.75, ..., 0 the one with the largest mean of two shares on their right side: of foreground pixels,
    and of background pixels together with drawn boundary pixels; of candidates within 0.002 of the best, the one in
    their middle. Drawn lines count because they say where objects end: background strokes alone, which keep away from
    objects, are told apart by any threshold.

    Args:
        most: images that are looked at, spread evenly over the sequence.
    """
    candidates = np.arange(-4, 0.01, 0.25)
    chosen = [images[int(i)] for i in np.linspace(0, len(images) - 1, min(most, len(images)))]
    inside, background = [], []
    for image in chosen:
        line = np.zeros(image.labels.shape, bool) if image.boundary is None else image.boundary
        distance = predict_image(model, image.image, (image.labels >= 0) | line)[2]
        inside.append(distance[(image.labels > 0) & ~line])
        background.append(distance[(image.labels == 0) | line])
    right = (
        _share_above(np.concatenate(inside), candidates) + 1 - _share_above(np.concatenate(background), candidates)
    ) / 2
    best = np.flatnonzero(right >= right.max() - 0.002)
    return float(candidates[best[len(best) // 2]])


def _share_above(values: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1 - np.searchsorted(np.sort(values), thresholds, side="right") / max(1, values.size)


def _areas(images: Sequence[TrainingImage]) -> npt.NDArray[np.int64]:
    areas = [np.bincount(image.labels[image.labels > 0]) for image in images]
    found = np.concatenate(areas) if areas else np.zeros(0, np.int64)
    return found[found > 0]


def _diameter(images: Sequence[TrainingImage]) -> float:
    return float(np.sqrt(4 / np.pi * np.median(_areas(images))))


def _smallest(images: Sequence[TrainingImage]) -> int:
    """Half of the 5th percentile of the annotated areas: nothing much smaller than what was shown is an object."""
    return max(1, int(np.percentile(_areas(images), 5) / 2))
