"""Generate an image that shows exactly the objects of a label image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.errors import InputError
from sketchscale.synthesis.layouts import draw_layout
from sketchscale.synthesis.model import Synthesis
from sketchscale.synthesis.scenes import draw_window, margin_of

__all__ = ["Pair", "draw_pair", "paint", "paint_maps"]

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """An image and its labels.

    Attributes:
        image: float32 (c, y, x) in [0, 1].
        labels: uint32 (y, x), 0 is background.
    """

    image: Image
    labels: npt.NDArray[np.uint32]


def draw_pair(
    synthesis: Synthesis,
    shape: tuple[int, int],
    *,
    seed: tuple[int, ...],
    points: Floats | None = None,
    field: Floats | None = None,
) -> Pair:
    """Draw a pair. On one machine it depends only on synthesis, shape, seed and points.

    Args:
        shape: (y, x), px.
        seed: numbers of at least 0, such as (seed of the set, number of the pair).
        points: (n, 2) of (y, x) in the image, one for each object; None draws them from the density model.
        field: (n, 2) of (y, x) of a larger area instead, from 0 on: the image shows a random window of it with objects
            cut by the borders; a field narrower than the image lies somewhere in it.

    Raises:
        InputError: the shape is below one pixel; see `pixels_of_points`.
    """
    if min(shape) < 1:
        raise InputError.of(found=f"scenes of {shape[0]} x {shape[1]} px", expected="at least 1 px", fix="--size 256")
    rng = np.random.default_rng(seed)
    prior = synthesis.config.prior
    if points is None:
        near = None if field is None else _window_of(field, shape, margin_of(prior), rng)
        labels, _ = draw_window(synthesis.points, prior, shape, rng, near)
    else:
        labels = draw_layout(points, shape, prior, seed=int(rng.integers(1 << 31)))
    noise = synthesis.config.generator.draw_noise(shape, rng)
    return Pair(image=paint(synthesis, labels, noise), labels=labels)


def _window_of(field: Floats, shape: tuple[int, int], margin: int, rng: np.random.Generator) -> Floats:
    """Return the points in and near a random window, in coordinates of the window grown by a margin."""
    room = np.floor(field.max(0) + 0.5).astype(np.int64) + 1 - shape
    start = rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1)
    moved: Floats = field - start + margin
    return moved[((moved > -0.5) & (moved < np.array(shape) + 2 * margin - 0.5)).all(1)]


def paint(synthesis: Synthesis, labels: npt.NDArray[np.integer], noise: Image) -> Image:
    """Return the generator's image of a label image, float32 (c, y, x) in [0, 1].

    Args:
        labels: (y, x), 0 is background; of any size: it is mirrored up to a multiple of 32, at least 64, where mirrored
            objects get other ids, and the result is cropped.
        noise: of the labels' size, from GeneratorConfig.draw_noise; mirrored with them.
    """
    stride = synthesis.config.generator.stride
    # normalisation needs more than one pixel at the coarsest level
    rest = [max(-n % stride, 2 * stride - n) for n in labels.shape]
    grown = _mirrored(labels, rest) if any(rest) else labels
    if noise.ndim == 3:
        noise = np.pad(noise, [(0, 0), *((0, n) for n in rest)], mode="symmetric")
    return paint_maps(synthesis, maps_from_labels(grown), noise)[:, : labels.shape[0], : labels.shape[1]]


def _mirrored(labels: npt.NDArray[np.integer], rest: Sequence[int]) -> npt.NDArray[np.int64]:
    """Append mirrored pixels; mirrored objects get other ids, so that the maps of the first ones do not change."""
    grown = np.pad(labels, [(0, n) for n in rest], mode="symmetric").astype(np.int64)
    y, x = (np.arange(n + more) // n for n, more in zip(labels.shape, rest, strict=True))
    copy = y[:, None] * (x[-1] + 1) + x
    return np.where(grown > 0, grown + copy * (int(labels.max()) + 1), 0)


def paint_maps(synthesis: Synthesis, maps: Image, noise: Image) -> Image:
    """Return the generator's image of maps, float32 (c, y, x) in [0, 1].

    Args:
        maps: (3, y, x), y and x multiples of 32, not both 32; h and v in [-1, 1], m in [0, 1].
        noise: of the maps' size, from GeneratorConfig.draw_noise.
    """
    device = synthesis.generator.head.weight.device
    given = (torch.from_numpy(values)[None].to(device) for values in (maps, noise))
    with torch.inference_mode():
        made: Image = synthesis.generator(*given)[0].float().cpu().numpy()
    return np.clip((made + 1) / 2, 0, 1)
