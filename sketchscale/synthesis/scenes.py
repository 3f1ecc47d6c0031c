"""Training data of a synthesis: crops of images with centre points, and drawn layouts.

The crop k of step t is drawn from the random stream (seed, t, k), so a batch is a function of (images, config, seed, t)
alone: resumed training draws the same batches as uninterrupted training, for any number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.synthesis.layouts import LayoutPrior, draw_layout, pixels_of_points
from sketchscale.synthesis.networks import GeneratorConfig
from sketchscale.synthesis.points import PointModel, draw_points, fit_points

__all__ = ["PointedImage", "PointedSource", "SceneBatch", "Scenes", "draw_window", "margin_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class PointedSource(Protocol):
    """A source of crops; see PointedImage. It may read its pixels at every call."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""

    @property
    def points(self) -> Floats:
        """(n, 2) of (y, x), px."""

    def window(self, box: Box) -> npt.NDArray[np.float32]:
        """Return the pixels of a box, (c, y, x) in [-1, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PointedImage:
    """An image in memory and one point in each of its objects.

    Attributes:
        image: (c, y, x) float32, in [-1, 1].
        points: (n, 2) of (y, x), px.
        name: for messages.
    """

    image: npt.NDArray[np.float32]
    points: Floats
    name: str = "image"

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.image)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.image.shape[1], self.image.shape[2]

    def window(self, box: Box) -> npt.NDArray[np.float32]:
        """Return the pixels of a box, (c, y, x)."""
        return self.image[:, *box.slices]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneBatch:
    """Real crops with their points, and unrelated layouts with theirs.

    Attributes:
        image: (n, c, y, x) float32 in [-1, 1]. image_points: bool (n, y, x).
        maps: (n, 3, y, x) float32. map_points: bool (n, y, x).
        noise: (n, noise) or (n, noise + local_noise, y, x) float32, see GeneratorConfig.draw_noise.
    """

    image: torch.Tensor
    image_points: torch.Tensor
    maps: torch.Tensor
    map_points: torch.Tensor
    noise: torch.Tensor

    def to(self, device: torch.device) -> SceneBatch:
        """Return the batch on another device."""
        return SceneBatch(
            **{name: getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__}
        )


class Scenes:
    """Source of batches; see the module.

    Args:
        crop: side, px.
        generator: for which noise is drawn.
        given: share of layouts around given points; the others use points drawn from the density model.

    Raises:
        InputError: there is no image, channels differ, an image is smaller than a crop, or points are too few or wrong.
    """

    def __init__(
        self,
        images: Sequence[PointedSource],
        *,
        crop: int,
        prior: LayoutPrior,
        generator: GeneratorConfig | None = None,
        given: float = 0.5,
        seed: int = 0,
    ) -> None:
        _check(images, crop)
        self.images, self.crop, self.prior = tuple(images), crop, prior
        self.generator = generator or GeneratorConfig()
        self.given, self.seed = given, seed
        self.model: PointModel = fit_points([i.points for i in images], [i.shape for i in images])

    def batch(self, step: int, which: Sequence[int]) -> SceneBatch:
        """Return the crops and layouts with the numbers `which` of a step."""
        scenes = [self._scene(np.random.default_rng((self.seed, step, k))) for k in which]
        image, at, maps, map_at, noise = (torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True))
        return SceneBatch(image=image, image_points=at, maps=maps, map_points=map_at, noise=noise)

    def _scene(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.generic], ...]:
        image, at = self._crop(rng)
        # the layout is larger by a margin, so that its borders cut objects as they do in images
        margin = margin_of(self.prior)
        points = self._given_points(rng, self.crop + 2 * margin, margin) if rng.random() < self.given else None
        labels, pixels = draw_window(self.model, self.prior, (self.crop, self.crop), rng, points)
        maps = maps_from_labels(labels)
        noise = self.generator.draw_noise((self.crop, self.crop), rng)
        return image, at, maps, _marked(pixels, self.crop), noise

    def _crop(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
        source, start = self._window(rng)
        inside = source.points - start
        y, x = (int(n) for n in start)
        window = Box((y, x), (y + self.crop, x + self.crop))
        turn = int(rng.integers(8))
        at = _marked(_held(inside, (self.crop, self.crop)), self.crop)
        return _turned(source.window(window), turn), _turned(at, turn)

    def _window(self, rng: np.random.Generator) -> tuple[PointedSource, Ints]:
        source = self.images[int(rng.integers(len(self.images)))]
        room = np.array(source.shape) - self.crop
        return source, rng.integers(0, room + 1)

    def _given_points(self, rng: np.random.Generator, side: int, margin: int) -> Floats:
        source, start = self._window(rng)
        whole: Floats = np.floor(source.points + 0.5)  # rounding halves after a flip could collide
        points = whole - start + margin
        if rng.random() < 0.5:
            points = points[:, ::-1]
        for axis in (0, 1):
            if rng.random() < 0.5:
                points = points.copy()
                points[:, axis] = side - 1 - points[:, axis]
        return points[((points > -0.5) & (points < side - 0.5)).all(1)]


def margin_of(prior: LayoutPrior) -> int:
    """Return by how many px a layout is larger than its window, on each side."""
    return int(2 * prior.diameter)


def draw_window(
    model: PointModel,
    prior: LayoutPrior,
    shape: tuple[int, int],
    rng: np.random.Generator,
    points: Floats | None = None,
) -> tuple[npt.NDArray[np.uint32], Ints]:
    """Draw a layout with objects cut by its borders, as in an image; and the pixels of the points in it.

    Args:
        shape: (y, x) of the window.
        points: (n, 2) of (y, x) in the window grown by `margin_of(prior)` on each side; None draws them from the model.

    Returns:
        uint32 (y, x), 0 is background, and int64 (m, 2) of (y, x).
    """
    margin = margin_of(prior)
    grown = (shape[0] + 2 * margin, shape[1] + 2 * margin)
    if points is None:
        points = draw_points(model, grown, seed=int(rng.integers(1 << 31)))
    labels = draw_layout(points, grown, prior, seed=int(rng.integers(1 << 31)))
    window = labels[margin : margin + shape[0], margin : margin + shape[1]]
    return np.ascontiguousarray(window), _held(points - margin, shape)


def _held(points: Floats, shape: tuple[int, int]) -> Ints:
    """Return the pixels of the points that lie in the window."""
    pixels = np.floor(points + 0.5).astype(np.int64)
    return pixels[((pixels >= 0) & (pixels < shape)).all(1)]


def _marked(pixels: Ints, side: int) -> npt.NDArray[np.bool_]:
    marked = np.zeros((side, side), np.bool_)
    marked[pixels[:, 0], pixels[:, 1]] = True
    return marked


def _turned(values: npt.NDArray[np.generic], turn: int) -> npt.NDArray[np.generic]:
    """Return one of the eight orientations of a square, over the last two axes."""
    values = np.rot90(values, turn % 4, (-2, -1))
    return np.ascontiguousarray(values[..., ::-1] if turn >= 4 else values)


def _check(images: Sequence[PointedSource], crop: int) -> None:
    if not images:
        raise InputError.of(found="no image", expected="images with centre points", fix="name some")
    channels = {image.channels for image in images}
    if len(channels) > 1:
        first = next(i for i in images if i.channels != images[0].channels)
        raise InputError.of(
            found=f"{first.name} has {first.channels} channels, {images[0].name} {images[0].channels}",
            expected="the same channels in every image",
            fix="choose them with --channel",
        )
    for image in images:
        if min(image.shape) < crop:
            raise InputError.of(
                found=f"{image.name} is {' x '.join(map(str, image.shape))} px",
                expected=f"at least {crop} px along both axes",
                fix="a smaller --crop",
            )
        try:
            pixels_of_points(image.points, image.shape)
        except InputError as error:
            raise InputError(f"{image.name}: {error}") from error
