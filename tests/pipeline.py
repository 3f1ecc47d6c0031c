"""A small real pipeline: an OME-Zarr image of drawn nuclei, and a small network with random weights.

Random weights give fields that no trained network would, with objects of every shape all over the image: harder on
merging than good ones, and quick.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.config import SegmentOptions
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.new_images import commit_image, create_image
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.networks.checkpoint import ModelConfig, load_model, save_model
from sketchscale.workflow.segment.arrays import fields_of_array

volume_options = functools.partial(SegmentOptions, volume=True)


def draw_nuclei(shape: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    """Blurred noise with bright blobs, uint8 (y, x)."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    blobs = (blobs - blobs.min()) / np.ptp(blobs)
    return np.clip(255 * blobs**2 + rng.normal(0, 4, shape), 0, 255).astype(np.uint8)


def draw_volume(shape: tuple[int, int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    """`draw_nuclei` with depth, uint8 (z, y, x)."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    blobs = (blobs - blobs.min()) / np.ptp(blobs)
    return np.clip(255 * blobs**2 + rng.normal(0, 4, shape), 0, 255).astype(np.uint8)


def store_image(address: Path, pixels: npt.NDArray[np.generic], *, chunk: int = 64, version: str = "0.5") -> str:
    """An OME-Zarr image with one level from (y, x) or (c, y, x) pixels."""
    axes = "cyx"[3 - pixels.ndim :]
    chunks = (*((1,) if pixels.ndim == 3 else ()), chunk, chunk)
    channels = tuple(f"c{i}" for i in range(pixels.shape[0])) if pixels.ndim == 3 else ()
    levels = create_image(
        str(address),
        pixels.shape,
        axes,
        pixels.dtype,
        chunks,
        channels=channels,
        version=version,
        levels=1,  # type: ignore[arg-type]
    )
    write_box(levels[0], Box((0,) * pixels.ndim, pixels.shape), pixels)
    commit_image(str(address))
    return str(address)


def make_model(folder: Path, *, channels: int = 1, threshold: float | None = None) -> str:
    """A model folder: two small levels, random weights, tiles of 64 px.

    Args:
        threshold: px; None makes a fifth of a drawn image foreground.
    """
    shape = NetworkConfig(channels=channels, widths=(4, 8))
    config = ModelConfig(network=shape, threshold=0.0, min_size=8, tile=64, overlap=16)
    network, provenance = create_network(shape, seed=3).eval(), {"made": "for tests"}
    save_model(folder, network, config, provenance)
    pixels = np.stack([draw_nuclei((130, 200), seed) for seed in range(channels)])
    distance = fields_of_array(pixels, load_model(folder), SegmentOptions(model=str(folder)))[2]
    if threshold is None:
        threshold = round(float(np.quantile(distance.astype(np.float64), 0.8)), 4)
    save_model(folder, network, replace(config, threshold=threshold), provenance)
    return str(folder)
