"""Sections of a page with counts: map and table of a plate's wells, and the table of images.

Long tables show their first rows, and all rows on request; their last line is the sum of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sketchscale.reports.charts import bar, number, plate_map
from sketchscale.reports.markup import Markup, element
from sketchscale.reports.page import section
from sketchscale.reports.plate import CountRow

__all__ = ["image_section", "plate_section"]

_MANY_ROWS, _FEW_ROWS = 24, 12

Columns = dict[str, Callable[[CountRow], str]]
"""Heading to the text of a row, before its counts."""


def plate_section(wells: Sequence[CountRow], classes: Sequence[str], thing: str) -> Markup:
    """Return maps of the plates and the table of their wells; nothing without a well."""
    if not wells:
        return Markup("")
    maps: list[object] = []
    for plate in sorted({well.plate for well in wells}):
        here = [well for well in wells if well.plate == plate]
        maps += [element("h3", plate) if plate else "", plate_map(here, f"objects by well {plate}".strip())]
    columns: Columns = {"Well": lambda row: row.well, "Images": lambda row: number(row.fields)}
    if len({well.plate for well in wells}) > 1:
        columns = {"Plate": lambda row: row.plate} | columns
    aside = "The stronger the colour, the more objects; dashed: no image that was measured"
    return section("Plate", aside, *maps, *_tables(wells, classes, thing, columns))


def image_section(rows: Sequence[CountRow], classes: Sequence[str], thing: str) -> Markup:
    """Return the table of the images."""
    columns: Columns = {"Image": lambda row: row.image}
    if any(row.well for row in rows):
        columns["Well"] = lambda row: row.well
    aside = "By image and class" if classes else "By image"
    return section("Counts", aside, *_tables(rows, classes, thing, columns))


def _tables(rows: Sequence[CountRow], classes: Sequence[str], thing: str, columns: Columns) -> list[Markup]:
    if len(rows) <= _MANY_ROWS:
        return [_table(rows, rows, classes, thing, columns)]
    summary = f"All {number(len(rows))} rows; above are the first {_FEW_ROWS}, and the sum of all"
    rest = element("details", element("summary", summary), _table(rows, rows, classes, thing, columns))
    return [_table(rows[:_FEW_ROWS], rows, classes, thing, columns), rest]


def _table(
    rows: Sequence[CountRow], summed: Sequence[CountRow], classes: Sequence[str], thing: str, columns: Columns
) -> Markup:
    longest = max([1, *(row.n for row in rows)])
    head = [*columns, *classes, "All" if classes else thing.capitalize()]
    totals = [sum(row.by_class.get(name, 0) for row in summed) for name in classes]
    foot = ["Sum", *[""] * (len(columns) - 1), *map(number, totals), number(sum(row.n for row in summed))]
    spread = {"class_": "spread"}
    return element(
        "table",
        element("thead", element("tr", *(element("th", word) for word in head), element("th", **spread))),
        element("tbody", *(_row(row, classes, longest, columns) for row in rows)),
        element("tfoot", element("tr", *(element("td", word) for word in foot), element("td", **spread)))
        if len(rows) > 1
        else "",
    )


def _row(row: CountRow, classes: Sequence[str], longest: int, columns: Columns) -> Markup:
    values = [row.by_class.get(name, 0) for name in classes]
    counts = [element("td", number(n), class_=None if n else "zero") for n in (*values, row.n)]
    drawn = bar(values or [row.n], classes or ("objects",), longest)
    return element(
        "tr", *(element("td", text(row)) for text in columns.values()), *counts, element("td", drawn, class_="spread")
    )
