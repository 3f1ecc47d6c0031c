"""Masks: label images with a single value for all objects, as most programs save them.

In a mask the objects are the connected components. An image with two values of which neither is 0 has no background, so
it is refused rather than read as two huge objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from skimage import measure

from sketchscale.errors import InputError

__all__ = ["Few", "few_values", "is_mask", "join_few", "label_components", "require_background"]

Few: TypeAlias = tuple[int, ...] | None
"""The distinct values of an image in ascending order if there are at most two; None if there are more."""


def few_values(values: npt.NDArray[Any]) -> Few:
    """Return the distinct values of an integer array of any shape.

    >>> few_values(np.array([[0, 255], [255, 0]])), few_values(np.arange(3)), few_values(np.zeros((0, 4), int))
    ((0, 255), None, ())
    """
    if not values.size:
        return ()
    low, high = values.min(), values.max()
    return tuple(sorted({int(low), int(high)})) if bool(((values == low) | (values == high)).all()) else None


def join_few(parts: Iterable[Few]) -> Few:
    """Return the distinct values of several parts of one image.

    >>> join_few([(0,), (0, 7)]), join_few([(0, 3), (0, 7)]), join_few([(0,), None])
    ((0, 7), None, None)
    """
    found: set[int] = set()
    for part in parts:
        if part is None:
            return None
        found.update(part)
    return tuple(sorted(found)) if len(found) <= 2 else None


def is_mask(few: Few) -> bool:
    """Return whether exactly one value is above 0.

    >>> is_mask((0, 255)), is_mask((0,)), is_mask((1, 2)), is_mask(None)
    (True, False, False, False)
    """
    return few is not None and sum(value > 0 for value in few) == 1


def require_background(few: Few, where: str, fix: str) -> None:
    """Check that an image with two values has background.

    Args:
        where: the file, for the message.
        fix: what to do, for the message.

    Raises:
        InputError: there are two values and neither is 0.
    """
    if few is not None and len(few) == 2 and few[0] > 0:
        raise InputError.of(
            found=f"{where} has two values, {few[0]} and {few[1]}, and no 0", expected="0 for the background", fix=fix
        )


def label_components(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Number the connected components of each value above 0; neighbours share a side or a corner.

    Args:
        labels: integers (y, x) or (z, y, x), 0 background; components of different values are never joined.

    Returns:
        Ids from 1, in raster order of the first pixel of each component.

    >>> label_components(np.array([[0, 9, 0, 9], [9, 0, 0, 0], [0, 0, 0, 4]])).tolist()
    [[0, 1, 0, 2], [1, 0, 0, 0], [0, 0, 0, 3]]
    """
    # in 3-D scikit-image joins wrong pixels if an axis has length 1, so such axes are left out
    shape = [n for n in labels.shape if n != 1] or [1]
    positive = np.where(labels > 0, labels, 0).reshape(shape)
    found: npt.NDArray[np.int64] = measure.label(positive, connectivity=len(shape))  # type: ignore[no-untyped-call]
    return found.reshape(labels.shape).astype(np.int64)
