"""Fit a network to patches with Adam over augmented batches; seeded, on one thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, StepLR

from sketchscale.engine.cancelling import check_cancelled
from sketchscale.networks.precision import autocast
from sketchscale.objects.classifiers.augmentation import augmented
from sketchscale.objects.classifiers.base import (
    BATCH_PIXELS,
    ClassifierConfig,
    Patches,
    channels_last,
    create_network,
    one_thread,
)
from sketchscale.objects.classifiers.losses import class_loss
from sketchscale.objects.classifiers.options import TrainingOptions
from sketchscale.objects.classifiers.preparation import prepare_patches

__all__ = ["fit_network"]

Weights = dict[str, npt.NDArray[Any]]


def fit_network(
    patches: Patches,
    targets: npt.NDArray[np.int64],
    class_weights: npt.NDArray[np.float64],
    config: ClassifierConfig,
    options: TrainingOptions,
    init: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Weights:
    """Train a network and return its weights.

    Args:
        patches: (n, C + 1, [s,] s, s) as cut; prepared here according to `config.patches`.
        targets: (n,) classes.
        class_weights: (L,).
        init: weights to start from, by name; missing ones are drawn.
    """
    data = channels_last(prepare_patches(patches, config.patches))
    wanted, weights = torch.from_numpy(targets), torch.from_numpy(class_weights.astype(np.float32))
    # A step on large patches takes fewer of them: as much work as 32 patches of 64 px, but at least 8.
    batch = min(options.batch, max(8, BATCH_PIXELS // int(np.prod(patches.shape[2:]))))
    steps = options.steps if options.epochs is None else -(-options.epochs * len(targets) // batch)
    rng = np.random.default_rng((options.seed, 2))
    with one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(options.seed)
        network = create_network(config)
        known = {name: torch.from_numpy(np.array(values)) for name, values in (init or {}).items()}
        network.load_state_dict({**network.state_dict(), **known})
        network.to(options.device).train()
        optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
        schedule: LRScheduler
        if options.schedule == "cosine":
            schedule = CosineAnnealingLR(optimiser, steps)
        else:
            schedule = StepLR(optimiser, max(1, -(-steps // 3)), 0.1 if options.schedule == "step" else 1.0)
        for rows in _batches(len(targets), batch, steps, rng):
            check_cancelled()
            seen = augmented(data[rows], options.augment, rng, len(config.channels)).to(options.device)
            with autocast(options.device, options.precision):
                logits = network(seen).float()
            loss = class_loss(options.loss, logits, wanted[rows].to(logits.device), weights.to(logits.device))
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return {name: np.ascontiguousarray(value.cpu().numpy()) for name, value in network.state_dict().items()}


def _batches(n: int, size: int, steps: int, rng: np.random.Generator) -> Iterator[torch.Tensor]:
    """Yield the rows of each step; every example is used once before any is used again."""
    waiting = np.zeros(0, np.int64)
    for _ in range(steps):
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(n)])
        rows, waiting = waiting[:size], waiting[size:]
        yield torch.from_numpy(rows)
