"""Check against inverted colours: whether objects are brighter than background in generated images as in real ones.

    1. every object differs from the background of its image by d, channel by channel
    2. the order of a channel is the sign of the mean of d over all objects of all images, if that mean is more than 3
       of its standard errors from 0; otherwise it is undecided
    3. kept: the orders that are decided in both real and generated images agree

The standard error is the larger of two: with independent objects, and with independent images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.synthesis.scenes import PointedSource

__all__ = ["ChannelOrder", "contrast_order", "labels_of_points", "order_kept", "real_order"]

_ERRORS = 3.0
_LEAST = 3
"""Fewest objects for an order."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelOrder:
    """Objects against background, in one channel.

    Attributes:
        objects, background: means over the objects' means and over the images' backgrounds, each counted once for
            every object in it.
        error: standard error of their difference.
        count: number of objects.
        brighter, darker: number of images with brighter or darker objects, decided from each image alone.
        images: number of images with an object and background.
    """

    objects: float
    background: float
    error: float
    count: int
    brighter: int
    darker: int
    images: int

    @property
    def sign(self) -> int:
        """1 if objects are brighter, -1 if they are darker, 0 if undecided."""
        return _sign(self.objects - self.background, self.error, self.count)


def _sign(difference: float, error: float, count: int) -> int:
    decided = count >= _LEAST and abs(difference) > _ERRORS * error and abs(difference) > 1e-6
    return int(np.sign(difference)) if decided else 0


def labels_of_points(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.uint32]:
    """Return labels with a square of 3 x 3 px around each point, cut at the border; later points have precedence.

    This gives a mean to objects of which only a point is known. The rest of each object counts as background, which
    makes the difference smaller but does not change its sign.

    Args:
        points: (n, 2) of (y, x), px.

    >>> labels_of_points(np.array([[0.0, 0.0]]), (3, 3)).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    labels = np.zeros(shape, np.uint32)
    for number, (y, x) in enumerate(np.floor(np.asarray(points) + 0.5).astype(np.int64), start=1):
        labels[max(0, y - 1) : max(0, y + 2), max(0, x - 1) : max(0, x + 2)] = number
    return labels


def contrast_order(
    images: Sequence[npt.NDArray[np.float32]],
    labels: Sequence[npt.NDArray[np.integer]],
    sources: Sequence[Hashable] | None = None,
) -> tuple[ChannelOrder, ...]:
    """Return the order of each channel, see the module; undecided without objects.

    Args:
        images: (c, y, x) each, of the same scale of intensities.
        labels: (y, x) of each image, 0 is background; images without an object or background are ignored.
        sources: the image of which each is a part, as parts of one image count as one; None if all are different.

    Raises:
        InputError: there is no image, or the number of label images differs.

    >>> labels = np.array([[0, 1, 0, 2, 0, 3, 0]])
    >>> contrast_order([(labels == 0)[None].astype(np.float32)], [labels])[0].sign
    -1
    """
    if not images or len(images) != len(labels):
        raise InputError.of(
            found=f"{len(images)} images, {len(labels)} label images", expected="one for each", fix="pass both"
        )
    groups: dict[Hashable, list[tuple[Floats, Floats]]] = {}
    for image, own, source in zip(images, labels, range(len(images)) if sources is None else sources, strict=True):
        names, place = np.unique(own, return_inverse=True)
        if len(names) >= 2 and names[0] == 0:
            area = np.bincount(place.ravel())
            means = np.stack([np.bincount(place.ravel(), channel.ravel()) / area for channel in image])
            groups.setdefault(source, []).append((means[:, 1:], means[:, 0]))
    joined = [
        (np.concatenate([m[0] for m in group], 1), np.concatenate([m[0] - m[1][:, None] for m in group], 1))
        for group in groups.values()
    ]
    return tuple(_order([(m[channel], d[channel]) for m, d in joined]) for channel in range(len(images[0])))


def real_order(
    images: Sequence[PointedSource], *, side: int = 256, windows: int = 200, seed: int = 0
) -> tuple[ChannelOrder, ...]:
    """Return the order of each channel in annotated images, at their points.

    Windows are tiled from each image's first pixel, so that no object counts twice. If there are more than requested,
    they are drawn at random, the same number from every image.

    Args:
        side: of a window, px; those at the end of the image are smaller.
        windows: largest number of windows in all, but at least one of every image.
    """
    rng = np.random.default_rng(seed)
    crops, labels, sources = [], [], []
    for number, image in enumerate(images):
        starts = [(y, x) for y in range(0, image.shape[0], side) for x in range(0, image.shape[1], side)]
        for i in sorted(rng.permutation(len(starts))[: max(1, windows // len(images))]):
            box = Box(starts[i], (starts[i][0] + side, starts[i][1] + side)).clip(image.shape)
            inside = (image.points >= np.array(box.start) - 0.5) & (image.points < np.array(box.stop) - 0.5)
            crops.append((image.window(box) + np.float32(1)) / np.float32(2))
            labels.append(labels_of_points(image.points[inside.all(1)] - box.start, (box.shape[0], box.shape[1])))
            sources.append(number)
    return contrast_order(crops, labels, sources)


def _order(images: Sequence[tuple[Floats, Floats]]) -> ChannelOrder:
    """Return the order from the objects' means and their differences from the background, for each image."""
    if not images:
        return ChannelOrder(objects=0.0, background=0.0, error=0.0, count=0, brighter=0, darker=0, images=0)
    apart = [difference for _, difference in images]
    everything = np.concatenate(apart)
    signs = [_sign(float(d.mean()), _error([d]), len(d)) for d in apart]
    objects = float(np.concatenate([objects for objects, _ in images]).mean())
    return ChannelOrder(
        objects=objects,
        background=objects - float(everything.mean()),
        error=_error(apart),
        count=len(everything),
        brighter=signs.count(1),
        darker=signs.count(-1),
        images=len(images),
    )


def _error(groups: Sequence[Floats]) -> float:
    """Return the standard error of the mean of all values, see the module."""
    values = np.concatenate(groups)
    n, k, mean = len(values), len(groups), values.mean()
    alone = values.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    sums = np.array([(group - mean).sum() for group in groups])
    together = np.sqrt((sums**2).sum() * k / (k - 1)) / n if k > 1 else 0.0
    return float(max(alone, together))


def order_kept(real: Sequence[ChannelOrder], made: Sequence[ChannelOrder]) -> bool | None:
    """Return whether the orders agree in all channels where both are decided; None if there is no such channel.

    >>> order_kept((), ()) is None
    True
    """
    pairs = [(a.sign, b.sign) for a, b in zip(real, made, strict=True) if a.sign and b.sign]
    return all(a == b for a, b in pairs) if pairs else None
