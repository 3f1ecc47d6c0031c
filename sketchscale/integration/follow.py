"""Find where the trajectory of every foreground pixel of a block ends, and how many trajectories end in each pixel.

The walks are the inner kernels: walk_plane.py for (y, x) with both rules, walk_space.py for (z, y, x) with the
suppressed rule. Everything else in the integration is written for any number of axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sketchscale.errors import InputError, TaskError
from sketchscale.geometry import whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import Float16, Int32, Uint16
from sketchscale.integration.region import Region
from sketchscale.integration.walk_plane import walk_plane
from sketchscale.integration.walk_space import walk_space

__all__ = ["EndPoints", "follow_flow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndPoints:
    """The end points of the pixels of a block.

    Attributes:
        ends: int32, shape of `region.kept`: the end pixel as a flat index into the window; -1 outside the foreground.
            An end beyond the image is moved to its edge.
        bits: uint16 (axes + 1, ...) of `region.kept`: the bit patterns of the float16 fields.
        counts: uint16, shape of the window: trajectories of this block that end there, up to 65,535; complete in the
            zone.
        farthest: the largest displacement of a followed pixel along an axis, px; below `reach`.
    """

    ends: Int32
    bits: Uint16
    counts: Uint16
    farthest: float


def follow_flow(fields: Float16, region: Region, config: IntegrationConfig) -> EndPoints:
    """Return the end points of the pixels of a block; an image without foreground has none.

    Args:
        fields: (axes + 1, ...) of `region.loaded`: flow along each axis (any length; NaN only outside the foreground),
            then distance. A unit of flow is a pixel along its axis, whatever its size in um.

    Raises:
        InputError: flow that is not finite in the foreground, with the number of pixels; or a method for planes only.
        TaskError: a look-up left the loaded box, so `reach` is wrong.

    Source: suppressed Euler as in Omnipose (Cutler et al. 2022, supplement); nearest look-ups in fixed point: ours.

    >>> flat = np.zeros((3, 1, 2), np.float16)
    >>> from sketchscale.integration.region import region_of
    >>> follow_flow(flat, region_of(whole((1, 2)), (1, 2), c := IntegrationConfig(threshold=-1.0)), c).ends
    array([[0, 1]], dtype=int32)
    """
    config.check_axes(len(region.shape))
    stored = np.ascontiguousarray(fields).view(np.uint16)
    ends = np.full(region.kept.shape, -1, np.int32)
    counts = np.zeros(region.window.shape, np.uint16)
    walk = walk_plane if len(region.shape) == 2 else walk_space
    offset = np.subtract(region.loaded.start, region.padded.start)
    image = whole(region.shape)
    boxes = [box.relative_to(region.padded.start) for box in (region.walked, region.kept, region.window, image)]
    rows = np.array([(*box.start, *box.stop) for box in boxes], np.int64)
    broken, escaped, farthest = walk(stored, offset, region.padded.shape, rows, config, ends, counts)
    if broken:
        raise InputError.of(
            found=f"the flow of block {region.core} is not finite at {broken} foreground pixels",
            expected="finite numbers",
            fix="run the prediction again; check the image and the model",
        )
    if escaped:
        raise TaskError(f"block {region.core}: {escaped} look-ups left the halo of {config.halo} px; expected: none")
    bits = stored[:, *region.kept.relative_to(region.loaded.start).slices]
    return EndPoints(ends=ends, bits=bits, counts=counts, farthest=farthest)
