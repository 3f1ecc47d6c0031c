"""Columns of the feature table that a classifier may read, and their numbers.

Classifiers read numbers that describe an object. Left out are its place (label, positions, boxes), earlier decisions
(class columns), boolean columns (they all concern edges and seams), and lengths in um that the table also has in px:
patches are in px, too, and the spacing of an image may be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute

from sketchscale.errors import InputError

__all__ = ["feature_columns", "feature_rows"]

_ELSEWHERE = re.compile(r"label|[tzyx](_um)?|box_.*|class|class_.*|prob_.*|in_training|patch_cropped")
_METRIC = re.compile(r"_um[23]?$")


def feature_columns(table: pyarrow.Table) -> tuple[str, ...]:
    """Return the names of the columns that classifiers on tables read, in the table's order.

    >>> feature_columns(pyarrow.table({"label": [1], "y": [2.0], "area": [9], "area_um2": [0.3], "class": ["a"]}))
    ('area',)
    """
    return tuple(
        field.name
        for field in table.schema
        if (pyarrow.types.is_integer(field.type) or pyarrow.types.is_floating(field.type))
        and not _ELSEWHERE.fullmatch(field.name)
        and not (_METRIC.search(field.name) and _METRIC.sub("", field.name) in table.column_names)
    )


def feature_rows(table: pyarrow.Table, features: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return columns as (n, F) numbers, NaN where a value is missing or infinite.

    Args:
        features: names, from `feature_columns` of the table of training.

    Raises:
        InputError: a column is missing or not numeric; the message names it.
    """
    missing = [name for name in features if name not in table.column_names]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError.of(
            found=f"a table without column {missing[0]}{more}",
            expected="the columns on which the classifier was trained",
            fix="measure the labels again, on the same channels and with the same features",
        )
    rows = np.empty((table.num_rows, len(features)))
    for i, name in enumerate(features):
        try:
            column = pyarrow.compute.cast(table.column(name), pyarrow.float64(), safe=False)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError) as error:
            raise InputError.of(
                found=f"column {name} of type {table.schema.field(name).type}",
                expected="numbers",
                fix="measure the labels again",
            ) from error
        rows[:, i] = column.to_numpy()
    rows[~np.isfinite(rows)] = np.nan
    return rows
