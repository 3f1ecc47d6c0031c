"""The settings of a training, and a line of its log."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from sketchscale.errors import InputError, SetupError, UnknownNameError
from sketchscale.losses import LOSSES, LossConfig, find_loss
from sketchscale.networks import NetworkConfig, meta_network
from sketchscale.training.augment import AugmentConfig

__all__ = ["OPTIMIZERS", "Step", "SyntheticConfig", "TrainingConfig", "find_device", "rate_at"]

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": torch.optim.AdamW, "radam": torch.optim.RAdam}

_CHOICES: dict[str, Collection[str]] = {
    "optimizer": OPTIMIZERS,
    "precision": ("bfloat16", "float32", "float16"),
    "compile": ("auto", "on", "off"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticConfig:
    """Synthetic scenes among the images, see training.synthetic.

    Attributes:
        sha256: of what makes each stream of scenes, in order.
        share: of a batch's patches that are synthetic; 1 where there are no images.
    """

    sha256: tuple[str, ...]
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise InputError.of(
                found=f"a share of {self.share:g} synthetic patches", expected="above 0, at most 1", fix="0.5"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How a network is trained.

    Attributes:
        network, loss, augment: see their classes.
        steps: the largest number of steps; the schedule ends there.
        minutes: a second limit; the schedule follows the nearer one. None for no limit.
        batch, patch: patches per step, and their side in px (a multiple of the network's stride), along y and x; of
            volumes see NetworkConfig.sizes.
        optimizer: key of OPTIMIZERS.
        rate: peak of the learning rate; it rises over the first `warmup` share of the way, then falls to 0 as a cosine.
        weight_decay: of the optimiser, decoupled.
        schedule: "constant" keeps the rate at its peak after the rise; None lets it fall as a cosine.
        clip: largest norm of a step's gradient.
        average: the model is the running mean of the weights with this decay per step; 0 for the last weights.
        precision: of a step: "float32"; "bfloat16", which halves its time on processors and GPUs that compute in it and
            takes ten times as long on all others; "float16" (CUDA only, its loss is scaled so that small gradients
            survive) for GPUs without bfloat16. Scores of held-out annotation and thresholds are always of float32.
        compile: "on" runs the network through torch.compile, whose first step takes a minute or so; "auto" does on
            CUDA alone. Compiled and plain steps differ in the last digits.
        device: "cpu", "cuda", "mps".
        threads: of torch on the CPU; None leaves it alone. Other counts give other last digits.
        workers: threads that draw batches ahead; None takes one on a CPU with more than one usable core, several beside
            a GPU; 0 draws each batch when it is needed. No effect on what is learned.
        seed: of weights and patches.
        validate_every: steps between calls of the validation, 0 for never; after `patience` calls without a better
            value training stops, and the best weights are the model.
        held_out_patches: patches of held-out annotation that make the validation's score, see training.validation.
        save_every_s: seconds between saved states.
        refresh_every_s: seconds between looks for new strokes.
        preview_every: steps between previews, 0 for none.
        keep_bytes: of images and annotation that are kept between patches, see PatchSource; None keeps all.
        low, high, outside, min_size: see ModelConfig; min_size None takes it from the annotated objects.
        threshold: see ModelConfig; None sets it on the annotated pixels.
        synthetic: scenes to train on with the images, or alone; None for none.
        start: SHA-256 of the weights that training starts from; recorded, None for random ones.
        scales: network px per image px of each image, which came scaled by it; recorded, so that a resumed training
            keeps them, and so that prediction finds the scale of other images: () where images have their own scale.
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
    schedule: Literal["constant"] | None = None
    warmup: float = 0.05
    clip: float = 5.0
    average: float = 0.99
    precision: Literal["bfloat16", "float32", "float16"] = "float32"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "cpu"
    threads: int | None = None
    workers: int | None = None
    seed: int = 0
    validate_every: int = 0
    patience: int = 5
    held_out_patches: int = 16
    save_every_s: float = 180.0
    refresh_every_s: float = 3.0
    preview_every: int = 0
    keep_bytes: int | None = None
    low: float = 1.0
    high: float = 99.8
    outside: float = -5.0
    threshold: float | None = None
    min_size: int | None = None
    synthetic: SyntheticConfig | None = None
    start: str | None = None
    scales: tuple[float, ...] = ()

    @property
    def target(self) -> str:
        """The target of the loss, a key of networks.targets.TARGETS."""
        return find_loss(self.loss.name).target

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UnknownNameError.among(name, getattr(self, name), known)
        loss, dim = find_loss(self.loss.name), self.network.dim
        if loss.planes_only and dim != 2:
            raise InputError.of(
                found=f"the loss {self.loss.name} for volumes",
                expected="one of flow: " + ", ".join(name for name in LOSSES if not LOSSES[name].planes_only),
                fix="--loss auto",
            )
        object.__setattr__(self, "loss", replace(self.loss, anisotropy=self.network.anisotropy))
        if self.network.outputs < loss.outputs + dim - 2 or type(self.loss) is not loss.config:
            raise InputError.of(
                found=f"a network with {self.network.outputs} outputs and a {type(self.loss).__name__}",
                expected=f"{loss.outputs + dim - 2} and a {loss.config.__name__} for the loss {self.loss.name}",
                fix=f"set network.outputs, start from loss_config({self.loss.name!r})",
            )
        stride = meta_network(self.network).stride
        if self.patch < stride or self.patch % stride:
            raise InputError.of(
                found=f"patch {self.patch}",
                expected=f"a multiple of {stride} px, the network's stride",
                fix=f"--patch {stride * max(1, self.patch // stride)}",
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
        if self.held_out_patches < 1 or min(self.validate_every, self.preview_every, self.workers or 0) < 0:
            raise InputError.of(
                found=f"held_out_patches {self.held_out_patches}, validate_every {self.validate_every}, "
                f"preview_every {self.preview_every}, workers {self.workers}",
                expected="at least one patch, and none below 0",
                fix="leave out what is not meant",
            )
        if self.precision == "float16" and not self.device.startswith("cuda"):
            raise InputError.of(found=f"float16 on {self.device}", expected="CUDA for it", fix="bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The record of one step: a line of the log.

    Attributes:
        loss: of the step's batch, before its update.
        progress: share of the way, 0 to 1.
        score: the validation's value where it was called, larger is better; with held-out annotation it is minus the
            loss there.
        annotation: SHA-256 of all that was annotated, on the first step and wherever new strokes came in.
        terms: the parts of the loss by name, where there are several networks.
    """

    step: int
    loss: float
    rate: float
    elapsed_s: float
    progress: float
    score: float | None = None
    annotation: str | None = None
    terms: Mapping[str, float] | None = None


def rate_at(progress: float, config: TrainingConfig) -> float:
    """Return the learning rate at a share of the way, 0 to 1: a straight rise, then half a cosine down to 0.

    >>> c = TrainingConfig(rate=1.0, warmup=0.5)
    >>> [round(rate_at(p, c), 2) for p in (0.25, 0.5, 0.75, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if progress < config.warmup:
        return config.rate * max(progress / config.warmup, 1e-3)
    if config.schedule == "constant":
        return config.rate
    return config.rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - config.warmup) / (1 - config.warmup))))


def find_device(name: str) -> torch.device:
    """Return the device with this name.

    Raises:
        SetupError: this machine, or this build of torch, does not have it.
        UnknownNameError: the name is no kind of device.
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
