"""What networks are taught to give: TARGETS. A new one is a line here, and a loss that names it.

    flow    flow y, flow x, distance                          followed to where it ends
    hover   v, h and m, see annotations.hover_maps            flooded from markers

Of each the first outputs are a vector along the axes, which flips and transposes turn, and the next one says how surely
a pixel is foreground: above the threshold it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["TARGETS", "Target", "maps_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A line of the TARGETS table.

    Attributes:
        gives: for people.
        fields: the network's outputs (n, 3 or more, ...) as they are stored and used.
        lengths: whether what says foreground is a distance, px, whose threshold is set on annotation; else it is a
            probability.
        rule: how fields become labels: integration.IntegrationConfig or integration.watershed.
        maps: import path of the function from region codes (y, x) to what is taught, (k, y, x), of which the last says
            where the first are known; "" where that is the flow and distance that all annotation is turned into.
        untaught: (found, expected, fix) where no pixel of an object is known.
    """

    gives: str
    fields: Callable[[torch.Tensor], torch.Tensor]
    lengths: bool
    rule: Literal["flow", "watershed"]
    maps: str = ""
    untaught: tuple[str, str, str]

    @property
    def unit(self) -> str:
        """Of the threshold."""
        return " px" if self.lengths else ""

    def middle(self, outside: float) -> float:
        """The threshold half-way between what is taught inside and outside."""
        return (0.5 + outside) / 2 if self.lengths else 0.5


def maps_of(outputs: torch.Tensor) -> torch.Tensor:
    """Outputs (n, 3, y, x) as maps, at least float32: the first two through tanh, the others as probabilities.

    >>> maps_of(torch.zeros(1, 3, 1, 1)).flatten()
    tensor([0.0000, 0.0000, 0.5000])
    """
    outputs = outputs if outputs.dtype == torch.float64 else outputs.float()
    return torch.cat([torch.tanh(outputs[:, :2]), torch.sigmoid(outputs[:, 2:])], 1)


TARGETS: Mapping[str, Target] = {
    "flow": Target(
        gives="flow",
        fields=lambda outputs: outputs,
        lengths=True,
        rule="flow",
        untaught=(
            "no pixel whose distance to a boundary is known",
            "boundary information",
            "draw the outlines of a few objects as boundary strokes, or background right up to them",
        ),
    ),
    "hover": Target(
        gives="h/v maps",
        fields=maps_of,
        lengths=False,
        rule="watershed",
        maps="sketchscale.annotations.hover_maps:maps_from_sketch",
        untaught=(
            "no object that is annotated whole",
            "objects with background, boundary or another object on all sides, as h/v maps need",
            "draw the outlines of a few objects and fill them, or use --loss sketchpose",
        ),
    ),
}
