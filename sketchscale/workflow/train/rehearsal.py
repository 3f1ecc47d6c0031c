"""Windows of the images that a start learned from: trained on again, so that it does not forget what it knew.

A minute of strokes on one image makes a start better on images like it and worse on others. With a share of the patches
drawn from a few windows of its first training, it keeps what it knew (benchmarks/results/start.txt). They lie beside
the weights in `rehearsal.npz`, at the start's scale:

    images   uint8 (n, c, y, x)    0 to 255 for 0 to 1.25 of the normalised range
    labels   uint16 (n, y, x)      full masks

An image of fewer channels has 0 in the others. A training takes the windows that have no more channels than it reads.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.config import TrainOptions
from sketchscale.errors import InputError
from sketchscale.io.stores.addresses import join_address
from sketchscale.io.stores.blobs import get_blob
from sketchscale.networks.checkpoint import model_folder
from sketchscale.training.config import TrainingConfig
from sketchscale.training.patches import TrainingImage, with_channels
from sketchscale.training.synthetic import SceneStream

__all__ = ["REHEARSAL", "Rehearsal", "open_rehearsal", "rehearsal_bytes", "rehearsal_of", "rehearsed_share"]

REHEARSAL = "rehearsal.npz"

_REHEARSED = 0.5
"""Share of the patches; see benchmarks/results/start.txt."""

_HIGHEST = 1.25
"""Normalised intensity of the value 255."""


@dataclass(slots=True)
class Rehearsal:
    """A source of scenes: windows of a start's training images, in a random order again and again.

    Attributes:
        address: of the start. sha256: of the file.
    """

    address: str
    sha256: str
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint16]

    @property
    def channels(self) -> int:
        """Channels of the windows."""
        return int(self.images.shape[1])

    @property
    def scale(self) -> tuple[float, float] | None:
        """None: the windows are normalised already."""
        return None

    @property
    def about(self) -> dict[str, Any]:
        """A record for provenance."""
        return {"kind": "rehearsal", "sha256": self.sha256, "windows": len(self.images)}

    def stream(self, config: TrainingConfig) -> SceneStream:
        """Return the windows in the order of a training's seed."""
        return _Windows(self, config.seed)


@dataclass(frozen=True, slots=True)
class _Windows:
    source: Rehearsal
    seed: int

    @property
    def channels(self) -> int:
        return self.source.channels

    def scene(self, number: int) -> TrainingImage:
        epoch, place = divmod(number, len(self.source.images))
        window = int(np.random.default_rng((self.seed, epoch)).permutation(len(self.source.images))[place])
        image = self.source.images[window].astype(np.float32) * np.float32(_HIGHEST / 255)
        return TrainingImage(
            image=image, labels=self.source.labels[window].astype(np.int32), name=f"rehearsal {window}"
        )


def open_rehearsal(model: str, channels: int) -> Rehearsal | None:
    """Return the windows of a model that a network of so many channels can read; None where there are none.

    Args:
        model: as for `load_model`.
    """
    folder = model_folder(model)
    data = None if folder is None else get_blob(folder, REHEARSAL)
    if data is None:
        return None
    with np.load(io.BytesIO(data)) as file:
        images, labels = file["images"], file["labels"]
    fits = ~images[:, channels:].any(axis=(1, 2, 3))
    if not fits.any():
        return None
    images = images[fits][:, :channels]
    if images.shape[1] < channels:
        images = np.pad(images, ((0, 0), (0, channels - images.shape[1]), (0, 0), (0, 0)))
    address = join_address(folder or model, REHEARSAL)
    return Rehearsal(address, hashlib.sha256(data).hexdigest(), images, labels[fits])


def rehearsal_bytes(windows: Sequence[TrainingImage], channels: int) -> bytes:
    """Return windows of one size as a file for `open_rehearsal`."""
    images = np.stack([with_channels(window.image, channels) for window in windows])
    file = io.BytesIO()
    np.savez_compressed(
        file,
        images=np.round(np.clip(images, 0, _HIGHEST) * (255 / _HIGHEST)).astype(np.uint8),
        labels=np.stack([window.labels for window in windows]).astype(np.uint16),
    )
    return file.getvalue()


def rehearsal_of(options: TrainOptions, config: TrainingConfig) -> list[Rehearsal]:
    """Return the windows of the model to start from, where it has some and they are wanted.

    Raises:
        InputError: a share is wanted of a model without windows.
    """
    if options.rehearse == 0 or options.init in (None, "random"):
        return []
    found = open_rehearsal(str(options.init), config.network.channels)
    if found is None and options.rehearse != "auto":
        raise InputError.of(
            found=f"--rehearse {options.rehearse:g} with {options.init}, which has no windows of its own training",
            expected="a model that has, such as a shipped one",
            fix="leave out --rehearse",
        )
    return [] if found is None else [found]


def rehearsed_share(options: TrainOptions) -> float:
    """Return the share of the patches that are drawn from such windows."""
    return _REHEARSED if options.rehearse == "auto" else float(options.rehearse)
