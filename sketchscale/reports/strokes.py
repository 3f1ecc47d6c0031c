"""Table of strokes: objects and pixels by class on every image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sketchscale.reports.charts import number
from sketchscale.reports.markup import Markup, element, join
from sketchscale.reports.page import table

__all__ = ["StrokeRow", "stroke_table"]

_MOST = 24
"""Most rows that are shown; a study of many plates has more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrokeRow:
    """Strokes on one image: objects, pixels by class, and number of pixels of the image."""

    image: str
    objects: int
    pixels: Mapping[str, int]
    size: int


def stroke_table(rows: Sequence[StrokeRow]) -> Markup:
    """Return the table of strokes; the share is of all pixels of the image."""
    if not rows:
        return Markup("")
    classes = list(dict.fromkeys(name for row in rows for name in row.pixels))
    head = ["Image", "Objects", *(f"{name.capitalize()}, px" for name in classes), "Annotated"]
    body = []
    for row in rows[:_MOST]:
        share = 100 * sum(row.pixels.values()) / max(1, row.size)
        values = [number(row.objects), *(number(row.pixels.get(name, 0)) for name in classes), f"{share:.2g} %"]
        body.append(element("tr", element("td", row.image), *(element("td", value) for value in values)))
    title = f"What was drawn, on {number(len(rows))} image{'s' if len(rows) != 1 else ''}"
    return join([element("h3", title), table(head, body)])
