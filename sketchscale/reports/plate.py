"""Counts of objects by image, well and plate, and their sums, for tables and pages.

A well without objects is a result, and so is a planned well without an image: both have a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["UNCLASSIFIED", "CountRow", "class_names", "split_well", "sum_counts"]

UNCLASSIFIED = "unclassified"
"""Objects of a classified table that have no class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRow:
    """Number of objects in one place.

    Attributes:
        plate, well, image: the place; empty if the row is a sum over them, and outside a plate.
        n: objects in all.
        by_class: objects by class; empty if they are not classified.
        fields: images summed; 0 for a planned well without images.
    """

    n: int
    by_class: Mapping[str, int] = field(default_factory=dict)
    fields: int = 1
    plate: str = ""
    well: str = ""
    image: str = ""


def sum_counts(rows: Iterable[CountRow], by: Sequence[str]) -> tuple[CountRow, ...]:
    """Return sums of rows of the same place, in the order of the places; wells by plate, row and column.

    Args:
        by: fields that make a place, of "plate", "well" and "image"; empty for a single sum over all rows.

    >>> rows = [CountRow(n=2, well="B10"), CountRow(n=1, well="B2"), CountRow(n=4, well="B10")]
    >>> [(row.well, row.n, row.fields) for row in sum_counts(rows, ["well"])]
    [('B2', 1, 1), ('B10', 6, 2)]
    """
    groups: dict[tuple[str, ...], list[CountRow]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in by), []).append(row)
    sums = []
    for place, found in groups.items():
        by_class: Counter[str] = Counter()
        for row in found:
            by_class.update(row.by_class)
        n, fields = sum(r.n for r in found), sum(r.fields for r in found)
        where = dict(zip(by, place, strict=True))
        sums.append(CountRow(n=n, fields=fields, by_class=dict(sorted(by_class.items())), **where))
    if "well" in by:
        sums.sort(key=lambda row: (row.plate, len(split_well(row.well)[0]), *split_well(row.well), row.image))
    return tuple(sums)


def split_well(name: str) -> tuple[str, int]:
    """Return row letters and column number; for any other name the whole name and 0.

    >>> split_well("AB07")
    ('AB', 7)
    """
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)


def class_names(rows: Iterable[CountRow]) -> tuple[str, ...]:
    """Return all classes of the rows, by name; `unclassified` last."""
    names = {name for row in rows for name in row.by_class}
    return tuple(sorted(names, key=lambda name: (name == UNCLASSIFIED, name)))
