"""The public functions that measure objects and compare them with the truth, of stored images and of arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow

from sketchscale.api.fields import execution_of
from sketchscale.config import Execution
from sketchscale.engine.base import Event
from sketchscale.errors import InputError
from sketchscale.evaluation import THRESHOLDS
from sketchscale.workflow.measure import evaluate as evaluation
from sketchscale.workflow.measure import measure as measuring
from sketchscale.workflow.measure.arrays import evaluate_arrays, measure_arrays
from sketchscale.workflow.runner import quiet

__all__ = ["evaluate", "measure"]


def measure(
    address: str | Path | npt.ArrayLike,
    labels: str | npt.ArrayLike = "nuclei",
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    features: Sequence[str] | None = None,
    without: Sequence[str] = (),
    profile: str | None = None,
    cancel: threading.Event | None = None,
    **fields: Any,
) -> measuring.MeasureResult | pyarrow.Table:
    """Measure every object of labels on their image.

    Args:
        address: of the image; or its pixels, ([z,] y, x) or with channels in front: numpy, dask or xarray.
        labels: name of the label image, where the image has an address; or the label array, ([z,] y, x).
        features: names of features or groups to report besides the position; None is all.
        without: names or groups to leave out.
        profile: to write a second table under the names of another tool; of stored images alone.
        cancel: ends the work once it is set, with `Cancelled`; what finished is kept for `resume`.
        fields: fields of Execution as keyword arguments.

    Returns:
        Of a stored image where its new table is; of arrays the table itself, the same as would be stored.

    Raises:
        UnknownNameError: no labels of that name, no such feature, or a keyword argument that is no option.
        InputError: labels that do not fit the image.
        OutputExistsError: the table is there.
    """
    how = execution_of("measure", execution, fields, known=("features", "without", "profile", "cancel"))
    if isinstance(address, str | Path):
        name = _name("measure", labels)
        return measuring.measure(
            str(address), name, how, on_event, features=features, without=without, profile=profile, cancel=cancel
        )
    if isinstance(labels, str) or profile is not None:
        raise InputError.of(
            found="measure(): an image in memory, and " + ("a profile" if profile else f"labels {labels!r}"),
            expected="image and labels as arrays, without a profile",
            fix="measure(image, labels)",
        )
    return measure_arrays(address, labels, how, features=features, without=without)


def evaluate(
    address: str | Path | npt.ArrayLike | None = None,
    labels: str | npt.ArrayLike | None = None,
    truth: str | Path | npt.ArrayLike | None = None,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    cancel: threading.Event | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Scores of labels against the truth: `evaluate(address, labels, truth)`, or `evaluate(labels, truth)` of arrays.

    Args:
        address: of the image; left out for arrays.
        labels: name of the label image, or a label array.
        truth: address of the true label image, or a label array.
        thresholds: of the IoU.
        cancel: ends the work once it is set, with `Cancelled`.
        fields: fields of Execution as keyword arguments.

    Returns:
        `ap` and `f1` keyed by IoU threshold, `n_true`, `n_pred`, and the other figures.

    Raises:
        UnknownNameError: no labels of that name, or a keyword argument that is no option.
        InputError: truth and labels differ in shape or are no labels.

    >>> import numpy as np
    >>> evaluate(np.eye(4, dtype=int), np.eye(4, dtype=int))["ap"]["0.5"]
    1.0
    """
    how = execution_of("evaluate", execution, fields, known=("thresholds", "cancel"))
    if isinstance(address, str | Path) and isinstance(labels, str) and isinstance(truth, str | Path):
        return evaluation.evaluate(
            str(address), labels, str(truth), how, on_event, thresholds=thresholds, cancel=cancel
        )
    given = [argument for argument in (address, labels, truth) if argument is not None]
    arrays = [argument for argument in given if not isinstance(argument, str | Path)]
    if len(arrays) != 2 or len(given) != 2:
        raise InputError.of(
            found=f"evaluate() of {', '.join(type(argument).__name__ for argument in given) or 'nothing'}",
            expected="an address, a name of labels and the address of the truth; or two label arrays",
            fix="evaluate(labels, truth)",
        )
    return evaluate_arrays(arrays[0], arrays[1], how, thresholds=thresholds)


def _name(function: str, labels: str | npt.ArrayLike) -> str:
    if not isinstance(labels, str):
        raise InputError.of(
            found=f"{function}(): an image in storage, and labels that are a {type(labels).__name__}",
            expected="the name of its label image",
            fix="sketchscale.open(address) for the image as an array",
        )
    return labels
