"""Explain why a segmentation found nothing; `segment` prints the line and a report repeats it.

The facts are collected while the fields are still there, and only when nothing was found; they are committed with the
result. `why_empty` turns them into a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sketchscale.geometry import block_shape, tile_cover
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.io.ome_zarr.arrays import ArrayRef, open_array, read_box
from sketchscale.workflow.train.warnings import FEW_STEPS

__all__ = ["empty_facts", "why_empty"]

_READ_AT_MOST = 2**28
"""Most pixels of fields that are read again for their largest value, which takes a few seconds."""


def empty_facts(
    fields: ArrayRef, rule: IntegrationConfig | WatershedConfig, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is known of a result without objects, as plain JSON.

    Args:
        fields: as they were predicted, the distance (or the probability) last.
        rule: from fields to labels.
        provenance: of the model.
    """
    facts: dict[str, Any] = {
        "threshold": rule.threshold,
        "min_size": rule.min_size,
        "probability": isinstance(rule, WatershedConfig),
    }
    shape = open_array(fields).shape
    if math.prod(shape[1:]) <= _READ_AT_MOST:
        facts |= _largest(fields)
    steps = provenance.get("steps")
    return facts | ({"steps": steps} if isinstance(steps, int) else {})


def _largest(fields: ArrayRef) -> dict[str, float]:
    """Return the largest value of the last field, where a pixel has one."""
    array = open_array(fields)
    block = (array.shape[0], *block_shape(array.shape[1:], array.chunks[1:], 2048 if array.ndim == 3 else 256))
    found = [read_box(fields, tile.write)[-1].astype(np.float32) for tile in tile_cover(array.shape, block)]
    largest = max(float(np.max(part, initial=-math.inf, where=np.isfinite(part))) for part in found)
    return {"largest": largest} if math.isfinite(largest) else {}


def why_empty(facts: Mapping[str, Any]) -> str:
    """Return a line for people, without a full stop; empty facts are those of labels of another tool.

    >>> why_empty({"threshold": -1.5, "min_size": 20, "largest": -3.25, "steps": 6, "probability": False})
    'no object was found: the largest predicted distance is -3.25 px, and foreground is above -1.5 px (--threshold); \
the model was trained for 6 steps only'
    >>> why_empty({})
    'no object was found'
    """
    parts = []
    if "threshold" in facts:
        parts.append(_threshold_reason(facts))
    if "steps" in facts:
        only = " only" if facts["steps"] < FEW_STEPS else ""
        parts.append(f"the model was trained for {facts['steps']} steps{only}")
    return ": ".join(["no object was found", "; ".join(parts)] if parts else ["no object was found"])


def _threshold_reason(facts: Mapping[str, Any]) -> str:
    what, unit = ("probability", "") if facts["probability"] else ("distance", " px")
    threshold, largest = f"{facts['threshold']:g}{unit}", facts.get("largest")
    if largest is None:
        return f"foreground is where the predicted {what} is above {threshold} (--threshold)"
    if largest > facts["threshold"]:
        return (
            f"the largest predicted {what} is {largest:g}{unit}, above the threshold of {threshold}, but no component "
            f"was kept; objects have {facts['min_size']} px or more (--min-size)"
        )
    return f"the largest predicted {what} is {largest:g}{unit}, and foreground is above {threshold} (--threshold)"
