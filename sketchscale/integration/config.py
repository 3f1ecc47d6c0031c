"""How fields become labels: the rule of the options and of the model, resolved, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Never

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.integration.fixed_point import FLOW_BITS, SUPPRESSED_BITS
from sketchscale.rule import FlowRule
from sketchscale.settings import check, option

__all__ = ["IntegrationConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrationConfig(FlowRule[Never]):
    """How fields become labels: every field of `FlowRule` has a value.

    `threshold` is the midpoint between the values inside and outside, about -2 for dense training with -5 outside.
    `join_radius`: suppressed ends are less than 6 px along an axis from where they start, so the ends of two pixels
    that flee from one another are up to 12 px apart. Source of `saddle`, `agreement` and `join_share`: ours
    (benchmarks/results/affinity.txt). A `crowd` keeps neighbours in a volume apart, which come together under little
    noise; objects much larger than 6 px in radius it splits, and most of their pieces are joined at their borders.

    Raises:
        InputError, UnknownNameError: a value out of range, on creation.

    >>> IntegrationConfig(threshold=-2.0).reach
    6
    >>> IntegrationConfig(threshold=-2.0).halo, IntegrationConfig(threshold=-2.0, crowd=8).halo
    (14, 15)
    """

    agreement: float = option(
        0.1,
        "For `saddle`, the mean scalar product of facing pixels' flow is above this: about 1 parallel, 0 at right "
        "angles, -1 fleeing from one another. Flow as predicted, not normalised: it is short where a network sees two "
        "objects touch.",
        at_least=-1,
        at_most=1,
        flag=None,
    )

    climb: int = option(
        3,
        "An end point below the crowd joins the most crowded one at most so far away along each axis; see links.py.",
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
