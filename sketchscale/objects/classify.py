"""A tiny network that learns a class from a few hundred annotated objects in seconds.

    patch (C, s, s) ─ conv 3x3, 16 ─ ReLU ─ batch norm ─ pool 2 ─ again ─ mean over the patch ─ linear ─▶ logits (L)

144 C + 17 L + 2400 parameters: 3,027 for RGB with its mask (C = 4) and three classes. The last channel is the mask of
the object in the centre, so that the network knows whose class is asked. It returns logits, because cross entropy takes
the softmax itself; taking it twice bounds the loss from below.

A probability depends on its patch alone: batches always have the same shape (padded with zeros) and run on one thread,
so the order and number of patches, and hence blocks and workers, change nothing. Training is seeded and runs on one
thread too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import torch
from torch import nn

from sketchscale.errors import InputError, MissingDataError, OutputError
from sketchscale.networks.checkpoint import replace_file

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "LightNet",
    "TrainingOptions",
    "load_classifier",
    "save_classifier",
    "train_classifier",
]

_BATCH_PIXELS = 32 * 64 * 64
"""Patch pixels in a batch of prediction: 32 patches of 64 px, whose layers stay in the cache (twice as fast as 256)."""

Patches = npt.NDArray[np.float32]


class LightNet(nn.Module):
    """Two convolutions with 16 filters, a mean, a linear layer.

    Names of the weights are those of SVETLANA's files (`cnn_layers`, `fc`).

    Source: SVETLANA (Cazorla et al.), depth 2, kernel 3; order convolution, ReLU, batch norm.

    >>> sum(p.numel() for p in LightNet(4, 3).parameters())
    3027
    """

    def __init__(self, channels: int, classes: int, filters: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide in (channels, filters):
            layers += [nn.Conv2d(wide, filters, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(filters), nn.MaxPool2d(2)]
        self.cnn_layers = nn.Sequential(*layers)
        self.fc = nn.Sequential(nn.Linear(filters, classes))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(n, C, s, s) patches, s at least 4, to (n, L) logits."""
        logits: torch.Tensor = self.fc(self.cnn_layers(patches).mean(dim=(2, 3)))
        return logits


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """What it takes to use the weights.

    Attributes:
        channels: names of the image channels, in order; the mask is one more.
        classes: names, in the order of the logits.
        side: pixels, of the square patches.
        ranges: (low, high) of each channel that became 0 and 1 in training.
    """

    channels: tuple[str, ...]
    classes: tuple[str, ...]
    side: int
    ranges: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(set(self.classes)) < 2 or self.side < 4 or len(self.ranges) != len(self.channels):
            raise InputError.of(
                found=f"classes {self.classes}, patches of {self.side} px, {len(self.ranges)} ranges "
                f"for {len(self.channels)} channels",
                expected="two classes or more, 4 px or more, a range for each channel",
                fix="annotate objects of two classes",
            )
        if not all(np.isfinite(r).all() and r[0] < r[1] for r in self.ranges):
            raise InputError.of(found=f"ranges {self.ranges}", expected="low < high", fix="leave out constant channels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A trained classifier as plain data: picklable, some 12 KB.

    Attributes:
        weights: arrays by their name in `LightNet`.
        provenance: how it was made; `held_out` has its score.
        sha256: of weights and configuration.
    """

    config: ClassifierConfig
    weights: Mapping[str, npt.NDArray[Any]]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def check_channels(self, channels: Sequence[str]) -> None:
        """Refuse an image with other channels than those of training.

        Raises:
            InputError: number, names or order differ.
        """
        if tuple(channels) != self.config.channels:
            raise InputError.of(
                found=f"image channels {', '.join(channels)}",
                expected=f"those of the classifier: {', '.join(self.config.channels)}",
                fix="classify the kind of image it was trained on, or train another",
            )

    def batch_shape(self) -> tuple[int, int, int, int]:
        """(n, C, s, s) of every batch of prediction."""
        side = self.config.side
        number = max(1, min(256, _BATCH_PIXELS // (side * side)))
        return number, len(self.config.channels) + 1, side, side

    def predict(self, batches: Iterable[Patches]) -> npt.NDArray[np.float32]:
        """Class probabilities of patches.

        Args:
            batches: (n, C, s, s) of any n, as `cut_patches` makes them.

        Returns:
            (sum of n, L) probabilities, rows sum to 1.
        """
        network = _network(self.config, self.weights)
        number = self.batch_shape()[0]
        found = [np.zeros((0, len(self.config.classes)), np.float32)]
        with _one_thread(), torch.inference_mode():
            for patches in (b[i : i + number] for b in batches for i in range(0, len(b), number)):
                padded = np.zeros(self.batch_shape(), np.float32)
                padded[: len(patches)] = patches
                probabilities = torch.softmax(network(_channels_last(padded)), dim=1).numpy()
                found.append(probabilities[: len(patches)])
        return np.concatenate(found)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are split between threads, so their number changes last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _channels_last(patches: Patches) -> torch.Tensor:
    """Pixels of all channels side by side in memory: these narrow layers run twice as fast."""
    return torch.from_numpy(patches).contiguous(memory_format=torch.channels_last)


def _network(config: ClassifierConfig, weights: Mapping[str, npt.NDArray[Any]]) -> LightNet:
    with torch.random.fork_rng(devices=[]):
        network = LightNet(len(config.channels) + 1, len(config.classes))
    network.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in weights.items()})
    network.eval().requires_grad_(False)
    return network


def train_classifier(
    patches: Patches,
    names: Sequence[str],
    *,
    channels: Sequence[str],
    ranges: Sequence[tuple[float, float]],
    options: TrainingOptions | None = None,
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
    config = ClassifierConfig(
        channels=tuple(channels), classes=classes, side=patches.shape[-1], ranges=tuple((lo, hi) for lo, hi in ranges)
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
    return Classifier(config=config, weights=weights, provenance=record, sha256=_digest(config, weights))


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
    data, wanted = _channels_last(patches), torch.from_numpy(targets)
    with _one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(options.seed)
        network = LightNet(len(config.channels) + 1, len(config.classes)).train()
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
    return replace(options, batch=min(options.batch, max(8, _BATCH_PIXELS // (side * side))))


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


def _digest(config: ClassifierConfig, weights: Mapping[str, npt.NDArray[Any]]) -> str:
    text = json.dumps(asdict(config), sort_keys=True).encode()
    return hashlib.sha256(text + safetensors.numpy.save(dict(sorted(weights.items())))).hexdigest()


_FILES = ("classifier.safetensors", "config.json", "provenance.json")


def save_classifier(folder: str | Path, classifier: Classifier) -> None:
    """Write a classifier folder: weights, configuration with SHA-256, provenance; replaces one that is there.

    Raises:
        OutputError: the folder cannot be written.
    """
    weights, settings, provenance = (Path(folder) / name for name in _FILES)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        replace_file(weights, safetensors.numpy.save(dict(sorted(classifier.weights.items()))))
        replace_file(provenance, _json(dict(classifier.provenance)))
        replace_file(settings, _json({**asdict(classifier.config), "sha256": classifier.sha256}))
    except OSError as error:
        raise OutputError(
            f"cannot write the classifier to {folder}: {error.strerror or error}; expected: a writable folder; "
            f"to fix: choose another --out"
        ) from error


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


_REMEDY = "expected: a folder as `sketchscale classify train` writes it; to fix: copy it again, or train it again"


def load_classifier(folder: str | Path) -> Classifier:
    """Read a classifier folder.

    Raises:
        MissingDataError: there is no such folder, or a file is missing.
        InputError: what is there is not a classifier, or is damaged.
    """
    weights_path, settings_path, provenance_path = (Path(folder) / name for name in _FILES)
    try:
        settings, provenance = (json.loads(p.read_bytes()) for p in (settings_path, provenance_path))
        weights = safetensors.numpy.load(weights_path.read_bytes())
        digest = settings.pop("sha256")
        config = _config(settings)
        _network(config, weights)
    except OSError as error:
        raise MissingDataError(f"{folder} is not a classifier: {error.filename} {error.strerror}; {_REMEDY}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{folder} is not a classifier ({type(error).__name__}: {reason}); {_REMEDY}") from error
    if _digest(config, weights) != digest:
        raise InputError(f"{folder}: its SHA-256 is not the one in config.json; {_REMEDY}")
    return Classifier(config=config, weights=weights, provenance=provenance, sha256=digest)


def _config(settings: Mapping[str, Any]) -> ClassifierConfig:
    unknown = set(settings) - {f.name for f in fields(ClassifierConfig)}
    if unknown:
        raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
    return ClassifierConfig(
        channels=tuple(settings["channels"]),
        classes=tuple(settings["classes"]),
        side=int(settings["side"]),
        ranges=tuple((float(low), float(high)) for low, high in settings["ranges"]),
    )
