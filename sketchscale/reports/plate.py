"""Counts per field, well, plate and class, from the tables of objects.

A well where nothing was found is a result, and so is a well that was planned and has no image: both have their row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from sketchscale.errors import InputError

__all__ = ["CountRow", "FieldTable", "class_names", "count_fields", "count_plates", "count_wells", "counts_table"]

UNCLASSIFIED = "unclassified"
"""Objects of a classified table that have no class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldTable:
    """The objects of one image: one row each, with a `class` column (strings) once they are classified."""

    image: str
    table: pa.Table
    plate: str = ""
    well: str = ""
    field: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRow:
    """How many objects there are.

    Attributes:
        plate, well, field, image: where; empty where the row sums over them.
        n: objects in all.
        by_class: objects by class; empty when they are not classified.
        fields: images summed; 0 for a well that was planned and has none.
    """

    n: int
    by_class: Mapping[str, int] = field(default_factory=dict)
    fields: int = 1
    plate: str = ""
    well: str = ""
    field: str = ""
    image: str = ""


def count_fields(tables: Iterable[FieldTable]) -> tuple[CountRow, ...]:
    """One row per image, in the order given.

    >>> table = pa.table({"class": ["round", "round", None]})
    >>> count_fields([FieldTable(image="a", table=table)])[0].by_class
    {'round': 2, 'unclassified': 1}
    """
    return tuple(_count_field(one) for one in tables)


def _count_field(one: FieldTable) -> CountRow:
    by_class: dict[str, int] = {}
    if "class" in one.table.column_names:
        names = [UNCLASSIFIED if name in (None, "") else str(name) for name in one.table["class"].to_pylist()]
        by_class = dict(sorted(Counter(names).items()))
    return CountRow(
        plate=one.plate, well=one.well, field=one.field, image=one.image, n=one.table.num_rows, by_class=by_class
    )


def count_wells(rows: Sequence[CountRow], planned: Mapping[str, Sequence[str]] | None = None) -> tuple[CountRow, ...]:
    """One row per well, ordered by plate, row and column.

    Args:
        rows: of fields.
        planned: names of all wells by plate; those without a field get a row with 0 objects and 0 fields.

    Raises:
        InputError: a row names a well that its plate does not have.
    """
    groups: dict[tuple[str, str], list[CountRow]] = {}
    for plate, wells in (planned or {}).items():
        groups |= {(plate, well): [] for well in wells}
    for row in rows:
        if planned is not None and (row.plate, row.well) not in groups:
            raise InputError.of(
                found=f"objects in well {row.well!r} of plate {row.plate!r}",
                expected=f"one of its {len(planned.get(row.plate, ()))} wells",
                fix="check the plate's metadata",
            )
        groups.setdefault((row.plate, row.well), []).append(row)
    return tuple(_sum(groups[key], plate=key[0], well=key[1]) for key in sorted(groups, key=_well_order))


def count_plates(rows: Sequence[CountRow]) -> tuple[CountRow, ...]:
    """One row per plate, by name."""
    groups: dict[str, list[CountRow]] = {}
    for row in rows:
        groups.setdefault(row.plate, []).append(row)
    return tuple(_sum(groups[plate], plate=plate) for plate in sorted(groups))


def _sum(rows: Sequence[CountRow], *, plate: str, well: str = "") -> CountRow:
    by_class: Counter[str] = Counter()
    for row in rows:
        by_class.update(row.by_class)
    n, fields = sum(r.n for r in rows), sum(r.fields for r in rows)
    return CountRow(plate=plate, well=well, n=n, fields=fields, by_class=dict(sorted(by_class.items())))


def _well_order(key: tuple[str, str]) -> tuple[str, int, str, int]:
    row, column = split_well(key[1])
    return key[0], len(row), row, column


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


def counts_table(rows: Sequence[CountRow]) -> pa.Table:
    """Rows as a table for CSV or Parquet: plate, well, field, image, fields, n, and n_<class> for each class."""
    columns: dict[str, list[object]] = {
        name: [getattr(row, name) for row in rows] for name in ("plate", "well", "field", "image", "fields", "n")
    }
    columns |= {f"n_{name}": [row.by_class.get(name, 0) for row in rows] for name in class_names(rows)}
    return pa.table(columns)
