"""Combine the probabilities of two classifiers by their weighted mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["log_loss", "mean_probabilities"]


def mean_probabilities(parts: Sequence[npt.NDArray[np.floating]], first_share: float = 0.5) -> npt.NDArray[np.floating]:
    """Return the probabilities of one classifier, or the mean of two.

    Args:
        parts: one or two (n, L); rows sum to 1.
        first_share: weight of the first of two, 0 to 1.

    >>> mean_probabilities([np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]])])
    array([[0.75, 0.25]])
    """
    if len(parts) == 1:
        return parts[0]
    first, second = parts
    return first_share * first.astype(np.float64) + (1 - first_share) * second


def log_loss(probabilities: npt.NDArray[np.floating], targets: npt.NDArray[np.int64]) -> float:
    """Return the mean of -log of the probability of the true class, at least 1e-6; ln L for a guess among L classes.

    >>> round(log_loss(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1])), 3)
    0.693
    """
    true = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return float(-np.log(np.maximum(true, 1e-6)).mean())
