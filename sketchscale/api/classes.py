"""The public function that classifies objects."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sketchscale.api.fields import execution_of
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.workflow.classify.apply import ClassifyResult, apply_classes
from sketchscale.workflow.runner import quiet

__all__ = ["classify"]


def classify(
    address: str | Path,
    labels: str,
    classifier: str | Path,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    masks: bool = False,
    precision: str = "auto",
    cancel: threading.Event | None = None,
    **fields: Any,
) -> ClassifyResult:
    """Give every measured object of an image a class.

    Args:
        address: of the image.
        labels: name of its label image, which was measured.
        classifier: folder of a trained classifier.
        masks: also write a label image for every class.
        precision: of the classifier's network: auto (the faster one, measured), float32 or bfloat16.
        cancel: ends the work once it is set, with `Cancelled`; what finished is kept for `resume`.
        fields: fields of Execution as keyword arguments.

    Raises:
        UnknownNameError: no labels of that name, or a keyword argument that is no option.
        InputError, MissingDataError, OutputExistsError: see `workflow.classify.apply_classes`.
    """
    how = execution_of("classify", execution, fields, known=("masks", "precision", "cancel"))
    return apply_classes(
        str(address), labels, str(classifier), how, on_event, masks=masks, precision=precision, cancel=cancel
    )
