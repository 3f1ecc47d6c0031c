"""What a synthesis learns from: images with centre points, cut into crops; and the layouts drawn beside them.

The crop k of step t is drawn from the random stream (seed, t, k), so a batch is a function of (images, config, seed, t)
alone: resumed training draws what uninterrupted training draws, whatever the number of processes.
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
from sketchscale.synthesis.points import PointModel, draw_points, fit_points

__all__ = ["PointedImage", "PointedSource", "SceneBatch", "Scenes", "draw_window", "margin_of"]


class PointedSource(Protocol):
    """What crops are cut from; see PointedImage. Pixels may be read anew each time that they are asked for."""

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> int: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def points(self) -> npt.NDArray[np.float64]: ...
    def window(self, box: Box) -> npt.NDArray[np.float32]:
        """(c, y, x) in [-1, 1]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PointedImage:
    """An image in memory and one point in each of its objects.

    Attributes:
        image: (c, y, x) float32, in [-1, 1].
        points: (n, 2) of (y, x), pixels.
        name: for messages.
    """

    image: npt.NDArray[np.float32]
    points: npt.NDArray[np.float64]
    name: str = "image"

    @property
    def channels(self) -> int:
        return len(self.image)

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]

    def window(self, box: Box) -> npt.NDArray[np.float32]:
        return self.image[:, *box.slices]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneBatch:
    """Real crops with their points, and layouts with theirs; they have nothing to do with one another.

    Attributes:
        image: (n, c, y, x) float32 in [-1, 1]. image_points: bool (n, y, x).
        maps: (n, 3, y, x) float32. map_points: bool (n, y, x).
        noise: (n, noise) float32, normal.
    """

    image: torch.Tensor
    image_points: torch.Tensor
    maps: torch.Tensor
    map_points: torch.Tensor
    noise: torch.Tensor

    def to(self, device: torch.device) -> SceneBatch:
        """On another device."""
        return SceneBatch(
            **{name: getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__}
        )


class Scenes:
    """Draws batches; see the module.

    Args:
        crop: side, px.
        given: share of layouts around given points; the others stand on points drawn from the density model.

    Raises:
        InputError: no image, different channels, an image smaller than a crop, too few or impossible points.
    """

    def __init__(
        self,
        images: Sequence[PointedSource],
        *,
        crop: int,
        prior: LayoutPrior,
        noise: int = 1,
        given: float = 0.5,
        seed: int = 0,
    ) -> None:
        _check(images, crop)
        self.images, self.crop, self.prior, self.noise = tuple(images), crop, prior, noise
        self.given, self.seed = given, seed
        self.model: PointModel = fit_points([i.points for i in images], [i.shape for i in images])

    def batch(self, step: int, which: Sequence[int]) -> SceneBatch:
        """The crops and layouts `which` of a step."""
        scenes = [self._scene(np.random.default_rng((self.seed, step, k))) for k in which]
        image, at, maps, map_at, noise = (torch.from_numpy(np.stack(part)) for part in zip(*scenes, strict=True))
        return SceneBatch(image=image, image_points=at, maps=maps, map_points=map_at, noise=noise)

    def _scene(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.generic], ...]:
        image, at = self._crop(rng)
        labels, pixels = self._layout(rng)
        maps = maps_from_labels(labels)
        noise = rng.standard_normal(self.noise).astype(np.float32)
        return image, at, maps, _marked(pixels, self.crop), noise

    def _crop(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.generic]]:
        source, start = self._window(rng)
        inside = source.points - start
        y, x = (int(n) for n in start)
        window = Box((y, x), (y + self.crop, x + self.crop))
        turn = int(rng.integers(8))
        at = _marked(_held(inside, (self.crop, self.crop)), self.crop)
        return _turned(source.window(window), turn), _turned(at, turn)

    def _window(self, rng: np.random.Generator) -> tuple[PointedSource, npt.NDArray[np.int64]]:
        source = self.images[int(rng.integers(len(self.images)))]
        room = np.array(source.shape) - self.crop
        return source, rng.integers(0, room + 1)

    def _layout(self, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """A window of a layout that is larger by a margin, so that borders cut objects there as they do in images."""
        margin = margin_of(self.prior)
        points = None
        if rng.random() < self.given:
            points = self._given_points(rng, self.crop + 2 * margin, margin)
        return draw_window(self.model, self.prior, (self.crop, self.crop), rng, points)

    def _given_points(self, rng: np.random.Generator, side: int, margin: int) -> npt.NDArray[np.float64]:
        source, start = self._window(rng)
        whole: npt.NDArray[np.float64] = np.floor(source.points + 0.5)  # mirrored, halves would meet others
        points = whole - start + margin
        if rng.random() < 0.5:
            points = points[:, ::-1]
        for axis in (0, 1):
            if rng.random() < 0.5:
                points = points.copy()
                points[:, axis] = side - 1 - points[:, axis]
        return points[((points > -0.5) & (points < side - 0.5)).all(1)]


def margin_of(prior: LayoutPrior) -> int:
    """Px by which a layout is larger than the window that is cut out of it."""
    return int(2 * prior.diameter)


def draw_window(
    model: PointModel,
    prior: LayoutPrior,
    shape: tuple[int, int],
    rng: np.random.Generator,
    points: npt.NDArray[np.float64] | None = None,
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """A layout whose objects its borders cut, as those of an image do; and the points' pixels that lie in it.

    Args:
        shape: (y, x) of the window.
        points: (n, 2) of (y, x) in a window grown by `margin_of(prior)` on each side; drawn from the model when None.

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


def _held(points: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Pixels of the points that lie in the window."""
    pixels = np.floor(points + 0.5).astype(np.int64)
    return pixels[((pixels >= 0) & (pixels < shape)).all(1)]


def _marked(pixels: npt.NDArray[np.int64], side: int) -> npt.NDArray[np.bool_]:
    marked = np.zeros((side, side), np.bool_)
    marked[pixels[:, 0], pixels[:, 1]] = True
    return marked


def _turned(values: npt.NDArray[np.generic], turn: int) -> npt.NDArray[np.generic]:
    """One of the eight ways to lay a square, over the last two axes."""
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
