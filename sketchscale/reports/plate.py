"""Counts of objects by image, well and plate, and how they add up: the one counter of tables and pages.

A well where nothing was found is a result, and so is a well that was planned and has no image: both have their row.
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
    """How many objects there are.

    Attributes:
        plate, well, image: where; empty where the row sums over them, and outside a plate.
        n: objects in all.
        by_class: objects by class; empty when they are not classified.
        fields: images summed; 0 for a well that was planned and has none.
    """

    n: int
    by_class: Mapping[str, int] = field(default_factory=dict)
    fields: int = 1
    plate: str = ""
    well: str = ""
    image: str = ""


def sum_counts(rows: Iterable[CountRow], by: Sequence[str]) -> tuple[CountRow, ...]:
    """Sums of the rows that are of one place, in the order in which these come; wells by plate, row and column.

    Args:
        by: what makes a place, of "plate", "well" and "image"; nothing gives one sum, where there is a row.

    >>> rows = [CountRow(n=2, well="B10"), CountRow(n=1, well="B2"), CountRow(n=4, well="B10")]
    >>> [(row.well, row.n, row.fields) for row in sum_counts(rows, ["well"])]
    [('B2', 1, 1), ('B10', 6, 2)]
    """
    groups: dict[tuple[str, ...], list[CountRow]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in by), []).append(row)
    sums = [_sum(found, dict(zip(by, place, strict=True))) for place, found in groups.items()]
    return tuple(sorted(sums, key=_place_order) if "well" in by else sums)


def _sum(rows: Sequence[CountRow], place: Mapping[str, str]) -> CountRow:
    by_class: Counter[str] = Counter()
    for row in rows:
        by_class.update(row.by_class)
    n, fields = sum(r.n for r in rows), sum(r.fields for r in rows)
    return CountRow(n=n, fields=fields, by_class=dict(sorted(by_class.items())), **place)


def _place_order(row: CountRow) -> tuple[str, int, str, int, str]:
    letters, column = split_well(row.well)
    return row.plate, len(letters), letters, column, row.image


def split_well(name: str) -> tuple[str, int]:
    """Row letters and column number; a name of another kind is a row of its own.

    >>> split_well("AB07")
    ('AB', 7)
    """
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)


def class_names(rows: Iterable[CountRow]) -> tuple[str, ...]:
    """All classes of the rows, by name; `unclassified` last."""
    names = {name for row in rows for name in row.by_class}
    return tuple(sorted(names, key=lambda name: (name == UNCLASSIFIED, name)))
