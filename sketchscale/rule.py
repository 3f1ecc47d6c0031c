"""How predicted fields become objects: the values that models, options and integration share, each declared once.

A model has a value for each field of `ModelRule`. In a user's options each may be None, which means the model's.
`settings.resolve` makes the rule that is applied.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, TypeVar

from sketchscale.settings import Options, option

__all__ = ["Crowds", "FlowRule", "JoiningRule", "ModelRule", "Refinement"]

objects = partial(option, panel="Objects")

Unset = TypeVar("Unset", bound=None)
"""None where a field may have the model's value, Never where every field has a value."""


@dataclass(frozen=True, kw_only=True)
class JoiningRule(Options, Generic[Unset]):
    """Which end points and components belong to one object."""

    __slots__ = ()

    link_radius: int | Unset = objects(
        2,
        "End points at most this far apart, along an axis, belong to one object: too large joins neighbours, too small "
        "splits objects under noisy flow; 1 separates small objects that touch, if the flow is accurate.",
        unit="px",
        at_least=1,
        at_most=64,
    )
    prominence: float | Unset = objects(
        -0.25,
        "Two fragments that touch are one object when the lower of their peaks rises by less than this above the pass "
        "between them; flow that is parallel on both sides of the border allows 8 px more, opposite flow 8 px less. "
        "-1.5 joins less, 0.5 joins more, -8 joins nothing.",
        unit="px",
        at_least=-8,
        at_most=100,
    )
    join_share: float | None = objects(
        None,
        "Two components that touch are also one object if more than this share of the pixels on their border end "
        "together: 0.3 joins long cells that noise splits, but also small objects that touch; 1 joins nothing.",
        at_least=0,
        at_most=1,
    )
    join_radius: int | Unset = objects(
        5,
        "For --join-share: pixels end together if their end points are at most this far apart.",
        unit="px",
        at_least=0,
        at_most=64,
    )


@dataclass(frozen=True, kw_only=True)
class ModelRule(JoiningRule[Unset]):
    """Values of the model, because they depend on the fields that its network predicts."""

    __slots__ = ()

    threshold: float | Unset = objects(
        -2.0,
        "Foreground is where the distance is above this; for a model that gives h/v maps, where a probability is at "
        "least this.",
        unit="px",
    )
    min_size: int | Unset = objects(
        20, "Objects of fewer pixels, over the whole image, become background.", unit="px", at_least=0
    )


@dataclass(frozen=True, kw_only=True)
class Walk(Options):
    """How the flow is followed, and which objects are too large; models have no values for these."""

    __slots__ = ()

    max_size: int | None = objects(None, "Objects of more pixels become background.", unit="px", at_least=1)
    method: Literal["suppressed", "euler"] = objects(
        "suppressed",
        "Step lengths of the walk along the flow: suppressed, or euler as in the papers, which reads 400 px around "
        "each block.",
    )
    steps: int = objects(
        200,
        "Steps of the walk; suppressed pixels move further with more, but only as the logarithm.",
        at_least=1,
        at_most=1000,
    )


@dataclass(frozen=True, kw_only=True)
class Crowds(Options, Generic[Unset]):
    """Which end points are linked, by how many trajectories end there; for volumes."""

    __slots__ = ()

    crowd: int | Unset = objects(
        1,
        "End points of a volume where at least this many trajectories end are linked, others move to one of them; use "
        "fewer for larger objects; 1 links all, as in planes.",
        at_least=1,
        at_most=60_000,
    )


@dataclass(frozen=True, kw_only=True)
class FlowRule(ModelRule[Unset], Walk, Crowds[Unset]):
    """All values from flow to objects."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Refinement(Options):
    """What is done to objects after merging; None is off."""

    __slots__ = ()

    fill_holes: float | None = objects(
        None, "Fill holes of at most this share of the object's area, such as 0.03; 0 fills none.", at_least=0
    )
    flow_error: float | None = objects(
        None,
        "Remove objects whose flow differs by more than this from the flow of their shape: 0.6 to 1 removes false "
        "objects and hardly a true one, 0 removes all that are not perfect, 4 keeps all.",
        at_least=0,
    )
