"""The training targets of networks: TARGETS. A new one is a line here, and a loss that names it.

    flow    flow y, flow x, distance                          followed to its end points
    hover   v, h and m, see annotations.hover_maps            flooded from markers

The first outputs are a vector along the axes, which flips and transposes turn; the next one is above the threshold in
the foreground.
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
        gives: name for people.
        fields: converts the network's outputs (n, 3 or more, ...) to fields as they are stored.
        lengths: whether the last field is a distance, px, with a threshold set on annotation; else a probability.
        rule: how fields become labels: integration.IntegrationConfig or integration.watershed.
        maps: import path of the function from region codes (y, x) to targets (k, y, x), of which the last is where the
            first are known; "" for the flow and distance of all annotation.
        unlearnable: (found, expected, fix) of the error where no pixel of an object is known.
    """

    gives: str
    fields: Callable[[torch.Tensor], torch.Tensor]
    lengths: bool
    rule: Literal["flow", "watershed"]
    maps: str = ""
    unlearnable: tuple[str, str, str]

    @property
    def unit(self) -> str:
        """Unit of the threshold."""
        return " px" if self.lengths else ""

    def middle(self, outside: float) -> float:
        """Return the threshold half-way between the training targets inside and outside."""
        return (0.5 + outside) / 2 if self.lengths else 0.5


def maps_of(outputs: torch.Tensor) -> torch.Tensor:
    """Convert outputs (n, 3, y, x) to maps, at least float32: tanh of the first two, probabilities of the others.

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
        unlearnable=(
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
        unlearnable=(
            "no object that is annotated whole",
            "objects with background, boundary or another object on all sides, as h/v maps need",
            "draw the outlines of a few objects and fill them, or use --loss sketchpose",
        ),
    ),
}
