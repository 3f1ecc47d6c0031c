"""Images and their centre points as a synthesis learns from them.

Whole images are used, because their points also show where there is no object. Images are kept in memory as long as
they fit; beyond that each crop is read when it is cut. Intensities are scaled by percentiles of the whole image, and
then to [-1, 1].
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

__all__ = ["StoredImage", "hold_in_memory", "read_pointed", "read_separate_centres"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image in storage with its points: a PointedSource.

    Attributes:
        use: indices of the channels. ranges: for each, the intensities that become -1 and 1.
    """

    name: str
    plane: PixelsRef
    use: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    points: npt.NDArray[np.float64]

    @property
    def channels(self) -> int:
        """How many channels are used."""
        return len(self.use)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x), px."""
        return self.plane.section

    def window(self, box: Box) -> npt.NDArray[np.float32]:
        """Return the pixels of a box, (c, y, x) in [-1, 1].

        Raises:
            InputError: the image cannot be read, or holds NaN or Inf there.
        """
        pixels = normalize(read_plane(self.plane, box, self.use), self.ranges)
        if not np.isfinite(pixels).all():
            raise InputError.of(found=f"{self.name}: NaN or Inf pixels", expected="numbers", fix="mask them out")
        return np.clip(pixels, 0, 1) * np.float32(2) - np.float32(1)

    def held(self) -> PointedImage:
        """Return the whole image in memory."""
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
    """Open pairs of OME-Zarr image and file of points, in order.

    Args:
        images: addresses. points: files, see annotations.centres.
        channels: which of each image; all when None.
        low, high: percentiles of an image that become -1 and 1.
        runner: computes the percentiles.

    Raises:
        InputError: their numbers differ, or points do not read, lie outside, or occur twice; names the file.
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
    """Load the images into memory where all fit, else return them as they are; the result of training is the same.

    Raises:
        InputError: an image cannot be read, or holds NaN or Inf.
    """
    total = sum(4 * image.channels * image.shape[0] * image.shape[1] for image in images)
    return [image.held() for image in images] if total <= held_bytes else list(images)


def read_separate_centres(path: str, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the points (n, 2) of a file.

    Args:
        shape: of their image, (y, x).

    Raises:
        InputError: points outside the image, or two points in one pixel; names the file.
    """
    points = read_centres(path, shape)
    try:
        pixels_of_points(points, shape)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return points


def _open(
    address: str, path: str, wanted: Sequence[int | str] | None, scale: tuple[float, float], runner: Runner
) -> StoredImage:
    plane = open_image(address).plane()
    centres = read_separate_centres(path, plane.section)
    use = tuple(choose_channels(plane, tuple(range(len(plane.channels))) if wanted is None else wanted))
    block = block_shape(plane.shape, plane.chunks, runner.execution.block)
    ranges = channel_ranges(runner.run, plane, block, use, low=scale[0], high=scale[1])
    return StoredImage(name=address, plane=plane, use=use, ranges=tuple(ranges), points=centres)
