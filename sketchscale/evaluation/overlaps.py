"""Count the pixels that true and predicted objects share, box by box: the table behind all figures.

Labels may have any number of axes; ids any integer type, gaps and any size up to 2^64 - 1. 0 is background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError

__all__ = ["Overlaps", "combine_overlaps", "count_overlaps", "join_images"]

Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Pixels shared by each pair of ids, including background; sorted by (truth, predicted), each pair once.

    Attributes:
        truth, predicted: (k,) ids, 0 is background.
        pixels: (k,) number of pixels with both ids, > 0.
    """

    truth: Ids
    predicted: Ids
    pixels: Counts


def count_overlaps(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Overlaps:
    """Return the overlaps in one box or a whole image.

    Args:
        truth, predicted: label arrays of the same shape, any integer type, no negative ids, 0 background. May be empty.

    Raises:
        InputError: the shapes differ, or labels are not integers, or an id is negative.

    >>> count_overlaps(np.array([[0, 7, 7]]), np.array([[0, 0, 3]])).pixels.tolist()
    [1, 1, 1]
    """
    _check_labels(truth, predicted)
    true, pred = truth.ravel(), predicted.ravel()
    # Labels are constant along most of a row: sorting runs instead of pixels is about twenty times faster.
    changes = np.flatnonzero((true[1:] != true[:-1]) | (pred[1:] != pred[:-1])) + 1
    starts = np.concatenate([np.zeros(min(1, true.size), np.int64), changes])
    lengths = np.diff(starts, append=true.size)
    return _add_up(true[starts].astype(np.uint64), pred[starts].astype(np.uint64), lengths.astype(np.int64))


def _check_labels(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
    if truth.shape != predicted.shape:
        raise InputError.of(
            found=f"true labels of shape {truth.shape}, predicted ones of {predicted.shape}",
            expected="one shape",
            fix="evaluate the level and the region that were annotated",
        )
    for name, labels in (("true", truth), ("predicted", predicted)):
        if labels.dtype.kind not in "iub" or (labels.dtype.kind == "i" and labels.size and labels.min() < 0):
            raise InputError.of(
                found=f"{name} labels of type {labels.dtype}, with fractions or negative ids",
                expected="integer ids, 0 for background",
                fix="convert the label image",
            )


def combine_overlaps(parts: Iterable[Overlaps]) -> Overlaps:
    """Return the overlaps of all boxes together, in any order; without parts, an empty table.

    >>> part = count_overlaps(np.array([1, 1]), np.array([2, 2]))
    >>> combine_overlaps([part, part]).pixels.tolist()
    [4]
    """
    listed = list(parts)
    return _add_up(
        np.concatenate([np.zeros(0, np.uint64), *(p.truth for p in listed)]),
        np.concatenate([np.zeros(0, np.uint64), *(p.predicted for p in listed)]),
        np.concatenate([np.zeros(0, np.int64), *(p.pixels for p in listed)]),
    )


def join_images(images: Iterable[Overlaps]) -> Overlaps:
    """Return the overlaps of several images as if they were one; equal ids of different images stay different objects.

    >>> one = count_overlaps(np.array([0, 1]), np.array([0, 1]))
    >>> join_images([one, one]).truth.tolist()
    [0, 2, 4]
    """
    parts, true_ids, pred_ids = [], 0, 0
    for image in images:
        true_names, truth = np.unique(image.truth, return_inverse=True)
        pred_names, predicted = np.unique(image.predicted, return_inverse=True)
        parts.append(
            Overlaps(
                truth=_renamed(image.truth, truth, true_ids),
                predicted=_renamed(image.predicted, predicted, pred_ids),
                pixels=image.pixels,
            )
        )
        true_ids += len(true_names)
        pred_ids += len(pred_names)
    return combine_overlaps(parts)


def _renamed(ids: Ids, position: npt.NDArray[np.intp], taken: int) -> Ids:
    return np.where(ids == 0, 0, position + 1 + taken).astype(np.uint64)


def _add_up(truth: Ids, predicted: Ids, pixels: Counts) -> Overlaps:
    order = np.lexsort((predicted, truth))
    truth, predicted, pixels = truth[order], predicted[order], pixels[order]
    fresh = np.ones(len(truth), bool)
    fresh[1:] = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.flatnonzero(fresh)
    sums = np.add.reduceat(pixels, starts) if len(starts) else pixels
    return Overlaps(truth=truth[starts], predicted=predicted[starts], pixels=sums)
