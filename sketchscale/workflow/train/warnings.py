"""Reasons not to trust a model: too few steps, hardly any annotated object found again, or worse than its start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sketchscale.config import TrainOptions
from sketchscale.training.sizes import QUICK

__all__ = ["FEW_STEPS", "find_doubts"]

FEW_STEPS = 50
"""Do not trust a model trained from random weights for fewer steps. On the demo's images 5 steps find nothing, 36 steps
reach an AP of .82, and 485 steps one of .90; on other images 54 steps reach .73 where 500 reach .81."""

_FOUND_AGAIN = 0.05
"""Mean of the average precisions at 0.5 and 0.75 on annotated objects; see workflow.calibrate."""


def find_doubts(provenance: Mapping[str, Any], options: TrainOptions) -> str:
    """Return what speaks against a model and what would help; "" where nothing does.

    Args:
        provenance: of the trained model: `steps`, `seconds`, `calibrated` where enough objects were annotated, and
            `beside_start`, see workflow.train.beside_start.
        options: of the training, without "auto".

    >>> find_doubts({"steps": 4, "seconds": 60.0, "calibrated": {"score": 0.0}}, TrainOptions(steps=4, init="random"))
    '4 steps from random weights are too few, and next to none of the annotated objects are found again; expected: 50 \
steps or more; to fix: --steps 50 or more'
    >>> find_doubts({"steps": 400, "seconds": 60.0, "calibrated": {"score": 0.7}}, TrainOptions())
    ''
    """
    few = int(provenance["steps"]) < FEW_STEPS and options.init in (None, "random")
    score = provenance.get("calibrated", {}).get("score")
    if worse := provenance.get("beside_start", {}).get("warning"):
        return str(worse)
    found = [f"{provenance['steps']} steps from random weights are too few"] if few else []
    if score is not None and score < _FOUND_AGAIN:
        found.append("next to none of the annotated objects are found again")
    if not found:
        return ""
    expected = f"{FEW_STEPS} steps or more" if few else "most of them"
    return f"{', and '.join(found)}; expected: {expected}; to fix: {_remedy(provenance, options, few)}"


def _remedy(provenance: Mapping[str, Any], options: TrainOptions, few: bool) -> str:
    if options.steps is not None:
        return f"--steps {max(FEW_STEPS, 0 if few else 2 * options.steps)} or more"
    minutes = options.minutes or 0
    if few:
        needed = 1.3 * float(provenance["seconds"]) / max(1, int(provenance["steps"])) * FEW_STEPS / 60
        smaller = options.batch != QUICK.batch or options.patch != QUICK.patch or options.width != QUICK.width
        sizes = f", --width {QUICK.width} --batch {QUICK.batch} --patch {QUICK.patch}" if smaller else ""
        return f"--minutes {max(2, round(needed + 0.5))} or more{sizes}, or --init with a model of such images"
    return (
        f"--minutes {2 * minutes:g}, strokes on more objects, or see the pictures in the run folder for what is learned"
    )
