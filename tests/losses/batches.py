"""Batches of random sketches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.annotations.hover_maps import maps_from_sketch
from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.losses import BatchTargets
from sketchscale.training.patches import stack_targets
from tests.oracles import targets as oracle

Codes = npt.NDArray[np.int32]


def batch(*sketches: Codes) -> BatchTargets:
    """Targets of sketches of one size, in region codes, with maps."""
    return stack_targets(
        [
            replace(targets_from_sketch(np.where(s == -2, -1, s), s == -2), maps=maps_from_sketch(s.astype(np.int32)))
            for s in sketches
        ]
    )


def random_batch(seed: int, shape: tuple[int, int] = (14, 17)) -> BatchTargets:
    rng = np.random.default_rng(seed)
    return batch(*(oracle.random_sketch(rng, oracle.random_truth(rng, shape)) for _ in range(2)))


def full_mask(seed: int, shape: tuple[int, int]) -> Codes:
    """Everything annotated, nothing drawn; background and at least one object with a boundary."""
    truth = np.maximum(oracle.random_truth(np.random.default_rng(seed), shape), 0)
    truth[0, :2] = 0, 1
    return truth


def random_prediction(seed: int, targets: BatchTargets, outputs: int) -> torch.Tensor:
    n, h, w = targets.known.shape
    return torch.randn(n, outputs, h, w, generator=torch.Generator().manual_seed(seed % 2**31))
