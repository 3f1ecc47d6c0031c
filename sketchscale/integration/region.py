"""The nested boxes of one block: the pixels that are kept, followed and read.

loaded   ┌──────────────────────────┐  = walked grown by reach; beyond the image its edge pixels are repeated,
         │ walked ┌────────────────┐│    so a look-up beyond the edge sees the edge pixel
         │        │ window ┌──────┐││  = core grown by link + reach, in the image: pixels that are followed, so that
         │        │        │ core │││    end points and their counts are exact up to `link` from the core (the zone)
         │        │        └──────┘││  = core grown by margin = max(reach + 1, link), in the image: holds the ends of
         │        └────────────────┘│    the core's pixels and of the pixels next to it
         └──────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.errors import InputError
from sketchscale.geometry import Box
from sketchscale.integration.config import IntegrationConfig

__all__ = ["Region", "region_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The nested boxes of one block, in image coordinates; see the drawing above.

    `kept` is the core and the next pixel after it along each axis, in the image: the end points of these pixels are
    kept, so that exactly one block sees each pair of neighbouring pixels. `padded` may leave the image.
    """

    shape: tuple[int, ...]
    core: Box
    kept: Box
    zone: Box
    window: Box
    walked: Box
    padded: Box

    @property
    def loaded(self) -> Box:
        """The part of `padded` that is read."""
        return self.padded.clip(self.shape)


def region_of(core: Box, shape: tuple[int, ...], config: IntegrationConfig) -> Region:
    """Return the boxes needed to integrate a core of an image of this shape, (y, x) or (z, y, x).

    Raises:
        InputError: the block holds 2^31 pixels or more.

    >>> region_of(Box((0, 0, 0), (8, 8, 8)), (8, 8, 50), IntegrationConfig(threshold=0.0, crowd=8)).loaded.shape
    (8, 8, 23)
    """
    walked = core.grow(config.halo - config.reach).clip(shape)
    region = Region(
        shape=shape,
        core=core,
        kept=Box(core.start, tuple(b + 1 for b in core.stop)).clip(shape),
        zone=core.grow(config.link).clip(shape),
        window=core.grow(config.margin).clip(shape),
        walked=walked,
        padded=walked.grow(config.reach),
    )
    if region.padded.size >= 1 << 31:
        raise InputError.of(
            found=f"a block of {region.padded.size} pixels", expected="less than 2^31", fix="a smaller --block"
        )
    return region
