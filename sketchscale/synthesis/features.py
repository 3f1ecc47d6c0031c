"""Features for comparing crops of images, from a network in the package, without a download.

    texture   from the encoder of the included model `nuclei-fluo`, applied to each channel of a crop separately: means
              over the crop of the features of all its levels, channel after channel
    colour    mean and standard deviation of each channel, correlation of each two

The network was trained on fluorescent nuclei; distances of its features are not comparable with those of Inception
features in papers, only with one another. Shallow levels respond to inverted and darker images more than the deepest.
Channels are processed separately, therefore the colour features.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.networks.checkpoint import load_model
from sketchscale.networks.precision import autocast
from sketchscale.networks.unet import UNet
from sketchscale.synthesis.scenes import PointedSource

__all__ = ["NETWORK", "Area", "colour_features", "cut_crops", "halves", "texture_features"]

NETWORK = "nuclei-fluo"
Image = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


@functools.cache
def _network() -> UNet:
    network = load_model(NETWORK).network
    assert isinstance(network, UNet)
    return network


def texture_features(crops: Sequence[Image]) -> Floats:
    """Return the texture features of each crop, float64 (n, 240 c).

    Args:
        crops: (c, y, x) in [0, 1], sides multiples of 8.

    >>> texture_features([np.zeros((2, 16, 16), np.float32)]).shape
    (1, 480)
    """
    found = []
    with torch.inference_mode(), autocast("cpu", "float32"):
        for crop in crops:
            levels = _network().encode(torch.from_numpy(np.ascontiguousarray(crop, np.float32))[:, None])
            means = torch.cat([level.mean((2, 3)) for level in levels], 1)
            found.append(means.flatten().double().numpy())
    return np.stack(found)


def colour_features(crops: Sequence[Image]) -> Floats:
    """Return means, deviations and correlations of the channels of each crop, float64 (n, 2 c + c (c - 1) / 2).

    Args:
        crops: (c, y, x); correlations of a constant channel are 0.

    >>> colour_features([np.array([[[0.0, 1.0]], [[1.0, 0.0]]], np.float32)]).tolist()
    [[0.5, 0.5, 0.5, 0.5, -1.0]]
    """
    found = []
    for crop in crops:
        pixels = crop.reshape(len(crop), -1).astype(np.float64)
        mean, deviation = pixels.mean(1), pixels.std(1)
        scaled = (pixels - mean[:, None]) / np.where(deviation > 1e-6, deviation, np.inf)[:, None]
        shared = scaled @ scaled.T / pixels.shape[1]
        found.append(np.concatenate([mean, deviation, shared[np.triu_indices(len(crop), 1)]]))
    return np.stack(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Part of an image."""

    image: PointedSource
    box: Box


def halves(images: Sequence[PointedSource], crop: int, seed: int = 0) -> tuple[list[Area], list[Area]]:
    """Split the images into two parts that share no pixel: every second image, or the two ends of a single one.

    Raises:
        InputError: there is no image, one is smaller than a crop, or a single one is smaller than two crops.
    """
    for image in images:
        if min(image.shape) < crop:
            raise _too_small(image, f"at least {crop} px along both axes")
    if len(images) > 1:
        order = np.random.default_rng(seed).permutation(len(images))
        whole = [Area(image=images[i], box=Box((0, 0), images[i].shape)) for i in order]
        return whole[::2], whole[1::2]
    if not images:
        raise InputError.of(found="no image", expected="images with centre points", fix="name some")
    (image,), (y, x) = images, images[0].shape
    if max(y, x) < 2 * crop:
        raise _too_small(image, f"several images, or one of {2 * crop} px along an axis, to be cut into halves")
    middle = max(y, x) // 2
    first, second = (Box((0, 0), (middle, x)), Box((middle, 0), (y, x)))
    if x > y:
        first, second = Box((0, 0), (y, middle)), Box((0, middle), (y, x))
    return [Area(image=image, box=first)], [Area(image=image, box=second)]


def _too_small(image: PointedSource, expected: str) -> InputError:
    return InputError.of(
        found=f"{image.name} is {' x '.join(map(str, image.shape))} px", expected=expected, fix="a smaller --crop"
    )


def cut_crops(areas: Sequence[Area], n: int, crop: int, seed: Sequence[int]) -> list[Image]:
    """Return n crops at random places, from one area after the other, float32 (c, crop, crop) in [0, 1]."""
    rng = np.random.default_rng(list(seed))
    found = []
    for number in range(n):
        area = areas[number % len(areas)]
        y, x = (int(rng.integers(a, b - crop + 1)) for a, b in zip(area.box.start, area.box.stop, strict=True))
        found.append((area.image.window(Box((y, x), (y + crop, x + crop))) + np.float32(1)) / np.float32(2))
    return found
