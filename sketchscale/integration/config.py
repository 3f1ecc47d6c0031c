"""How fields become labels: every number of the integration and of the merging, with its range and what it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.integration.fixed_point import FLOW_BITS, SUPPRESSED_BITS

__all__ = ["IntegrationConfig"]

_METHODS = ("suppressed", "euler")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrationConfig:
    """How fields become labels.

    Attributes:
        threshold: foreground is distance > threshold, px. Belongs to the model: the midpoint between the values inside
            and outside, about -2 for dense training with -5 outside. 0 is a value like any other.
        steps: of the walk. More let suppressed pixels go further, but only as the logarithm.
        link_radius: end points at most this far apart (Chebyshev, px) belong to one object. Too large joins
            neighbours whose end points come near, too small splits objects under noisy flow.
        min_size: objects with fewer pixels, over the whole image, become background.
        max_size: objects with more pixels become background; None keeps them.
        saddle: two pieces that touch are one object when the distance on their common border climbs above this share of
            the lower of their peaks, and `agreement` holds too. 0.75 joins a long object cut across, but not two
            objects that meet at their edges; 0.5 begins to join nuclei that a network separates. 1 joins nothing.
        agreement: and when the flow on the two sides of the border agrees: when the mean scalar product of facing
            pixels is above this (about 1 parallel, 0 at right angles, -1 fleeing from one another). Flow as predicted,
            not normalised: it is short where a network sees two objects touch.
        join_share: two pieces that touch are also one object, whatever distance and flow say, when more than this share
            of the facing pixels on their common border end at most `join_radius` apart. 0.3 joins again the long cells
            that noise splits, but also small objects that touch (benchmarks/results/affinity.txt). None, as 1, joins
            nothing. Source: ours.
        join_radius: in a straight line, px. Suppressed ends are less than 6 px along an axis from where they start, so
            the ends of two pixels that flee from one another are up to 12 px apart.
        method: "suppressed", or "euler" as the papers write it, for planes, with a halo of 400 px and more.
        crowd: end points where at least so many trajectories end are linked when they are `link_radius` apart; others
            climb (see links.py). 1 links all, which suits planes; in volumes neighbours come together under little
            noise then. Where objects are much larger than 6 px in radius, a large crowd splits them, and most pieces
            are joined again at their borders.
        climb: an end point with fewer joins the most crowded one at most so far away along each axis, px.

    Raises:
        InputError, UnknownNameError: a value out of range, on creation.

    >>> IntegrationConfig(threshold=-2.0).reach
    6
    >>> IntegrationConfig(threshold=-2.0).halo, IntegrationConfig(threshold=-2.0, crowd=8).halo
    (14, 15)
    """

    threshold: float
    steps: int = 200
    link_radius: int = 2
    min_size: int = 20
    max_size: int | None = None
    saddle: float = 0.75
    agreement: float = 0.1
    join_share: float | None = None
    join_radius: int = 5
    method: Literal["suppressed", "euler"] = "suppressed"
    crowd: int = 1
    climb: int = 3

    def __post_init__(self) -> None:
        if self.method not in _METHODS:
            raise UnknownNameError.among("integration method", self.method, _METHODS)
        if not np.isfinite(self.threshold):
            raise _bad("threshold", self.threshold, "a finite distance in px")
        if not 1 <= self.steps <= 1000:
            raise _bad("steps", self.steps, "1 to 1000")
        if not 1 <= self.link_radius <= 64:
            raise _bad("link_radius", self.link_radius, "1 to 64 px")
        if self.min_size < 0:
            raise _bad("min_size", self.min_size, "0 or more px")
        if self.max_size is not None and self.max_size < max(1, self.min_size):
            raise _bad("max_size", self.max_size, f"at least min_size ({self.min_size}), or none")
        if not 0 <= self.saddle <= 1:
            raise _bad("saddle", self.saddle, "a share, 0 to 1")
        if not -1 <= self.agreement <= 1:
            raise _bad("agreement", self.agreement, "a scalar product of unit vectors, -1 to 1")
        if self.join_share is not None and not 0 <= self.join_share <= 1:
            raise _bad("join_share", self.join_share, "a share, 0 to 1, or none")
        if not 0 <= self.join_radius <= 64:
            raise _bad("join_radius", self.join_radius, "0 to 64 px")
        if not 1 <= self.crowd <= 60_000:
            raise _bad("crowd", self.crowd, "1 to 60000 trajectories")
        if not 1 <= self.climb <= 16:
            raise _bad("climb", self.climb, "1 to 16 px")

    def check_axes(self, axes: int) -> None:
        """Refuse a number of axes that the rule is not for.

        Raises:
            InputError: the walk of the papers is for planes.
        """
        if axes != 2 and self.method != "suppressed":
            raise InputError.of(
                found=f"method {self.method!r} for {axes} axes", expected="suppressed", fix="leave out --method"
            )

    @property
    def gains(self) -> npt.NDArray[np.int32]:
        """Step lengths with 14 fractional bits: 1 / (1 + t) for suppressed, 1 for euler."""
        t = np.arange(self.steps, dtype=np.float64)
        lengths = 1 / (1 + t) if self.method == "suppressed" else np.ones(self.steps)
        return np.asarray(np.rint(2**FLOW_BITS * lengths), np.int32)

    @property
    def reach(self) -> int:
        """The farthest pixel a trajectory can look at, px along an axis: from the bound |v| <= 1, not from data."""
        longest = int(self.gains.sum(dtype=np.int64)) << FLOW_BITS
        if self.method == "suppressed":
            return (longest + (1 << (SUPPRESSED_BITS - 1))) >> SUPPRESSED_BITS
        return self.steps + 1

    @property
    def link(self) -> int:
        """How far apart linked end points may be, px."""
        return self.link_radius if self.crowd == 1 else max(self.link_radius, self.climb)

    @property
    def margin(self) -> int:
        """How far the window extends beyond the core, px."""
        return max(self.reach + 1, self.link)

    @property
    def halo(self) -> int:
        """What a block reads beyond its core, px."""
        return self.link + 2 * self.reach


def _bad(field: str, value: object, expected: str) -> InputError:
    return InputError.of(found=f"integration {field} is {value}", expected=expected, fix=f"set {field}")
