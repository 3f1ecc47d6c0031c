"""Classifiers as data: configuration, weights as plain arrays, and the CLASSIFIERS table.

    patches ─ prepared ─ network ─ softmax ─┐
                                            ├─▶ probabilities (both: their weighted mean)
    rows of the feature table ─ forest ─────┘

Depending on its kind, a classifier uses patches of objects, rows of their feature table, or both. A probability depends
on its own patch and row alone: batches always have the same shape (padded with zeros) and run on one thread, so neither
order and number of objects nor blocks and workers change it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sketchscale.engine.turns import turn
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.networks.precision import autocast
from sketchscale.objects.classifiers.ensemble import mean_probabilities
from sketchscale.objects.classifiers.forests import forest_probabilities
from sketchscale.objects.classifiers.light import LightNet, smallest_side
from sketchscale.objects.classifiers.preparation import Patches, PatchOptions, prepare_patches
from sketchscale.objects.classifiers.resnet import ResNet18

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "ClassifierConfig",
    "ClassifierKind",
    "NetworkOptions",
    "Patches",
    "channels_last",
    "create_network",
    "find_classifier",
    "one_thread",
]

BATCH_PIXELS = 32 * 64 * 64
"""Patch pixels in a batch of prediction: 32 patches of 64 px; layers fit into the cache (twice as fast as 256)."""

MOST_CLASSES = 255
"""A class image has 8 bits, and 0 is background."""

Weights = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOptions:
    """Size of a network.

    Attributes:
        depth: convolutions of a light network, 2 to 4.
        kernel: of its convolutions in 2-D, 3 or 5.
        width: filters of its convolutions (of the first in 3-D), or of the first stage of ResNet-18; None is 16, or 64
            for ResNet-18.
        stem: first layers of ResNet-18: "large" for patches of 64 px and more, "small" for patches of about 32 px.
    """

    depth: int = 2
    kernel: int = 3
    width: int | None = None
    stem: str = "large"

    def __post_init__(self) -> None:
        if (
            self.depth not in (2, 3, 4)
            or self.kernel not in (3, 5)
            or not 1 <= (16 if self.width is None else self.width) <= 256
        ):
            raise InputError.of(
                found=f"a network of depth {self.depth}, kernel {self.kernel}, width {self.width}",
                expected="depth 2 to 4, kernel 3 or 5, width 1 to 256",
                fix="leave out options that you do not need",
            )
        if self.stem not in ("large", "small"):
            raise UnknownNameError.among("stem", self.stem, ("large", "small"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig:
    """Everything that is needed to use the weights.

    Attributes:
        kind: name in CLASSIFIERS.
        channels: names of the image channels, in order; the mask is one more.
        classes: names, in the order of the probabilities; at most 255, as a class image has 8 bits.
        side: of the patches, px; 0 if none are used.
        ranges: (low, high) of each channel that became 0 and 1 in training; empty if no patches are used.
        dim: axes of a patch.
        features: columns of the feature table that are read, in order.
        network: size of the network.
        patches: preparation of patches.
        network_share: weight of the network in the mean of an ensemble; the rest is the forest's.
    """

    kind: str = "light"
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    side: int
    ranges: tuple[tuple[float, float], ...]
    dim: Literal[2, 3] = 2
    features: tuple[str, ...] = ()
    network: NetworkOptions = field(default_factory=NetworkOptions)
    patches: PatchOptions = field(default_factory=PatchOptions)
    network_share: float = 0.5

    def __post_init__(self) -> None:
        kind = find_classifier(self.kind)
        unfit = kind.network is not None and (self.side < 4 or len(self.ranges) != len(self.channels))
        if len(set(self.classes)) < 2 or unfit:
            raise InputError.of(
                found=f"classes {self.classes}, patches of {self.side} px, {len(self.ranges)} ranges "
                f"for {len(self.channels)} channels",
                expected="two classes or more, 4 px or more, a range for each channel",
                fix="annotate objects of two classes",
            )
        if len(self.classes) > MOST_CLASSES:
            raise InputError.of(
                found=f"{len(self.classes)} classes", expected=f"at most {MOST_CLASSES}", fix="merge some"
            )
        if not all(np.isfinite(r).all() and r[0] < r[1] for r in self.ranges):
            raise InputError.of(found=f"ranges {self.ranges}", expected="low < high", fix="leave out constant channels")
        if kind.forest is not None and not self.features:
            raise InputError.of(
                found=f"no table columns for {self.kind}", expected="one or more", fix="measure the labels first"
            )
        if self.dim == 3 and self.kind == "resnet18":
            raise InputError.of(found="volumes for resnet18", expected="images (2-D)", fix="use the kind light")

    @property
    def planes(self) -> int:
        """Number of channels of the network's input."""
        return len(self.channels) + int(self.patches.mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierKind:
    """One entry of CLASSIFIERS.

    Attributes:
        means: description for help and documentation.
        network: creates the network on patches, if any.
        forest: name in FORESTS of the forest on the table, if any.
    """

    means: str
    network: Callable[[ClassifierConfig], nn.Module] | None = None
    forest: str | None = None


def _light(config: ClassifierConfig) -> nn.Module:
    size = config.network
    least = smallest_side(size.depth, size.kernel, config.dim)
    if config.side < least:
        raise InputError.of(
            found=f"patches of {config.side} px for depth {size.depth} and kernel {size.kernel}",
            expected=f"{least} px or more",
            fix="larger patches, or a network of depth 2",
        )
    return LightNet(
        config.planes, len(config.classes), depth=size.depth, kernel=size.kernel, width=size.width or 16, dim=config.dim
    )


CLASSIFIERS: dict[str, ClassifierKind] = {
    "light": ClassifierKind(means="SVETLANA's light network on patches", network=_light),
    "resnet18": ClassifierKind(
        means="a residual network of 18 layers on patches, 2-D",
        network=lambda c: ResNet18(c.planes, len(c.classes), width=c.network.width or 64, stem=c.network.stem),
    ),
    "random-forest": ClassifierKind(means="a random forest on the feature table", forest="random-forest"),
    "gradient-boosting": ClassifierKind(means="gradient-boosted trees on the table", forest="gradient-boosting"),
    "ensemble": ClassifierKind(
        means="mean of a light network on patches and a random forest on the table",
        network=_light,
        forest="random-forest",
    ),
}
"""Kinds of classifiers by name. A new kind is an entry here."""


def find_classifier(name: str) -> ClassifierKind:
    """Return a kind of classifier by name; raise UnknownNameError if there is none."""
    if name not in CLASSIFIERS:
        raise UnknownNameError.among("classifier", name, CLASSIFIERS)
    return CLASSIFIERS[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Classifier:
    """A trained classifier as plain data: picklable, about 12 KB for a light network.

    Attributes:
        weights: arrays by name.
        provenance: how it was made; `held_out` has its score.
        sha256: of weights and configuration.
    """

    config: ClassifierConfig
    weights: Weights
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def needs_patches(self) -> bool:
        """Whether `predict` uses patches."""
        return find_classifier(self.config.kind).network is not None

    @property
    def needs_table(self) -> bool:
        """Whether `predict` uses rows of the feature table, in the columns `config.features`."""
        return find_classifier(self.config.kind).forest is not None

    @property
    def plane_ranges(self) -> bool:
        """Whether the percentiles of each image become 0 and 1 in its patches; otherwise `config.ranges` do."""
        return self.config.patches.normalization == "plane"

    def check_channels(self, channels: Sequence[str]) -> None:
        """Raise InputError if number, names or order of channels differ from training."""
        if tuple(channels) != self.config.channels:
            raise InputError.of(
                found=f"image channels {', '.join(channels)}",
                expected=f"those of the classifier: {', '.join(self.config.channels)}",
                fix="classify the kind of image it was trained on, or train another",
            )

    def batch_shape(self) -> tuple[int, ...]:
        """Return (n, C, [s,] s, s), the shape of every batch of prediction."""
        spatial = (self.config.side,) * self.config.dim
        number = max(1, min(256, BATCH_PIXELS // max(1, math.prod(spatial))))
        return number, len(self.config.channels) + 1, *spatial

    def batch_bytes(self) -> int:
        """Return the approximate memory of a batch: patches, copies, and the widest layers of the network."""
        if not self.needs_patches:
            return 0
        number, channels, *spatial = self.batch_shape()
        wide = self.config.network.width or 16
        return 4 * number * math.prod(spatial) * (3 * channels + 3 * wide)

    def predict(
        self,
        batches: Iterable[Patches],
        rows: npt.NDArray[np.float64] | None = None,
        *,
        device: str = "cpu",
        precision: str = "float32",
    ) -> npt.NDArray[np.float32]:
        """Return class probabilities of objects.

        Args:
            batches: (n, C, [s,] s, s) of any n, as `cut_patches` makes them; ignored if no patches are needed.
            rows: (N, F) of the same objects in the same order, columns `config.features`, NaN where missing; None if no
                table is needed.
            device: of torch, for the network; results are equal to the bit on the same processor only.
            precision: of the network: float32 or bfloat16.

        Returns:
            (N, L) probabilities; rows sum to 1.

        Raises:
            InputError: rows are missing, have other columns, or differ in number from the patches.
        """
        parts: list[npt.NDArray[np.floating]] = []
        if self.needs_patches:
            parts.append(self._network_probabilities(batches, device, precision))
        if self.needs_table:
            columns = len(self.config.features)
            if rows is None or rows.ndim != 2 or rows.shape[1] != columns:
                raise InputError.of(
                    found="no table rows" if rows is None else f"table rows of shape {rows.shape}",
                    expected=f"{columns} columns, {', '.join(self.config.features[:3])} ...",
                    fix="take them with feature_rows",
                )
            parts.append(forest_probabilities(self.weights, rows))
        if len({len(part) for part in parts}) > 1:
            found = f"{len(parts[0])} patches, {len(parts[1])} rows"
            raise InputError.of(found=found, expected="one of each per object", fix="match them")
        return mean_probabilities(parts, self.config.network_share).astype(np.float32)

    def _network_probabilities(
        self, batches: Iterable[Patches], device: str, precision: str
    ) -> npt.NDArray[np.float32]:
        network = create_network(self.config, self.weights).to(device)
        shape = self.batch_shape()
        found = [np.zeros((0, len(self.config.classes)), np.float32)]
        portions = (batch[i : i + shape[0]] for batch in batches for i in range(0, len(batch), shape[0]))
        with one_thread(), torch.inference_mode():
            for patches in portions:
                padded = np.zeros(shape, np.float32)
                padded[: len(patches)] = patches
                tensor = channels_last(prepare_patches(padded, self.config.patches))
                with turn(), autocast(device, precision):
                    logits = network(tensor.to(device)).float()
                scores = torch.softmax(logits, dim=1).cpu().numpy()
                found.append(scores[: len(patches)])
        return np.concatenate(found)


class _OneThread:
    """Number of callers inside `one_thread`, and torch's number of threads before the first of them."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, 1


_ONE_THREAD = _OneThread()


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread, because the number of threads that share a sum changes its last bits.

    Part of the setting (MKL's, and the default of new threads) belongs to the whole process, and tasks of an engine
    overlap, so it is restored when the last caller leaves.
    """
    state = _ONE_THREAD
    with state.lock:
        if not state.inside:
            state.before = torch.get_num_threads()
        state.inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with state.lock:
            state.inside -= 1
            if not state.inside:
                torch.set_num_threads(state.before)


def channels_last(patches: Patches) -> torch.Tensor:
    """Return patches with the channels of a pixel side by side in memory: narrow layers run twice as fast."""
    layout = torch.channels_last if patches.ndim == 4 else torch.channels_last_3d
    return torch.from_numpy(patches).contiguous(memory_format=layout)


def create_network(config: ClassifierConfig, weights: Weights | None = None) -> nn.Module:
    """Return the network of a configuration: with weights, ready to predict; without, drawn from torch's generator.

    Raises:
        RuntimeError: the weights do not fit this network.
    """
    make = find_classifier(config.kind).network
    assert make is not None, "this kind of classifier has no network"
    if weights is None:
        return make(config)
    with torch.random.fork_rng(devices=[]):
        network = make(config)
    network.load_state_dict(
        {name: torch.from_numpy(np.array(v)) for name, v in weights.items() if not name.startswith("forest.")}
    )
    return network.eval().requires_grad_(False)
