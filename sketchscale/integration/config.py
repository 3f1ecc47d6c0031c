"""The resolved rule by which fields become labels, and the distances that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Never

import numpy as np

from sketchscale.errors import InputError
from sketchscale.integration.fixed_point import FLOW_BITS, SUPPRESSED_BITS, Int32
from sketchscale.rule import FlowRule
from sketchscale.settings import check, option

__all__ = ["IntegrationConfig", "crowd_for"]


def crowd_for(diameter: float) -> int:
    """Return the crowd for objects of a volume of this diameter, px; 0 where it is unknown.

    20 trajectories for objects up to 20 px across; larger ones gather fewer.

    >>> crowd_for(0), crowd_for(10), crowd_for(30), crowd_for(60)
    (8, 20, 6, 4)
    """
    return 8 if diameter <= 0 else max(4, min(20, round(20 * (20 / diameter) ** 3)))


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrationConfig(FlowRule[Never]):
    """The rule by which fields become labels: `FlowRule` with a value for every field.

    `threshold` is the midpoint between the values inside and outside, about -2 for dense training with -5 outside.
    `join_radius`: a suppressed trajectory ends less than 6 px along an axis from its start, so the ends of two pixels
    with opposite flow are up to 12 px apart. Source of `prominence` and `join_share`: ours
    (benchmarks/results/rules.txt, affinity.txt). A `crowd` keeps neighbours in a volume apart, which a little noise
    would join; it splits objects of much more than 6 px in radius, and most of their components are joined again at
    their borders.

    Raises:
        InputError, UnknownNameError: a value out of range, on creation.

    >>> IntegrationConfig(threshold=-2.0).reach
    6
    >>> IntegrationConfig(threshold=-2.0).halo, IntegrationConfig(threshold=-2.0, crowd=8).halo
    (14, 15)
    """

    climb: int = option(
        3,
        "An end point of fewer trajectories than `crowd` joins the most crowded end point within this distance along "
        "each axis.",
        unit="px",
        at_least=1,
        at_most=16,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.max_size is not None and self.max_size < self.min_size:
            raise InputError.of(
                found=f"max_size {self.max_size}", expected=f"at least min_size, {self.min_size} px", fix="change one"
            )

    def check_axes(self, axes: int) -> None:
        """Refuse a number of axes that the rule does not support.

        Raises:
            InputError: `euler` for anything but planes.
        """
        if axes != 2 and self.method != "suppressed":
            raise InputError.of(
                found=f"method {self.method!r} for {axes} axes", expected="suppressed", fix="leave out --method"
            )

    @property
    def gains(self) -> Int32:
        """Step lengths with 14 fractional bits: 1 / (1 + t) for suppressed, 1 for euler."""
        t = np.arange(self.steps, dtype=np.float64)
        lengths = 1 / (1 + t) if self.method == "suppressed" else np.ones(self.steps)
        return np.asarray(np.rint(2**FLOW_BITS * lengths), np.int32)

    @property
    def reach(self) -> int:
        """The farthest pixel that a trajectory can read, px along an axis; follows from |v| <= 1, not from data."""
        longest = int(self.gains.sum(dtype=np.int64)) << FLOW_BITS
        if self.method == "suppressed":
            return (longest + (1 << (SUPPRESSED_BITS - 1))) >> SUPPRESSED_BITS
        return self.steps + 1

    @property
    def link(self) -> int:
        """The largest distance between linked end points, px along an axis."""
        return self.link_radius if self.crowd == 1 else max(self.link_radius, self.climb)

    @property
    def margin(self) -> int:
        """How far the window extends beyond the core, px."""
        return max(self.reach + 1, self.link)

    @property
    def halo(self) -> int:
        """How far a block reads beyond its core, px."""
        return self.link + 2 * self.reach
