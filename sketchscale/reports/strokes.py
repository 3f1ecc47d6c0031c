"""What was drawn, as a table: objects and pixels by class on every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sketchscale.reports.charts import number
from sketchscale.reports.markup import Markup, element, join
from sketchscale.reports.page import table

__all__ = ["StrokeRow", "stroke_table"]

_MOST = 24
"""Rows that are shown; a study of many plates has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrokeRow:
    """What was drawn on one image: objects, pixels by class, and how many pixels the image has."""

    image: str
    objects: int
    pixels: Mapping[str, int]
    size: int


def stroke_table(rows: Sequence[StrokeRow]) -> Markup:
    """Table of what was drawn; the share is that of all pixels of the image."""
    if not rows:
        return Markup("")
    classes = list(dict.fromkeys(name for row in rows for name in row.pixels))
    head = ["Image", "Objects", *(f"{name.capitalize()}, px" for name in classes), "Annotated"]
    body = [_stroke_row(row, classes) for row in rows[:_MOST]]
    return join(
        [
            element("h3", f"What was drawn, on {number(len(rows))} image{'s' if len(rows) != 1 else ''}"),
            table(head, body),
        ]
    )


def _stroke_row(row: StrokeRow, classes: Sequence[str]) -> Markup:
    share = 100 * sum(row.pixels.values()) / max(1, row.size)
    values = [number(row.objects), *(number(row.pixels.get(name, 0)) for name in classes), f"{share:.2g} %"]
    return element("tr", element("td", row.image), *(element("td", value) for value in values))
