"""Outline clicked objects with a synthesis: partial annotation of real images from points alone.

    1. foreground  of the mask network, mean over the eight orientations of the image; a segmentation model, such as one
                   trained on a few strokes, may contribute with equal weight
    2. objects     a disc around each point, 0.6 diameters wide, and foreground connected to it within 1.5 diameters of
                   the point; near the point a lower probability is enough; where objects meet, a pixel belongs to the
                   point from which it is flooded first
    3. background  where foreground is improbable and no object was found; if all objects were clicked, all the rest
    4. unknown     what looks like an object and was not clicked, and what lies between the two probabilities of
                   OutlineConfig; losses for sketches ignore it

Source: ours. Points as markers of pseudo labels: Qu et al. 2019, with a clustering of colours instead of a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from sketchscale.annotations.sketch import RasterSketch
from sketchscale.errors import InputError
from sketchscale.geometry import tile_cover
from sketchscale.networks.model import Model
from sketchscale.synthesis.layouts import pixels_of_points
from sketchscale.synthesis.model import Synthesis
from sketchscale.synthesis.quality import read_maps
from sketchscale.synthesis.scenes import PointedSource
from sketchscale.training.thresholds import predict_image

__all__ = [
    "OutlineConfig",
    "check_channels",
    "check_model",
    "label_from_points",
    "leave_drawn",
    "outline_image",
    "read_foreground",
]

Image = npt.NDArray[np.float32]

TILE, MARGIN = 1024, 96
"""Tiles in which an image is read and outlined, and the margin that is read around them, px."""
_SURE, _REACH = 0.3, 1.5
"""Distance from the point, in diameters, within which pixels always belong to its object, and beyond which never."""
_BONUS = 0.5
"""Log-odds added at the point; 0 at half a diameter from it, negative beyond."""
_EVEN, _CLIP = 0.2, 4.0
"""Output of the mask network where it is undecided (it is too cautious); largest log-odds that count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineConfig:
    """Thresholds of the foreground's probability; pixels between the two are unknown. Both are 0.2, as the mask network
    is too cautious; they were chosen on training images of two sets of stained nuclei.

    Attributes:
        foreground: an object's pixels have a larger probability.
        background: pixels with a smaller probability are background.
        all_clicked: every object has a point, so that everything else is background.
    """

    foreground: float = 0.2
    background: float = 0.2
    all_clicked: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.background <= self.foreground <= 1:
            raise InputError.of(
                found=f"background up to {self.background}, foreground from {self.foreground}",
                expected="probabilities, the first not above the second",
                fix="leave both at 0.2",
            )


def label_from_points(
    foreground: Image, points: npt.NDArray[np.float64], diameter: float, config: OutlineConfig | None = None
) -> npt.NDArray[np.int32]:
    """Return partial labels from points and the probability of foreground.

    Args:
        foreground: (y, x), probabilities.
        points: (n, 2) of (y, x), px, one in each object.
        diameter: of an isolated object, px; an object extends at most 1.5 diameters from its point.

    Returns:
        int32 (y, x): k > 0 the object of point k - 1, 0 background, -1 unknown. Every point's pixel is in its object.

    Raises:
        InputError: see `pixels_of_points`.

    >>> seen = np.array([[0.05, 0.9, 0.9, 0.2, 0.05, 0.9]], np.float32)
    >>> label_from_points(seen, np.array([[0.0, 1.0]]), 2.0).tolist()
    [[0, 1, 1, -1, 0, -1]]
    """
    config = config or OutlineConfig()
    pixels = pixels_of_points(points, (foreground.shape[0], foreground.shape[1]))
    labels = np.where(config.all_clicked | (foreground < config.background), 0, -1).astype(np.int32)
    if not len(pixels):
        return labels
    markers = np.zeros(foreground.shape, np.int32)
    markers[pixels[:, 0], pixels[:, 1]] = np.arange(1, len(pixels) + 1)
    distance = ndimage.distance_transform_edt(markers == 0)
    score = _log_odds(foreground) + _BONUS * np.clip(1 - 2 * distance / diameter, -2, 1)
    sure = distance <= max(_SURE * diameter, 0.5)
    reached = ((score > _log_odds(config.foreground)) | sure) & (distance <= _REACH * diameter)
    found: npt.NDArray[np.int32] = watershed(distance, markers, mask=reached)  # type: ignore[no-untyped-call]
    return np.where(found > 0, found, labels).astype(np.int32)


def read_foreground(synthesis: Synthesis, image: Image, model: Model | None = None) -> Image:
    """Return the probability of an object at each pixel, float32 (y, x), mean over the eight orientations of the image.

    Args:
        image: (c, y, x) in [0, 1].
        model: contributes to the result; in evaluation mode. Its output relative to its threshold (log-odds, or px of a
            signed distance) and the log-odds of the mask network relative to 0.2 are clipped at 4 and averaged; the
            result is relative to 0.2 again.
    """
    seen = _mean_over_orientations(image, lambda turned: read_maps(synthesis, turned)[2])
    if model is None:
        return seen.astype(np.float32)

    def beyond_threshold(turned: Image) -> Image:
        output, threshold = predict_image(model, turned)[2], model.config.threshold
        beyond = output - threshold if model.target.lengths else _log_odds(output) - _log_odds(threshold)
        return np.clip(beyond, -_CLIP, _CLIP).astype(np.float32)

    of_model = _mean_over_orientations(image, beyond_threshold)
    own = np.clip(_log_odds(seen) - _log_odds(_EVEN), -_CLIP, _CLIP)
    joined: npt.NDArray[np.float64] = 1 / (1 + np.exp(-(own + of_model) / 2 - _log_odds(_EVEN)))
    return joined.astype(np.float32)


def _mean_over_orientations(image: Image, read: Callable[[Image], Image]) -> npt.NDArray[np.float64]:
    total = np.zeros(image.shape[1:])
    for turn in range(4):
        for mirror in (False, True):
            turned = np.ascontiguousarray(np.rot90(image[..., ::-1] if mirror else image, turn, (1, 2)))
            seen = np.rot90(read(turned), -turn)
            total += seen[:, ::-1] if mirror else seen
    return total / 8


def _log_odds(probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    safe = np.clip(np.asarray(probability, np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(safe / (1 - safe)))


def check_model(synthesis: Synthesis, model: Model) -> None:
    """Raise InputError if the model's channels or percentiles differ from the synthesis, or if it is for volumes."""
    own, wanted = model.config, synthesis.config
    if own.network.dim != 2:
        raise InputError.of(found="a model for volumes", expected="one for planes", fix="another --model")
    for found, expected in (
        (f"{own.network.channels} channels", f"{wanted.generator.channels} channels"),
        (f"percentiles {own.low:g} and {own.high:g}", f"percentiles {wanted.low:g} and {wanted.high:g}"),
    ):
        if found != expected:
            raise InputError.of(
                found=f"a model of {found}", expected=f"{expected}, as the synthesis", fix="train it on the same images"
            )


def check_channels(synthesis: Synthesis, image: PointedSource) -> None:
    """Raise InputError if the image has other channels than the synthesis."""
    if image.channels != synthesis.config.generator.channels:
        raise InputError.of(
            found=f"{image.name} has {image.channels} channels",
            expected=f"{synthesis.config.generator.channels}, as the synthesis",
            fix="choose them with --channel",
        )


def outline_image(
    synthesis: Synthesis, image: PointedSource, config: OutlineConfig | None = None, model: Model | None = None
) -> npt.NDArray[np.int32]:
    """Return partial labels of a whole image as `label_from_points`.

    The image is read in tiles of 1024 px with a margin, on a fixed grid, so only the labels need memory that grows with
    the image.

    Args:
        model: see `read_foreground`.

    Raises:
        InputError: see `check_channels` and `check_model`.
    """
    check_channels(synthesis, image)
    if model is not None:
        check_model(synthesis, model)
    labels = np.full(image.shape, -1, np.int32)
    diameter, pixels = synthesis.config.prior.diameter, np.floor(image.points + 0.5)
    for tile in tile_cover(image.shape, (TILE, TILE), halo=MARGIN + int(_REACH * diameter)):
        box = tile.read
        near = np.flatnonzero(((pixels >= box.start) & (pixels < box.stop)).all(1))
        seen = read_foreground(synthesis, (image.window(box) + np.float32(1)) / np.float32(2), model)
        own = label_from_points(seen, image.points[near] - box.start, diameter, config)
        numbers = np.concatenate([near + 1, [-1, 0]]).astype(np.int32)  # the last two are found for -1 and 0
        found = np.where(own > 0, numbers[own - 1], own)
        labels[tile.write.slices] = found[tile.write.relative_to(box.start).slices]
    return labels


def leave_drawn(labels: npt.NDArray[np.int32], drawn: RasterSketch) -> npt.NDArray[np.int32]:
    """Return labels to be used next to a person's sketch: unknown where anything is drawn, and in outlined objects that
    overlap a drawn one, since that is the same object or shows that the outline is wrong.

    Args:
        labels: int32 (y, x) as `label_from_points`. drawn: of the same shape.

    >>> labels = np.array([[1, 1, 0, 2, 2]], np.int32)
    >>> drawn = RasterSketch(labels=np.array([[-1, 7, -1, -1, 0]], np.int32), boundary=np.zeros((1, 5), bool))
    >>> leave_drawn(labels, drawn).tolist()
    [[-1, -1, 0, 2, -1]]
    """
    redrawn = np.unique(labels[(labels > 0) & (drawn.labels > 0)])
    known = (drawn.labels >= 0) | drawn.boundary
    return np.where(known | np.isin(labels, redrawn), -1, labels).astype(np.int32)
