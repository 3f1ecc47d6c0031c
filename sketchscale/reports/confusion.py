"""Confusion matrix of a classifier on annotated objects, as a picture, as HTML and as text.

Rows are annotated classes, columns predicted ones; a good classifier has all objects on the diagonal. The shade is the
share of the row, so rare classes show their errors as clearly as frequent ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from sketchscale.reports.charts import number
from sketchscale.reports.markup import Markup, element
from sketchscale.reports.page import section

__all__ = ["confusion_chart", "confusion_svg", "confusion_text", "held_out_section", "recalls"]

_CELL, _LEFT, _TOP, _RIGHT = 64, 150, 46, 90
_RIGHT_COLOR, _WRONG_COLOR = "#17b890", "#fa5f55"
_STYLE = (
    "text{font:13px Arial,'Liberation Sans',sans-serif;fill:#16202b}.soft{fill:#5c6875}.middle{text-anchor:middle}"
    ".end{text-anchor:end}.strong{font-weight:600}.edge{fill:none;stroke:#e4e8ec}"
)


def recalls(matrix: Sequence[Sequence[int]]) -> list[float | None]:
    """Return the share of each class that was predicted correctly; None for a class without objects.

    >>> recalls([[3, 1], [0, 0]])
    [0.75, None]
    """
    return [row[i] / sum(row) if sum(row) else None for i, row in enumerate(matrix)]


def confusion_chart(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    """Return the table as inline SVG for a page with the report's style.

    Args:
        classes: names, in the order of rows and columns.
        matrix: counts; rows annotated, columns found.
    """
    width, height = _size(len(classes))
    box, style, label = f"0 0 {width} {height}", f"max-width:{width}px", "annotated and found classes"
    parts = _cells(classes, matrix)
    return element("svg", *parts, viewBox=box, role="img", aria_label=label, class_="chart", style=style)


def held_out_section(confusion: tuple[Sequence[str], Sequence[Sequence[int]]] | None) -> Markup:
    """Return the section of a page about held-out objects; nothing without any."""
    if confusion is None:
        return Markup("")
    classes, matrix = confusion
    total, right = sum(map(sum, matrix)), sum(row[i] for i, row in enumerate(matrix))
    aside = f"{number(right)} of {number(total)} annotated objects that a first training did not see were found right"
    return section("Held-out score", aside, confusion_chart(classes, matrix))


def confusion_svg(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Return the table as a standalone picture with dark text on white.

    >>> confusion_svg(["a", "b"], [[3, 1], [0, 4]]).startswith("<svg")
    True
    """
    width, height = _size(len(classes))
    ground = element("rect", x=0, y=0, width=width, height=height, fill="#ffffff")
    whole = element(
        "svg",
        element("style", Markup(_STYLE)),
        ground,
        *_cells(classes, matrix),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
    )
    return f"{whole}\n"


def _size(n: int) -> tuple[int, int]:
    return _LEFT + n * _CELL + _RIGHT, _TOP + n * _CELL + 12


def _cells(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[Markup]:
    end = _LEFT + len(classes) * _CELL
    parts = [element("text", "annotated", x=_LEFT - 10, y=_TOP - 10, class_="end soft")]
    parts.append(element("text", "found", x=end + 12, y=_TOP - 10, class_="soft"))
    for i, (name, row, recall) in enumerate(zip(classes, matrix, recalls(matrix), strict=True)):
        at = _TOP + i * _CELL + _CELL / 2 + 5
        parts.append(element("text", _short(name, 20), x=_LEFT - 10, y=at, class_="end strong"))
        parts.append(element("text", _short(name, 9), x=_LEFT + (i + 0.5) * _CELL, y=_TOP - 10, class_="middle strong"))
        for j, value in enumerate(row):
            x, y, share = _LEFT + j * _CELL, _TOP + i * _CELL, value / max(1, sum(row))
            hint = element("title", f"{number(value)} annotated as {name}, found as {classes[j]}")
            fill = _RIGHT_COLOR if i == j else _WRONG_COLOR
            size = {"x": x + 1, "y": y + 1, "width": _CELL - 2, "height": _CELL - 2, "rx": 3}
            box = element("rect", hint, **size, fill=fill, fill_opacity=round(0.06 + 0.6 * share, 3))
            look = "strong middle" if value else "soft middle"
            count = element("text", number(value), x=x + _CELL / 2, y=y + _CELL / 2 + 5, class_=look)
            parts.append(element("g", box, count))
        found = "–" if recall is None else f"{100 * recall:.0f} %"
        parts.append(element("text", found, x=end + 12, y=at, class_="soft"))
    return parts


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def confusion_text(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Return the table in plain text.

    >>> print(confusion_text(["a", "b"], [[3, 1], [0, 4]]).partition("found")[2])
        a   b   recall
    a                    3   1    0.750
    b                    0   4    1.000
    """
    corner = "annotated \\ found"
    width = max(len(corner), *(len(name) for name in classes)) + 1
    columns = [max(4, len(name) + 1) for name in classes]
    head = "".join(f"{name:>{w}}" for name, w in zip(classes, columns, strict=True))
    lines = [f"{corner:<{width}}{head}   recall"]
    for name, row, recall in zip(classes, matrix, recalls(matrix), strict=True):
        values = "".join(f"{value:>{w}}" for value, w in zip(row, columns, strict=True))
        lines.append(f"{name:<{width}}{values}{'–' if recall is None else f'{recall:.3f}':>9}")
    return "\n".join(lines)
