"""The nested boxes of one block: what is kept, what is followed, what has to be read for it.

loaded   ┌──────────────────────────┐  = walked grown by reach; beyond the image its edge pixels are repeated,
         │ walked ┌────────────────┐│    so a look-up beyond the edge sees the edge pixel
         │        │ window ┌──────┐││  = core grown by link radius + reach, in the image: pixels that are followed,
         │        │        │ core │││    so the set of end points is exact up to link radius from the core
         │        │        └──────┘││  = core grown by margin = max(reach + 1, link radius), in the image: holds
         │        └────────────────┘│    the ends of the core's pixels and of the pixels next to it
         └──────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass

from sketchscale.geometry import Box
from sketchscale.integration.config import IntegrationConfig

__all__ = ["Region", "region_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The nested boxes of one block, in image coordinates; see the drawing above.

    `kept` is the core and the next row and column after it, in the image: the pixels whose end points are kept, so that
    each pair of neighbouring pixels is seen by exactly one block. `padded` may leave the image, `loaded` is the rest.
    """

    shape: tuple[int, int]
    core: Box
    kept: Box
    window: Box
    walked: Box
    padded: Box

    @property
    def loaded(self) -> Box:
        """The part of `padded` that is read."""
        return self.padded.clip(self.shape)


def region_of(core: Box, shape: tuple[int, int], config: IntegrationConfig) -> Region:
    """The boxes needed to integrate a core of an image of this shape (y, x)."""
    walked = core.grow(config.link_radius + config.reach).clip(shape)
    return Region(
        shape=shape,
        core=core,
        kept=Box(core.start, (core.stop[0] + 1, core.stop[1] + 1)).clip(shape),
        window=core.grow(config.margin).clip(shape),
        walked=walked,
        padded=walked.grow(config.reach),
    )
