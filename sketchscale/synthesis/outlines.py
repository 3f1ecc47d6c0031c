"""Clicked objects outlined as a synthesis reads them: partial annotation of real images, from points alone.

    1. reading   the mask network's foreground, mean over the eight ways to lay the image; where a segmentation model
                 is at hand, as one that learned from a few strokes, it reads along, and both count alike
    2. objects   a disc around each point, 0.6 diameters wide, and foreground that hangs together with it, no farther
                 from the point than 1.5 diameters; the nearer to the point, the less sure of itself it has to be; where
                 objects meet, a pixel belongs to the point from which it is flooded first
    3. ground    where foreground is improbable, and no object was found; where all objects were clicked, all the rest
    4. the rest  unknown: what looks like an object and was not clicked, and what lies between the two probabilities of
                 OutlineConfig; losses for sketches leave it to the network

Source: ours. Points as markers of pseudo labels: Qu et al. 2019, with a clustering of colours in place of the reading.
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
from sketchscale.geometry import Box, tile_cover
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

TILE, MARGIN = 1024, 96
"""Px: tiles in which an image is read and outlined, and what is read around them."""
_DAB, _REACH = 0.3, 1.5
"""Diameters around a point that are its object's whatever was read, and beyond which nothing is."""
_LEAN = 0.5
"""Log-odds by which pixels at the point are more readily its object's; half a diameter away, none; twice that, less."""
_EVEN, _SURE = 0.2, 4.0
"""What the mask network, which is shy, says where it is undecided; log-odds beyond which nobody is heard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlineConfig:
    """What counts as seen. Between the two nothing is said. Both are 0.2, as the mask network is shy; they were chosen
    on training images of two sets of stained nuclei.

    Attributes:
        foreground: an object's pixels are more probable than this.
        background: pixels that are less probable than this are said to be background.
        all_clicked: no object is without a point, so that whatever is no clicked object's is background.
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
    foreground: npt.NDArray[np.float32],
    points: npt.NDArray[np.float64],
    diameter: float,
    config: OutlineConfig | None = None,
) -> npt.NDArray[np.int32]:
    """Partial labels of an image whose foreground was read.

    Args:
        foreground: (y, x), probabilities.
        points: (n, 2) of (y, x), pixels, one in each object.
        diameter: px, of an object that stands alone; an object reaches at most 1.5 of it away from its point.

    Returns:
        int32 (y, x): k > 0 the object of point k - 1, 0 background, -1 unknown. Every point's pixel is its object's.

    Raises:
        InputError: a point is outside, twice there, or no number.

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
    dab = distance <= max(_DAB * diameter, 0.5)
    leaned = _log_odds(foreground) + _LEAN * np.clip(1 - 2 * distance / diameter, -2, 1)
    reached = ((leaned > _log_odds(config.foreground)) | dab) & (distance <= _REACH * diameter)
    found: npt.NDArray[np.int32] = watershed(distance, markers, mask=reached)  # type: ignore[no-untyped-call]
    return np.where(found > 0, found, labels).astype(np.int32)


def read_foreground(
    synthesis: Synthesis, image: npt.NDArray[np.float32], model: Model | None = None
) -> npt.NDArray[np.float32]:
    """The probability of an object at each pixel, mean over eight ways to lay the image.

    Args:
        image: (c, y, x) in [0, 1].
        model: reads along; in evaluation mode. What it says beyond its own threshold, and what the mask network says
            beyond 0.2, are two opinions in log-odds (px of a signed distance count as such), each at most 4; their mean
            is what is returned, again beyond 0.2.

    Returns:
        float32 (y, x).
    """
    seen = _every_way(image, lambda laid: read_maps(synthesis, laid)[2])
    if model is None:
        return seen.astype(np.float32)
    opinion = _every_way(image, lambda laid: _opinion(model, laid))
    own = np.clip(_log_odds(seen) - _log_odds(_EVEN), -_SURE, _SURE)
    joined: npt.NDArray[np.float64] = 1 / (1 + np.exp(-(own + opinion) / 2 - _log_odds(_EVEN)))
    return joined.astype(np.float32)


def _every_way(
    image: npt.NDArray[np.float32], read: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
) -> npt.NDArray[np.float64]:
    """The mean of what is read in the image, however it is laid."""
    total = np.zeros(image.shape[1:])
    for turn in range(4):
        for mirror in (False, True):
            laid = np.ascontiguousarray(np.rot90(image[..., ::-1] if mirror else image, turn, (1, 2)))
            seen = np.rot90(read(laid), -turn)
            total += seen[:, ::-1] if mirror else seen
    return total / 8


def _opinion(model: Model, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Above 0 where the model sees an object."""
    seen, threshold = predict_image(model, image)[2], model.config.threshold
    beyond = seen - threshold if model.target.lengths else _log_odds(seen) - _log_odds(threshold)
    return np.clip(beyond, -_SURE, _SURE).astype(np.float32)


def _log_odds(probability: npt.ArrayLike) -> npt.NDArray[np.float64]:
    safe = np.clip(np.asarray(probability, np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(safe / (1 - safe)))


def check_model(synthesis: Synthesis, model: Model) -> None:
    """Refuse a model that reads other images than the synthesis.

    Raises:
        InputError: it has other channels, other percentiles of black and white, or is for volumes.
    """
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
    """Refuse an image that the mask network cannot read.

    Raises:
        InputError: it has other channels than the synthesis.
    """
    if image.channels != synthesis.config.generator.channels:
        raise InputError.of(
            found=f"{image.name} has {image.channels} channels",
            expected=f"{synthesis.config.generator.channels}, as the synthesis",
            fix="choose them with --channel",
        )


def outline_image(
    synthesis: Synthesis, image: PointedSource, config: OutlineConfig | None = None, model: Model | None = None
) -> npt.NDArray[np.int32]:
    """Partial labels of a whole image, tile by tile of a fixed grid: (y, x) as `label_from_points`.

    The image is read in windows of 1024 px and a margin, so memory beyond the labels does not grow with it.

    Args:
        model: reads along, see `read_foreground`.

    Raises:
        InputError: the image or the model has other channels than the synthesis; see `check_model`.
    """
    check_channels(synthesis, image)
    if model is not None:
        check_model(synthesis, model)
    labels = np.full(image.shape, -1, np.int32)
    margin = MARGIN + int(_REACH * synthesis.config.prior.diameter)
    for tile in tile_cover(image.shape, (TILE, TILE), halo=margin):
        labels[tile.write.slices] = _outline_tile(synthesis, image, tile.read, config, model)[
            tile.write.relative_to(tile.read.start).slices
        ]
    return labels


def leave_drawn(labels: npt.NDArray[np.int32], drawn: RasterSketch) -> npt.NDArray[np.int32]:
    """Outlines beside what a person drew: unknown where anything is drawn, and wherever an outlined object is that a
    drawn one touches, as the drawn one is that object, or shows that it was misread.

    Args:
        labels: int32 (y, x) as `label_from_points`. drawn: of the same shape.

    >>> labels = np.array([[1, 1, 0, 2, 2]], np.int32)
    >>> drawn = RasterSketch(labels=np.array([[-1, 7, -1, -1, 0]], np.int32), boundary=np.zeros((1, 5), bool))
    >>> leave_drawn(labels, drawn).tolist()
    [[-1, -1, 0, 2, -1]]
    """
    redrawn = np.unique(labels[(labels > 0) & (drawn.labels > 0)])
    said = (drawn.labels >= 0) | drawn.boundary
    return np.where(said | np.isin(labels, redrawn), -1, labels).astype(np.int32)


def _outline_tile(
    synthesis: Synthesis, image: PointedSource, box: Box, config: OutlineConfig | None, model: Model | None
) -> npt.NDArray[np.int32]:
    """The labels of a window, under the numbers of the image's points."""
    pixels = np.floor(image.points + 0.5)
    near = np.flatnonzero(((pixels >= box.start) & (pixels < box.stop)).all(1))
    seen = read_foreground(synthesis, (image.window(box) + np.float32(1)) / np.float32(2), model)
    own = label_from_points(seen, image.points[near] - box.start, synthesis.config.prior.diameter, config)
    numbers = np.concatenate([near + 1, [-1, 0]]).astype(np.int32)  # the last two are what -1 and 0 look up
    return np.where(own > 0, numbers[own - 1], own).astype(np.int32)
