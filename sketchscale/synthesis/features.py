"""Numbers that crops of images are compared by, from a network that is in the package: no download.

    texture   the encoder of the shipped model `nuclei-fluo`, each channel of a crop on its own, as it reads one: means
              over the crop of the features of all its levels, those of one channel after those of another
    colour    mean and standard deviation of each channel, correlation of each two

The network was taught on fluorescent nuclei; distances of its features are not comparable with those of Inception
features in papers, only with one another. Shallow levels see inverted and darker images more clearly than the deepest;
no channel knows of another, hence the colours.
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
    """What the network sees in each crop.

    Args:
        crops: (c, y, x) in [0, 1], sides multiples of 8.

    Returns:
        float64 (n, 240 c).

    >>> texture_features([np.zeros((2, 16, 16), np.float32)]).shape
    (1, 480)
    """
    return np.stack([_seen(crop) for crop in crops])


def _seen(crop: Image) -> Floats:
    with torch.inference_mode(), autocast("cpu", "float32"):
        levels = _network().encode(torch.from_numpy(np.ascontiguousarray(crop, np.float32))[:, None])
        means = torch.cat([level.mean((2, 3)) for level in levels], 1)
    seen: Floats = means.flatten().double().numpy()
    return seen


def colour_features(crops: Sequence[Image]) -> Floats:
    """Means, deviations and correlations of the channels of each crop; a constant channel correlates with none.

    Args:
        crops: (c, y, x).

    Returns:
        float64 (n, 2 c + c (c - 1) / 2).

    >>> colour_features([np.array([[[0.0, 1.0]], [[1.0, 0.0]]], np.float32)]).tolist()
    [[0.5, 0.5, 0.5, 0.5, -1.0]]
    """
    return np.stack([_colours(crop) for crop in crops])


def _colours(crop: Image) -> Floats:
    pixels = crop.reshape(len(crop), -1).astype(np.float64)
    mean, deviation = pixels.mean(1), pixels.std(1)
    scaled = (pixels - mean[:, None]) / np.where(deviation > 1e-6, deviation, np.inf)[:, None]
    shared = scaled @ scaled.T / pixels.shape[1]
    return np.concatenate([mean, deviation, shared[np.triu_indices(len(crop), 1)]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """Part of an image."""

    image: PointedSource
    box: Box


def halves(images: Sequence[PointedSource], crop: int, seed: int = 0) -> tuple[list[Area], list[Area]]:
    """Two parts of the images that share no pixel: every second image, or the two ends of the only one.

    Raises:
        InputError: no image; one smaller than a crop; a single one that is smaller than two crops.
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
    return _cut_in_two(images[0], crop)


def _cut_in_two(image: PointedSource, crop: int) -> tuple[list[Area], list[Area]]:
    y, x = image.shape
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
    """Crops at places drawn at random, from one area after the other.

    Returns:
        n of float32 (c, crop, crop) in [0, 1].
    """
    rng = np.random.default_rng(list(seed))
    found = []
    for number in range(n):
        area = areas[number % len(areas)]
        y, x = (int(rng.integers(a, b - crop + 1)) for a, b in zip(area.box.start, area.box.stop, strict=True))
        found.append((area.image.window(Box((y, x), (y + crop, x + crop))) + np.float32(1)) / np.float32(2))
    return found
