"""Small drawn examples, and classifiers with random weights."""

from __future__ import annotations

import numpy as np
import torch

from sketchscale.objects.classifiers import Classifier, ClassifierConfig, NetworkOptions, PatchOptions
from sketchscale.objects.classifiers.base import create_network


def discs(n, seed, side=24):
    """Two kinds of texture on discs, as patches; half of them finely, half coarsely striped."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side)) - side / 2
    patches, names = np.zeros((n, 2, side, side), np.float32), []
    for patch in patches:
        kind = rng.integers(2)
        turn, mask = rng.uniform(0, np.pi), y * y + x * x < rng.uniform(5, 10) ** 2
        stripes = np.sin(2 * np.pi * (np.cos(turn) * y + np.sin(turn) * x) / (3, 7)[kind] + rng.uniform(0, 6))
        patch[0] = 0.4 * rng.uniform(0.7, 1.3) + mask * (0.3 * stripes + rng.normal(0, 0.1, y.shape))
        patch[1] = mask
        names.append(("fine", "coarse")[kind])
    return patches, names


def table_rows(patches):
    """Two columns that say something about the texture, and a useless one."""
    rows = []
    for i, patch in enumerate(patches):
        mask = patch[1] > 0
        steps = np.hypot(*np.gradient(patch[0]))[mask]
        rows.append([steps.mean() / patch[0][mask].std(), steps.std(), i % 7])
    return np.array(rows, np.float64)


FEATURES = ("slope", "steps", "useless")


def untrained(channels=2, classes=("a", "b", "c"), side=8, dim=2, kind="light", seed=0, **options):
    """A network with random weights and, in its batch norms, random statistics."""
    config = ClassifierConfig(
        kind=kind,
        channels=tuple(f"c{i}" for i in range(channels)),
        classes=tuple(classes),
        side=side,
        ranges=((0.0, 1.0),) * channels,
        dim=dim,
        network=NetworkOptions(**options.get("network", {})),
        patches=PatchOptions(**options.get("patches", {})),
    )
    torch.manual_seed(seed)
    state = create_network(config).state_dict()
    for name, values in state.items():
        if name.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5)
    return Classifier(config=config, weights={name: value.numpy().copy() for name, value in state.items()})
