"""Options for training a classifier, for networks and forests; each kind uses those that concern it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from sketchscale.errors import InputError, SetupError, UnknownNameError
from sketchscale.objects.classifiers.augmentation import AugmentOptions
from sketchscale.objects.classifiers.base import NetworkOptions
from sketchscale.objects.classifiers.forests import ForestOptions
from sketchscale.objects.classifiers.losses import CLASS_LOSSES
from sketchscale.objects.classifiers.preparation import PatchOptions

__all__ = ["CLASS_WEIGHTS", "PRECISIONS", "SCHEDULES", "TrainingOptions"]

SCHEDULES = ("cosine", "step", "constant")
CLASS_WEIGHTS = ("balanced", "none")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """Options for training a classifier.

    Attributes:
        steps: optimiser steps of a network; each uses `batch` patches, turned and flipped at random.
        epochs: how often each example is used; replaces `steps` unless None.
        batch: patches per step; fewer if patches are larger than 64 px, so that a step costs the same.
        learning_rate: of Adam, at the start.
        schedule: "cosine" falls to zero along a cosine, "step" to a tenth after each third of the steps, "constant".
        weight_decay: of Adam.
        loss: name in CLASS_LOSSES.
        augment: random changes of patches.
        network: size of the network.
        patches: preparation of patches.
        forest: options of forests.
        class_weights: "balanced": equal weight of all classes; "none": equal weight of all examples; or a weight for
            each class by name.
        network_share: weight of the network in an ensemble, 0 to 1.
        held_out: share of each class, up to a half, that is left out of a first training for an unbiased score; the
            classifier itself is then trained on everything. 0 gives no score.
        seed: of weights, batches and the held-out choice.
        precision: of the network: "float32" or "bfloat16".
        device: of torch, such as "cuda"; only the CPU guarantees the same weights to the bit.
    """

    steps: int = 150
    epochs: int | None = None
    batch: int = 32
    learning_rate: float = 0.01
    schedule: str = "cosine"
    weight_decay: float = 0.0
    loss: str = "cross-entropy"
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    network: NetworkOptions = field(default_factory=NetworkOptions)
    patches: PatchOptions = field(default_factory=PatchOptions)
    forest: ForestOptions = field(default_factory=ForestOptions)
    class_weights: str | Mapping[str, float] = "balanced"
    network_share: float = 0.5
    held_out: float = 0.2
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        numbers = (
            min(self.steps, 1 if self.epochs is None else self.epochs) >= 1
            and self.batch >= 2
            and self.weight_decay >= 0
        )
        if not numbers or not self.learning_rate > 0 or not 0 <= self.held_out <= 0.5:
            raise InputError.of(
                found=f"steps {self.steps}, epochs {self.epochs}, batch {self.batch}, rate {self.learning_rate}, "
                f"weight decay {self.weight_decay}, held out {self.held_out}",
                expected="steps and epochs >= 1, batch >= 2, rate > 0, weight decay >= 0, 0 <= held out <= 0.5",
                fix="leave out options that you do not need",
            )
        if not 0 <= self.network_share <= 1:
            raise InputError.of(found=f"network share {self.network_share}", expected="0 to 1", fix="leave it at 0.5")
        names = (
            ("loss", self.loss, CLASS_LOSSES),
            ("schedule", self.schedule, SCHEDULES),
            ("precision", self.precision, PRECISIONS),
        )
        for option, name, known in names:
            if name not in known:
                raise UnknownNameError.among(option, name, known)
        if isinstance(self.class_weights, str) and self.class_weights not in CLASS_WEIGHTS:
            raise UnknownNameError.among("choice of class weights", self.class_weights, CLASS_WEIGHTS)
        present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        kind = self.device.partition(":")[0]
        if kind not in present:
            raise UnknownNameError.among("device", self.device, present)
        if not present[kind]:
            raise SetupError(
                f"device {self.device!r} is not there; expected: a torch build and a machine that have it; "
                "to fix: --device cpu"
            )
