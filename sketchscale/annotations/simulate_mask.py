"""Simulate partial annotation from full masks as the papers do: a random share of the pixels.

Pixels are kept where a smooth random field (white noise filtered by a Gaussian of sigma 10 px) lies above a quantile:
the masks of one seed are nested in the share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sketchscale.annotations.events import UNKNOWN, Event, Raster
from sketchscale.annotations.sketch import Sketch
from sketchscale.errors import InputError
from sketchscale.geometry import tile_cover

__all__ = ["require_labels", "simulate_mask"]

_Labels = npt.NDArray[np.integer[Any]]

_MASK_SIGMA_PX = 10.0
_RASTER_TILE = 1024


def simulate_mask(labels: _Labels, percent: float, *, seed: int = 0, image: str = "") -> Sketch:
    """Return the truth on p % of the pixels, chosen by a thresholded Gaussian process.

    Args:
        labels: true object ids (y, x), 0 background.
        percent: of the pixels of the image, in (0, 100]; the number kept is rounded to whole pixels. With the same
            seed, a smaller percentage keeps a subset.
        seed: of the noise.
        image: name put on the events.

    Returns:
        A sketch of raster events that name the true objects, so that touching objects stay apart.

    Source: methods of Sketchpose (MELBA 2025:016), sigma as in Sketchpose 2.0.

    >>> sketch = simulate_mask(np.ones((40, 40), np.uint32), 25, seed=3)
    >>> int((sketch.rasterize().labels == 1).sum())
    400
    """
    require_labels(labels)
    if not 0 < percent <= 100:
        raise InputError.of(found=f"percent {percent}", expected="more than 0, at most 100", fix="set --percent")
    kept = np.where(_kept_pixels(labels.shape, percent, seed), labels.astype(np.int64), UNKNOWN)
    events: list[Event] = []
    for tile in tile_cover(labels.shape, (_RASTER_TILE, _RASTER_TILE)):
        part = kept[tile.write.slices]
        if (part != UNKNOWN).any():
            origin = (tile.write.start[0], tile.write.start[1])
            events.append(Raster.of(part, origin, id=f"m{len(events):05d}", user="simulated", image=image))
    return Sketch(shape=(labels.shape[0], labels.shape[1]), events=tuple(events), image=image)


def _kept_pixels(shape: tuple[int, ...], percent: float, seed: int) -> npt.NDArray[np.bool_]:
    noise = np.random.default_rng(seed).standard_normal(shape)
    field = ndimage.gaussian_filter(noise, _MASK_SIGMA_PX, mode="wrap").ravel()
    kept = np.zeros(field.size, np.bool_)
    # A stable order, so that ties (impossible but in degenerate shapes) cannot break the nesting.
    kept[np.argsort(-field, kind="stable")[: round(field.size * percent / 100)]] = True
    return kept.reshape(shape)


def require_labels(labels: _Labels, axes: int = 2) -> None:
    """Refuse a truth that is not a label image.

    Raises:
        InputError: not integers of at least 0 with so many axes.
    """
    if labels.ndim != axes or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise InputError.of(
            found=f"a truth of shape {labels.shape} and type {labels.dtype}",
            expected=f"a {axes}-D integer label image ({'z, ' * (axes - 2)}y, x), 0 background",
            fix="give one plane of integer labels" if axes == 2 else "give a volume of integer labels",
        )
