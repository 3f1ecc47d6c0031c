"""Small things to train on: drawn discs, a network that learns in seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.networks import NetworkConfig
from sketchscale.networks.checkpoint import Model
from sketchscale.training.config import TrainingConfig
from sketchscale.training.patches import TrainingImage

TINY = TrainingConfig(
    network=NetworkConfig(widths=(4, 8)),
    steps=6,
    batch=2,
    patch=32,
    precision="float32",
    threads=1,
    average=0.5,
    seed=3,
    minutes=None,
)


def discs(seed: int = 0, size: int = 64) -> npt.NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    y, x = np.indices(labels.shape)
    for k in range(1, 9):
        cy, cx, r = *rng.uniform(5, size - 5, 2), rng.uniform(4, 7)
        labels[((y - cy) ** 2 + (x - cx) ** 2 < r * r) & (labels == 0)] = k
    return labels


def picture(labels: npt.NDArray[np.int32], seed: int = 0) -> npt.NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(0, 0.05, labels.shape)
    return ((labels > 0) * 0.8 + 0.1 + noise).astype(np.float32)[None]


def without(image: TrainingImage, mask: npt.NDArray[np.bool_]) -> TrainingImage:
    """The image with nothing known under a mask (y, x)."""
    boundary = None if image.boundary is None else image.boundary & ~mask
    return replace(image, labels=np.where(mask, np.int32(-1), image.labels), boundary=boundary)


def example(seed: int = 0) -> TrainingImage:
    labels = discs(seed)
    return TrainingImage(image=picture(labels), labels=labels, name=f"discs {seed}")


def weights(model: Model) -> dict[str, torch.Tensor]:
    return model.network.state_dict()


def same(a: Model, b: Model) -> bool:
    return all(torch.equal(weights(a)[k], weights(b)[k]) for k in weights(a))
