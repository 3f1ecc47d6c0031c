"""Predicted labels against true ones, in blocks: neither ever sits whole in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.geometry import block_shape
from sketchscale.io.convert import open_truth
from sketchscale.io.image import open_image
from sketchscale.metrics import Overlaps, score_overlaps
from sketchscale.objects.plan import collect_overlaps, plan_contingency
from sketchscale.workflow.runner import Runner, quiet

__all__ = ["evaluate", "overlaps_of"]


def evaluate(
    address: str,
    labels: str,
    truth: str,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
) -> dict[str, Any]:
    """Scores of an image's labels; see metrics.Scores for each.

    Args:
        truth: address of the true label image: TIFF, PNG, NPY, or an OME-Zarr label image.

    Returns:
        JSON: `ap` and `f1` keyed by IoU threshold "0.5" to "0.95", `n_true`, `n_pred`, and the rest of the figures.

    Raises:
        UnknownNameError: no labels of that name.
        InputError: truth and labels differ in shape, or the truth is no label image.
    """
    overlaps = overlaps_of(address, labels, truth, execution, on_event)
    return {"image": address, "labels": labels, "truth": truth, **score_overlaps(overlaps).as_dict()}


def overlaps_of(
    address: str,
    labels: str,
    truth: str,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
) -> Overlaps:
    """The overlaps that scores are made of; those of several images can be joined."""
    execution = execution or Execution()
    predicted = open_image(address).label_image(labels)
    y, x = block_shape(predicted.shapes[0], predicted.plane().chunks, execution.block)
    with Runner(execution, on_event) as runner, tempfile.TemporaryDirectory(prefix="sketchscale-") as folder:
        plan = plan_contingency(predicted.array(0), open_truth(truth), store=folder, block=(y, x))
        runner.run(plan)
        return collect_overlaps(plan)
