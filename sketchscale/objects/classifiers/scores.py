"""Scores of predicted classes on objects of known class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.objects.classifiers.ensemble import log_loss

__all__ = ["class_scores"]


def class_scores(
    probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.int64], classes: Sequence[str]
) -> dict[str, Any]:
    """Return scores of n objects as plain data.

    Args:
        probabilities: (n, L).
        targets: (n,) true classes, 0 ... L - 1.

    Returns:
        `n`, `accuracy`, `balanced_accuracy` (mean recall of the classes that occur), `log_loss`, `confusion` (rows
        true, columns predicted), and by class name `recall` and `precision`; None for a class without true or
        predicted objects.

    >>> class_scores(np.array([[0.9, 0.1], [0.7, 0.3]]), np.array([0, 1]), ("a", "b"))["precision"]
    {'a': 0.5, 'b': None}
    """
    confusion = np.zeros((len(classes),) * 2, np.int64)
    np.add.at(confusion, (targets, probabilities.argmax(axis=1)), 1)
    recall, precision = (_shares(confusion.diagonal(), confusion.sum(axis=axis)) for axis in (1, 0))
    known = [share for share in recall if share is not None]
    return {
        "n": len(targets),
        "accuracy": float(confusion.trace() / len(targets)),
        "balanced_accuracy": float(np.mean(known)),
        "log_loss": log_loss(probabilities, targets),
        "confusion": confusion.tolist(),
        "recall": dict(zip(classes, recall, strict=True)),
        "precision": dict(zip(classes, precision, strict=True)),
    }


def _shares(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> list[float | None]:
    return [float(p / w) if w else None for p, w in zip(part, whole, strict=True)]
