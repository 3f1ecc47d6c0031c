"""Sources of the scenes of `train --synthetic`: a synthesis, or pairs that one made before.

    a synthesis         scene j is the pair of (seed, j), made when a patch of it is wanted; its intensities are
                        normalised already, because the synthesis learned from normalised images
    a folder of pairs   scene j is a pair of the folder, all of them in random order before any repeats; read and
                        normalised like any image

With n sources, scene j comes from source j mod n. Every process that trains opens the sources itself.
"""

from __future__ import annotations

import hashlib
import platform
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.intensity import array_ranges, normalize
from sketchscale.io.ome_zarr.arrays import read_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.planes import read_plane
from sketchscale.io.stores.addresses import join_address
from sketchscale.io.stores.blobs import get_blob
from sketchscale.synthesis.model import Synthesis, is_synthesis, load_synthesis, synthesis_sha256
from sketchscale.synthesis.pairs import draw_pair
from sketchscale.synthesis.plan import pair_name
from sketchscale.training.config import TrainingConfig
from sketchscale.training.patches import TrainingImage
from sketchscale.training.synthetic import SceneStream
from sketchscale.workflow.segment.job import choose_channels
from sketchscale.workflow.synthesize.generate import PAIRS, read_pairs

__all__ = ["MadeScenes", "SceneSource", "check_sources", "open_sources", "scale_of", "scene_side", "stream_of"]

_LARGEST = 1024
"""Largest side of what is cut out of a stored pair, px."""


class SceneSource(Protocol):
    """An opened source of `--synthetic`.

    Attributes:
        sha256: of everything that its scenes depend on.
    """

    address: str
    sha256: str

    @property
    def channels(self) -> int:
        """Channels of its scenes."""

    @property
    def scale(self) -> tuple[float, float] | None:
        """Percentiles of images that are 0 and 1 in its scenes; None where any fit."""

    @property
    def about(self) -> dict[str, Any]:
        """A record for provenance."""

    def stream(self, config: TrainingConfig) -> SceneStream:
        """Return the scenes for a training."""


def open_sources(addresses: Sequence[str], channels: Sequence[int | str] | None) -> list[SceneSource]:
    """Open syntheses and folders of pairs, recognised by their contents.

    Args:
        channels: of stored pairs; all when None. A synthesis has those that it learned from.

    Raises:
        InputError: neither, or damaged; names the address, and the machine that looked.
    """
    return [_open(address, channels) for address in addresses]


def _open(address: str, channels: Sequence[int | str] | None) -> SceneSource:
    if is_synthesis(address):
        return _SynthesisSource(address=address, sha256=synthesis_sha256(address), synthesis=load_synthesis(address))
    about = read_pairs(address)
    if about is None:
        raise InputError.of(
            found=f"{address} has neither synthesis.json nor {PAIRS} (on {platform.node()})",
            expected="what synthesize train or synthesize generate wrote",
            fix="check the path; an unfinished synthesize generate goes on with --resume",
        )
    first = open_image(join_address(address, pair_name(0)))
    plane = first.plane()
    chosen = choose_channels(plane, tuple(range(len(plane.channels))) if channels is None else channels)
    digest = hashlib.sha256(get_blob(address, PAIRS) or b"").hexdigest()
    return _PairsSource(address=address, sha256=digest, record=about, chosen=tuple(chosen))


def stream_of(sources: Sequence[SceneSource], config: TrainingConfig) -> SceneStream | None:
    """Return one stream of all sources; None without any."""
    return _Alternating(streams=tuple(source.stream(config) for source in sources)) if sources else None


def scale_of(sources: Sequence[SceneSource]) -> tuple[float, float]:
    """Return the percentiles of the first source that has some, else the default, for scaling intensities."""
    default = TrainingConfig().low, TrainingConfig().high
    return next((source.scale for source in sources if source.scale is not None), default)


def check_sources(sources: Sequence[SceneSource], config: TrainingConfig) -> None:
    """Refuse sources that do not fit the network, or differ between processes.

    Raises:
        InputError: another number of channels than the network reads, or not what the configuration was made for.
    """
    for source in sources:
        if source.channels != config.network.channels:
            raise InputError.of(
                found=f"{source.address} has {source.channels} channels",
                expected=f"{config.network.channels}, as the network and the images",
                fix="choose channels with --channel, or another --synthetic",
            )
        if source.scale not in (None, (config.low, config.high)):
            raise InputError.of(
                found=f"{source.address} learned from images scaled by their percentiles {source.scale}",
                expected=f"{(config.low, config.high)}, as the model to start from or another --synthetic",
                fix="--init random, or one --synthetic",
            )
    expected = config.synthetic.sha256 if config.synthetic is not None else ()
    if tuple(source.sha256 for source in sources) != expected:
        raise InputError.of(
            found=f"{', '.join(s.address for s in sources)}: something else on {platform.node()}",
            expected="the same for every process",
            fix="an address in object storage, or a folder that all share",
        )


@dataclass(frozen=True, slots=True)
class _Alternating:
    """Streams that take turns."""

    streams: tuple[SceneStream, ...]

    @property
    def channels(self) -> int:
        """Channels of the scenes."""
        return self.streams[0].channels

    def scene(self, number: int) -> TrainingImage:
        """Return the scene of a number."""
        return self.streams[number % len(self.streams)].scene(number // len(self.streams))


def scene_side(patch: int, crop: int) -> int:
    """Return the side of a generated scene, px: turned and shifted patches must lie inside it.

    Args:
        crop: side of the crops on which the synthesis was trained; scenes are not smaller.

    >>> scene_side(160, 128), scene_side(64, 256)
    (256, 256)
    """
    return max(crop, -(-int(1.6 * patch) // 32) * 32)


@dataclass(slots=True)
class _SynthesisSource:
    address: str
    sha256: str
    synthesis: Synthesis

    @property
    def channels(self) -> int:
        return self.synthesis.config.generator.channels

    @property
    def about(self) -> dict[str, Any]:
        return {"kind": "synthesis", "sha256": self.sha256}

    @property
    def scale(self) -> tuple[float, float] | None:
        return self.synthesis.config.low, self.synthesis.config.high

    def stream(self, config: TrainingConfig) -> SceneStream:
        device = torch.device(config.device)
        if device.type == "cuda":  # threads that draw ahead have another current device
            device = torch.device("cuda", torch.cuda.current_device())
        self.synthesis.generator.to(device)
        side = scene_side(config.patch, self.synthesis.config.crop)
        return MadeScenes(synthesis=self.synthesis, side=side, seed=config.seed)


@dataclass(frozen=True, slots=True)
class MadeScenes:
    """Scenes that a synthesis draws when they are needed."""

    synthesis: Synthesis
    side: int
    seed: int

    @property
    def channels(self) -> int:
        """Channels of the scenes."""
        return self.synthesis.config.generator.channels

    def scene(self, number: int) -> TrainingImage:
        """Draw the scene of a number."""
        pair = draw_pair(self.synthesis, (self.side, self.side), seed=(self.seed, number))
        return TrainingImage(image=pair.image, labels=pair.labels.astype(np.int32), name=f"scene {number}")


@dataclass(slots=True)
class _PairsSource:
    address: str
    sha256: str
    record: dict[str, Any]
    chosen: tuple[int, ...]

    @property
    def channels(self) -> int:
        return len(self.chosen)

    @property
    def about(self) -> dict[str, Any]:
        return {"kind": "pairs", "sha256": self.sha256, "provenance": self.record.get("provenance", "")}

    @property
    def scale(self) -> tuple[float, float] | None:
        return None

    def stream(self, config: TrainingConfig) -> SceneStream:
        return _PairScenes(
            address=self.address,
            count=self.record["images"],
            labels=self.record["labels"],
            chosen=self.chosen,
            low=config.low,
            high=config.high,
            seed=config.seed,
        )


@dataclass(slots=True, kw_only=True)
class _PairScenes:
    """Pairs of a folder as scenes: all in one random order, then all in another."""

    address: str
    count: int
    labels: str
    chosen: tuple[int, ...]
    low: float
    high: float
    seed: int
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _order: tuple[int, npt.NDArray[np.int64]] | None = None

    @property
    def channels(self) -> int:
        return len(self.chosen)

    def scene(self, number: int) -> TrainingImage:
        epoch, place = divmod(number, self.count)
        with self._lock:
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(self.count)
            pair = int(self._order[1][place])
        image = open_image(join_address(self.address, pair_name(pair)))
        pixels = read_plane(image.plane(), Box((0, 0), image.plane().shape), self.chosen)
        ranges = array_ranges(pixels, low=self.low, high=self.high, name=image.address)
        box = self._window(image.plane().section, number)
        labels = read_box(image.label_ref(self.labels), box).astype(np.int32)
        return TrainingImage(
            image=normalize(pixels[(slice(None), *box.slices)], ranges), labels=labels, name=f"{image.address} {box}"
        )

    def _window(self, shape: tuple[int, int], number: int) -> Box:
        """Return the box of the whole image, or of a random part of a large one."""
        side = tuple(min(n, _LARGEST) for n in shape)
        rng = np.random.default_rng((self.seed, number, 1))
        start = tuple(int(rng.integers(n - s + 1)) for n, s in zip(shape, side, strict=True))
        return Box(start, tuple(a + s for a, s in zip(start, side, strict=True)))
