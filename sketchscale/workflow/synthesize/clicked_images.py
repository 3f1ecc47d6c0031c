"""Images and their centre points as a synthesis learns from them.

Images are used whole, as their points say that nothing lies where there is none. They are held in memory as long as
they fit; beyond that each crop is read where it is cut. Intensities are scaled by percentiles of the whole image, as
everywhere, and then to [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.centres import read_centres
from sketchscale.errors import InputError
from sketchscale.geometry import Box, block_shape
from sketchscale.intensity import channel_ranges, normalize
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.synthesis.layouts import pixels_of_points
from sketchscale.synthesis.scenes import PointedImage, PointedSource
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.segment.job import choose_channels
from sketchscale.workflow.train.images import HELD_BYTES

__all__ = ["StoredImage", "hold_in_memory", "read_pointed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image in storage with its points: a PointedSource.

    Attributes:
        use: indices of the channels. ranges: of each, what becomes -1 and 1.
    """

    name: str
    plane: PixelsRef
    use: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    points: npt.NDArray[np.float64]

    @property
    def channels(self) -> int:
        return len(self.use)

    @property
    def shape(self) -> tuple[int, int]:
        return self.plane.section

    def window(self, box: Box) -> npt.NDArray[np.float32]:
        """(c, y, x) in [-1, 1].

        Raises:
            InputError: the image cannot be read, or holds NaN or Inf there.
        """
        pixels = normalize(read_plane(self.plane, box, self.use), self.ranges)
        if not np.isfinite(pixels).all():
            raise InputError.of(found=f"{self.name}: NaN or Inf pixels", expected="numbers", fix="mask them out")
        return np.clip(pixels, 0, 1) * np.float32(2) - np.float32(1)

    def held(self) -> PointedImage:
        """In memory."""
        return PointedImage(image=self.window(Box((0, 0), self.shape)), points=self.points, name=self.name)


def read_pointed(
    images: Sequence[str],
    points: Sequence[str],
    *,
    channels: Sequence[int | str] | None,
    low: float,
    high: float,
    runner: Runner,
) -> list[StoredImage]:
    """Pairs of OME-Zarr image and file of points, in order.

    Args:
        images: addresses. points: see annotations.centres.
        channels: which of each image; all when None.
        low, high: percentiles of an image that become -1 and 1.
        runner: computes the percentiles.

    Raises:
        InputError: other numbers of them, or points that do not read, or lie outside, or twice there; names the file.
    """
    if not images or len(images) != len(points):
        raise InputError.of(
            found=f"{len(images)} images and {len(points)} files of points",
            expected="one file for each image, in order",
            fix="repeat --points",
        )
    scale = (low, high)
    return [_open(image, path, channels, scale, runner) for image, path in zip(images, points, strict=True)]


def hold_in_memory(images: Sequence[StoredImage], held_bytes: int = HELD_BYTES) -> list[PointedSource]:
    """The images in memory where they fit together, else as they are. No effect on what is learned.

    Raises:
        InputError: an image cannot be read, or holds NaN or Inf.
    """
    total = sum(4 * image.channels * image.shape[0] * image.shape[1] for image in images)
    return [image.held() for image in images] if total <= held_bytes else list(images)


def _open(
    address: str, path: str, wanted: Sequence[int | str] | None, scale: tuple[float, float], runner: Runner
) -> StoredImage:
    plane = open_image(address).plane()
    centres = read_centres(path, plane.section)
    try:
        pixels_of_points(centres, plane.section)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    use = tuple(choose_channels(plane, tuple(range(len(plane.channels))) if wanted is None else wanted))
    block = block_shape(plane.shape, plane.chunks, runner.execution.block)
    ranges = channel_ranges(runner.run, plane, block, use, low=scale[0], high=scale[1])
    return StoredImage(name=address, plane=plane, use=use, ranges=tuple(ranges), points=centres)
