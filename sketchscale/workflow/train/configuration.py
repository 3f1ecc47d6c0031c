"""The settings of a training, from what a user chose and the model to start from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from sketchscale.config import TrainOptions
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.losses import LossConfig, find_loss, loss_config
from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import shipped_models
from sketchscale.networks.targets import TARGETS
from sketchscale.training.augment import AUGMENTS
from sketchscale.training.config import TrainingConfig
from sketchscale.training.state import kept_setting
from sketchscale.workflow.train.images import HELD_BYTES

__all__ = ["SAVING_S", "training_config", "with_init", "with_time_left"]

_START = "start"
"""The shipped model that knows several kinds of cells."""

_CALIBRATION_SHARE = 0.1
"""Share of the time of a training."""

SAVING_S = 2.0
"""Time kept for what comes after calibration: recording the kind of the images, and saving."""

_RATE, _RATE_FROM_START = 3e-3, 5e-4
"""Peaks of the learning rate from random weights and from a model; see benchmarks/results/start.txt."""


def with_init(options: TrainOptions, *, resume: bool = False) -> TrainOptions:
    """Return the options with a model to start from, or random weights, in the place of "auto".

    The shipped start is a network for planes of a given width that gives flow; who wants another network, width or
    target, or has no images but synthetic scenes, begins from random weights. A training that goes on keeps its choice,
    of the rate, too.
    """
    kept = partial(kept_setting, options.out, resume=resume)
    if options.rate == "auto" and (rate := kept("rate")) is not None:
        options = replace(options, rate=float(rate))
    if options.init != "auto":
        return options
    if kept("seed") is not None:
        return replace(options, init="random" if kept("start") is None else _START)
    flow = options.loss == "auto" or TARGETS[find_loss(options.loss).target].rule == "flow"
    fits = flow and options.network == "unet" and options.width == "auto" and options.images and not options.volume
    return replace(options, init=_START if fits and _START in shipped_models() else "random")


def with_time_left(config: TrainingConfig, began: float) -> TrainingConfig:
    """Return the configuration with the minutes that are left for steps.

    Args:
        began: when the training began, by `time.monotonic`.

    Raises:
        InputError: none are left.
    """
    if config.minutes is None:
        return config
    spent = time.monotonic() - began
    left = (1 - _CALIBRATION_SHARE) * 60 * config.minutes - SAVING_S - spent
    if left <= 0:
        raise InputError.of(
            found=f"--minutes {config.minutes:g}, of which reading the images and sketches took {spent / 60:.2g}",
            expected="time for at least one step",
            fix=f"--minutes {max(2.0, 3 * spent / 60):.2g}, or --steps",
        )
    return replace(config, minutes=left / 60)


def training_config(options: TrainOptions, network: NetworkConfig, validated: bool, *, started: bool) -> TrainingConfig:
    """Return the settings of a training.

    Args:
        options: without "auto" for sizes and loss.
        validated: whether some annotation is held out. started: whether training starts from a model.

    Raises:
        UnknownNameError, InputError: weights of terms that the loss does not have, or no numbers.
    """
    by_steps = options.steps is not None
    return TrainingConfig(
        network=network,
        loss=_loss_with_weights(options.loss, options.loss_weights),
        augment=AUGMENTS[options.augment],
        schedule="constant" if options.schedule == "constant" else None,
        steps=options.steps if options.steps is not None else 100_000,
        minutes=None if by_steps else options.minutes,
        batch=int(options.batch),
        patch=int(options.patch),
        rate=(_RATE_FROM_START if started else _RATE) if options.rate == "auto" else float(options.rate),
        validate_every=options.validate_every if validated else 0,
        keep_bytes=2 * HELD_BYTES,
        **{name: getattr(options, name) for name in _AS_THEY_ARE},
    )


def _loss_with_weights(name: str, given: Sequence[str]) -> LossConfig:
    """Return the settings of a loss with the weights that the user gave, as "distance=0.2"."""
    config = loss_config(name)
    known = {f.name for f in fields(config) if f.name not in ("name", "anisotropy")}
    changes: dict[str, Any] = {}
    for text in given:
        term, _, number = text.partition("=")
        if term not in known:
            raise UnknownNameError.among(f"weight of the loss {name}", term, known)
        try:
            changes[term] = type(getattr(config, term))(number)
        except ValueError as error:
            raise InputError.of(
                found=f"--loss-weight {text}", expected="a term and a number", fix=f"--loss-weight {term}=1"
            ) from error
    return replace(config, **changes)


_AS_THEY_ARE = (
    *("weight_decay", "optimizer", "patience", "seed"),
    *("compile", "device", "threads", "save_every_s", "preview_every"),
)
