"""Train a classifier on annotated objects, and score it on some of them that a first training did not see.

Training is seeded and runs on one thread: the same objects give the same weights, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sketchscale.errors import InputError
from sketchscale.objects.classifiers.base import (
    BATCH_PIXELS,
    Classifier,
    ClassifierConfig,
    Patches,
    channels_last,
    create_network,
    one_thread,
)
from sketchscale.objects.classifiers.files import classifier_digest

__all__ = ["TrainingOptions", "train_classifier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How a classifier is trained.

    Attributes:
        steps: optimiser steps; each sees `batch` patches, turned and flipped at random.
        batch: fewer are taken when patches are larger than 64 px, so that a step costs the same.
        learning_rate: of Adam; falls to zero along a cosine.
        held_out: share of each class that a first training does not see, for an honest score; the classifier itself is
            then trained on everything. 0 leaves the score out.
        seed: of weights, batches and the held-out choice.
    """

    steps: int = 150
    batch: int = 32
    learning_rate: float = 0.01
    held_out: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2 or not self.learning_rate > 0 or not 0 <= self.held_out < 1:
            raise InputError.of(
                found=f"steps {self.steps}, batch {self.batch}, rate {self.learning_rate}, held out {self.held_out}",
                expected="steps >= 1, batch >= 2, rate > 0, 0 <= held out < 1",
                fix="leave out what is not meant",
            )


def train_classifier(
    patches: Patches | None,
    rows: npt.NDArray[np.float64] | None,
    names: Sequence[str],
    *,
    kind: str = "light",
    channels: Sequence[str],
    ranges: Sequence[tuple[float, float]],
    features: Sequence[str] = (),
    options: TrainingOptions | None = None,
    init: Classifier | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Classifier:
    """Train on annotated objects.

    Args:
        patches: (n, C, s, s) of `read_patches`, of one image or several, C = channels + 1.
        names: class of each patch.
        channels, ranges: of the images, as the patches were cut.
        provenance: kept with the classifier; the options and the score are added.

    Returns:
        A classifier whose classes are in alphabetical order. `provenance["held_out"]` holds `n`, `accuracy`,
        `balanced_accuracy` (mean over classes) and `confusion` (rows true, columns predicted), or None when no class
        has enough objects to hold one out.

    Raises:
        InputError: fewer than two classes, or patches that do not fit the rest.
    """
    options = options or TrainingOptions()
    classes = tuple(sorted(set(names)))
    assert patches is not None
    config = ClassifierConfig(
        kind=kind,
        channels=tuple(channels),
        classes=classes,
        side=patches.shape[-1],
        ranges=tuple((lo, hi) for lo, hi in ranges),
        features=tuple(features),
    )
    if patches.ndim != 4 or patches.shape[:2] != (len(names), len(channels) + 1):
        raise InputError.of(
            found=f"patches of shape {patches.shape}",
            expected=f"({len(names)}, {len(channels) + 1}, side, side): one an annotation, channels and mask",
            fix="cut them with read_patches",
        )
    targets = np.array([classes.index(name) for name in names], np.int64)
    score = _held_out_score(patches, targets, config, options)
    weights = _fit(patches, targets, config, options)
    record = {
        **(provenance or {}),
        "options": asdict(options),
        "examples": {name: int((targets == i).sum()) for i, name in enumerate(classes)},
        "held_out": score,
        "torch": torch.__version__,
    }
    return Classifier(config=config, weights=weights, provenance=record, sha256=classifier_digest(config, weights))


def _held_out_score(
    patches: Patches, targets: npt.NDArray[np.int64], config: ClassifierConfig, options: TrainingOptions
) -> dict[str, Any] | None:
    test = _held_out(targets, options)
    if not test.any():
        return None
    weights = _fit(patches[~test], targets[~test], config, options)
    judge = Classifier(config=config, weights=weights)
    found = judge.predict([patches[test]]).argmax(axis=1)
    confusion = np.zeros((len(config.classes),) * 2, np.int64)
    np.add.at(confusion, (targets[test], found), 1)
    seen = confusion.sum(axis=1) > 0
    recalls = confusion.diagonal()[seen] / confusion.sum(axis=1)[seen]
    return {
        "n": len(found),
        "accuracy": float(confusion.trace() / len(found)),
        "balanced_accuracy": float(recalls.mean()),
        "confusion": confusion.tolist(),
    }


def _held_out(targets: npt.NDArray[np.int64], options: TrainingOptions) -> npt.NDArray[np.bool_]:
    """The same share of each class, at least one left to learn from."""
    rng = np.random.default_rng((options.seed, 1))
    test = np.zeros(len(targets), bool)
    for kind in np.unique(targets):
        rows = rng.permutation(np.flatnonzero(targets == kind))
        test[rows[: min(round(options.held_out * len(rows)), len(rows) - 1)]] = True
    return test


def _fit(
    patches: Patches, targets: npt.NDArray[np.int64], config: ClassifierConfig, options: TrainingOptions
) -> dict[str, npt.NDArray[Any]]:
    """Weights after training; classes weigh the same however many examples they have."""
    counts = np.bincount(targets, minlength=len(config.classes))
    balance = torch.tensor(len(targets) / (len(counts) * np.maximum(counts, 1)), dtype=torch.float32)
    data, wanted = channels_last(patches), torch.from_numpy(targets)
    with one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(options.seed)
        network = create_network(config).train()
        optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, options.steps)
        for rows, moves in _batches(len(targets), _within_work(options, config.side)):
            loss = nn.functional.cross_entropy(network(_moved(data[rows], moves)), wanted[rows], weight=balance)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return {name: np.ascontiguousarray(value.numpy()) for name, value in network.state_dict().items()}


def _within_work(options: TrainingOptions, side: int) -> TrainingOptions:
    """Fewer patches in a step where they are large: its work is that of 32 patches of 64 px, 8 at the least."""
    return replace(options, batch=min(options.batch, max(8, BATCH_PIXELS // (side * side))))


def _batches(n: int, options: TrainingOptions) -> Iterator[tuple[torch.Tensor, npt.NDArray[np.int64]]]:
    """Rows and moves (0 ... 7) of each step; every example is seen once before any is seen again."""
    rng = np.random.default_rng((options.seed, 2))
    waiting = np.zeros(0, np.int64)
    for _ in range(options.steps):
        while len(waiting) < options.batch:
            waiting = np.concatenate([waiting, rng.permutation(n)])
        rows, waiting = waiting[: options.batch], waiting[options.batch :]
        yield torch.from_numpy(rows), rng.integers(0, 8, len(rows))


def _moved(patches: torch.Tensor, moves: npt.NDArray[np.int64]) -> torch.Tensor:
    """Patches turned by 90 degrees `move % 4` times, and flipped where `move` is 4 or more."""
    moved = torch.empty_like(patches)
    for move in np.unique(moves):
        rows = torch.from_numpy(np.flatnonzero(moves == move))
        turned = torch.rot90(patches[rows], int(move) % 4, dims=(2, 3))
        moved[rows] = turned.flip(3) if move >= 4 else turned
    return moved
