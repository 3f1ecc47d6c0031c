"""The two ways from fields to labels, by their rule; both have the same steps, so callers need not distinguish them.

flow    distance and flow, followed to where it ends          IntegrationConfig, integration.plan
hover   h/v maps and a probability, flooded from markers      WatershedConfig, integration.watershed.plan
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sketchscale.engine.base import Plan
from sketchscale.integration.audit import SeamAudit, audit_seams
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.fixed_point import Uint32
from sketchscale.integration.merge import ObjectMap
from sketchscale.integration.plan import BlockTask, integrate, merge_blocks, plan_outline
from sketchscale.integration.watershed.audit import audit_floods
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.integration.watershed.plan import hover_labels, merge_basins, plan_flood

__all__ = ["Rule", "Way", "way_of"]

Rule: TypeAlias = IntegrationConfig | WatershedConfig
"""The rule by which fields become labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """The steps that differ between the rules.

    Attributes:
        outline: step 1, plan the provisional labels of every block.
        merge: step 2, in the driver.
        audit: recompute windows on the seams and compare them with the stored labels.
        whole: label fields in memory.
    """

    outline: Callable[..., Plan[BlockTask]]
    merge: Callable[[Plan[BlockTask]], ObjectMap]
    audit: Callable[..., SeamAudit]
    whole: Callable[[npt.NDArray[np.floating], Any], Uint32]


_FLOW = Way(outline=plan_outline, merge=merge_blocks, audit=audit_seams, whole=integrate)
_HOVER = Way(outline=plan_flood, merge=merge_basins, audit=audit_floods, whole=hover_labels)


def way_of(rule: Rule) -> Way:
    """Return the steps for a rule."""
    return _HOVER if isinstance(rule, WatershedConfig) else _FLOW
