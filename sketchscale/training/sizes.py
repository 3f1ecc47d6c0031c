"""The default network and batch of a training, chosen by the time that it may take.

In a few minutes on a CPU, many steps of a small network on small patches teach more than a few steps of a large one,
and they do so on slow processors, too; see benchmarks/minutes.py. With more time the larger network is better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["LONG", "QUICK", "VOLUME", "Sizes", "choose_sizes"]

_QUICK_BELOW = 10.0
"""Minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes that set the cost of a step.

    Attributes:
        width: channels of the network's first level; each further level has twice as many.
        batch: patches a step.
        patch: side of a patch, px.
    """

    width: int
    batch: int
    patch: int

    def __str__(self) -> str:
        return f"width {self.width}, {self.batch} patches of {self.patch} px a step"


QUICK = Sizes(width=8, batch=4, patch=128)
LONG = Sizes(width=16, batch=8, patch=160)
VOLUME = Sizes(width=8, batch=2, patch=64)
"""Of volumes, where a step costs as many voxels times three more weights; see benchmarks/volumes.py."""


def choose_sizes(
    minutes: float | None,
    *,
    width: int | Literal["auto"] = "auto",
    batch: int | Literal["auto"] = "auto",
    patch: int | Literal["auto"] = "auto",
    volume: bool = False,
) -> Sizes:
    """Return the sizes for a training of so many minutes; sizes that are given as numbers are kept.

    Args:
        minutes: of the whole training; None where steps are counted instead, which gives the large sizes.
        volume: whether volumes are trained on, which has sizes of its own.

    >>> str(choose_sizes(2)), str(choose_sizes(2, batch=8)), choose_sizes(None) == LONG
    ('width 8, 4 patches of 128 px a step', 'width 8, 8 patches of 128 px a step', True)
    """
    fit = QUICK if minutes is not None and minutes < _QUICK_BELOW else LONG
    fit = VOLUME if volume else fit
    return Sizes(
        width=fit.width if width == "auto" else width,
        batch=fit.batch if batch == "auto" else batch,
        patch=fit.patch if patch == "auto" else patch,
    )
