"""Batches of random sketches, and predictions that no loss can fault."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.annotations.hover_maps import maps_from_sketch
from sketchscale.annotations.targets import targets_from_sketch
from sketchscale.losses import BatchTargets, EikonalConfig, LossConfig
from sketchscale.training.patches import stack_targets
from tests.oracles import targets as oracle

Codes = npt.NDArray[np.int32]

DATA_ONLY = EikonalConfig(length=0, slope=0, coupling=0)
"""The eikonal loss without the terms that act where nothing is drawn."""


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


def data_only(name: str, config: LossConfig | None = None) -> LossConfig:
    """A configuration of a loss whose terms all need annotation."""
    return replace(config or LossConfig(), name=name, eikonal=DATA_ONLY)


def perfect(name: str, t: BatchTargets) -> torch.Tensor:
    """(n, 3 or 4, y, x) without any fault that the data terms of a loss could find."""
    if name == "hover":
        signs = torch.where(t.maps[:, 2:3] > 0, 40.0, -40.0)
        return torch.cat([torch.atanh(t.maps[:, :2]).clamp(-20, 20), signs], dim=1)
    within = (t.lower + t.upper.clamp(max=1e3)) / 2
    if name == "eikonal":
        distance = torch.where(t.signed_known, t.signed, torch.where(t.inside, 1.0, -1.0))
    else:
        distance = t.distance
    distance = distance if name == "dense" else torch.where(t.bounded, within, distance)
    parts = [t.flow, distance[:, None]]
    if name == "sketchpose-1":
        parts.append(torch.where(t.boundary, 40.0, -40.0)[:, None])
    return torch.cat(parts, dim=1)


def random_prediction(seed: int, targets: BatchTargets, outputs: int) -> torch.Tensor:
    n, h, w = targets.known.shape
    return torch.randn(n, outputs, h, w, generator=torch.Generator().manual_seed(seed % 2**31))
