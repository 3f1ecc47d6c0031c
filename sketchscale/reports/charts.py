"""Small charts as inline SVG without library or script, readable in print and in dark mode.

Colours of data come from `PALETTE`, everything else from the page's style sheet (classes `axis`, `grid`, `tick`).
Each mark has a title, so a browser shows its numbers on hover.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sketchscale.reports.markup import Markup, element, join
from sketchscale.reports.pictures import PALETTE, color_of
from sketchscale.reports.plate import CountRow, split_well

__all__ = ["Series", "bar", "histogram_chart", "line_chart", "number", "plate_map", "ticks"]

_WIDTH, _HEIGHT = 720, 240
_NUMBERED_STEP = 40
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line: points (x, y) in order of x, its name, and the index of its colour."""

    name: str
    points: tuple[tuple[float, float], ...]
    color: int = 0


def number(value: float | None, digits: int = 3) -> str:
    """Format a number: thousands separated, few digits, no trailing zeros; a dash for None and NaN.

    >>> number(15113), number(0.8530001), number(None), number(12.25)
    ('15,113', '0.853', '–', '12.2')
    """
    if value is None or math.isnan(value):
        return "–"
    if isinstance(value, int) or (abs(value) >= 100 and value == round(value)):
        return f"{int(value):,}"
    if value != 0 and (abs(value) < 0.001 or abs(value) >= 1e6):
        return f"{value:.2e}"
    rounded = f"{value:,.{max(0, digits - max(0, len(str(int(abs(value)))) if abs(value) >= 1 else 0))}f}"
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def ticks(low: float, high: float, n: int = 5) -> list[float]:
    """Return about n round numbers from low to high.

    >>> ticks(0, 97)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(math.floor(high / step + 1e-9) - first + 1)]


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    span = high - low or 1.0
    return lambda value: round(start + (value - low) / span * (stop - start), 2)


def _svg(*children: object, label: str, width: int = _WIDTH, height: int = _HEIGHT, style: str | None = None) -> Markup:
    box = f"0 0 {width} {height}"
    return element("svg", *children, viewBox=box, role="img", aria_label=label, class_="chart", style=style)


def _x_axis(at: Callable[[float], float], values: Sequence[float], title: str) -> Iterator[Markup]:
    base = _HEIGHT - _BOTTOM
    yield element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=base, y2=base, class_="axis")
    for value in values:
        yield element("text", number(value), x=at(value), y=base + 16, class_="tick middle")
    yield element("text", title, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 3, class_="tick title middle")


def _y_axis(at: Callable[[float], float], values: Sequence[float], labels: Sequence[str]) -> Iterator[Markup]:
    for value, label in zip(values, labels, strict=True):
        yield element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=at(value), y2=at(value), class_="grid")
        yield element("text", label, x=_LEFT - 8, y=at(value) + 4, class_="tick end")


def histogram_chart(
    edges: Sequence[float],
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    *,
    title: str,
    median: float | None,
    colors: Sequence[str] = PALETTE,
) -> Markup:
    """Return a histogram with the classes stacked.

    Args:
        edges: n + 1, ascending. counts: n per class. names: of the classes, in the same order.
        title: of the x axis, with its unit. median: drawn as a line, if any. colors: of the classes.
    """
    totals = [sum(column) for column in zip(*counts, strict=True)]
    x = _scale(edges[0], edges[-1], _LEFT, _WIDTH - _RIGHT)
    y = _scale(0, max([1, *totals]) * 1.06, _HEIGHT - _BOTTOM, _TOP)
    marks = ticks(0, max([1, *totals]), 4)
    parts = [*_y_axis(y, marks, [number(v) for v in marks])]
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        below = 0
        for place, (name, values) in enumerate(zip(names, counts, strict=True)):
            if values[i]:
                hint = element("title", f"{number(low)} to {number(high)}: {number(values[i])} {name}")
                width, height = max(0.5, x(high) - x(low) - 1), y(below) - y(below + values[i])
                parts.append(
                    element("rect", hint, x=x(low) + 0.5, y=y(below + values[i]), width=round(width, 2),
                            height=round(height, 2), fill=colors[place % len(colors)])
                )  # fmt: skip
            below += values[i]
    if median is not None:
        parts.append(element("line", x1=x(median), x2=x(median), y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="median"))
        parts.append(element("text", f"median {number(median)}", x=x(median) + 6, y=_TOP + 10, class_="tick strong"))
    return _svg(*parts, *_x_axis(x, ticks(edges[0], edges[-1], 8), title), label=title)


def line_chart(
    series: Sequence[Series],
    *,
    x_title: str,
    label: str,
    logarithmic: bool = False,
    y_range: tuple[float, float] | None = None,
) -> Markup:
    """Return lines over a common x axis; a logarithmic y axis leaves out values that are not positive."""
    kept: list[Series] = []
    for one in series:
        pairs = [(a, b) for a, b in one.points if math.isfinite(b) and (b > 0 or not logarithmic)]
        shown = tuple((a, math.log10(b)) if logarithmic else (a, b) for a, b in pairs)
        kept.append(Series(name=one.name, color=one.color, points=shown))
    points = [p for one in kept for p in one.points]
    if not points:
        return Markup("")
    low, high = y_range or (min(p[1] for p in points), max(p[1] for p in points))
    if not logarithmic and y_range is None:
        low, high = min(0.0, low), high * 1.05
    x = _scale(min(p[0] for p in points), max(p[0] for p in points), _LEFT, _WIDTH - _RIGHT)
    y = _scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    marks = ticks(low, high, 4)
    if logarithmic:
        steps = (1, 2, 5) if high - low < 2 else (1,)
        marks = [d + math.log10(m) for d in range(math.floor(low), math.ceil(high) + 1) for m in steps]
    marks = [m for m in marks if low <= m <= high]
    parts = [*_y_axis(y, marks, [number(10**m if logarithmic else m) for m in marks])]
    parts += [_line(one, x, y) for one in kept]
    return _svg(
        *parts, *_x_axis(x, ticks(min(p[0] for p in points), max(p[0] for p in points), 8), x_title), label=label
    )


def _line(series: Series, x: Callable[[float], float], y: Callable[[float], float]) -> Markup:
    path = "M" + "L".join(f"{x(a)} {y(b)}" for a, b in series.points)
    color = color_of(series.color)
    drawn = element("path", element("title", series.name), d=path, class_="line", stroke=color)
    if len(series.points) > 60:
        return drawn
    dots = [element("circle", cx=x(a), cy=y(b), r=2.5, fill=color) for a, b in series.points]
    return join([drawn, *dots])


def bar(values: Sequence[int], names: Sequence[str], longest: int) -> Markup:
    """Return a row's classes as one thin stacked bar; `longest` is the total that fills the width."""
    parts, left = [], 0.0
    for place, (value, name) in enumerate(zip(values, names, strict=True)):
        width = 100 * value / max(1, longest)
        hint = element("title", f"{number(value)} {name}")
        parts.append(
            element("rect", hint, x=round(left, 3), y=0, width=round(width, 3), height=6, fill=color_of(place))
        )
        left += width
    return element("svg", *parts, viewBox="0 0 100 6", preserveAspectRatio="none", class_="bar", aria_hidden="true")


def plate_map(rows: Sequence[CountRow], label: str) -> Markup:
    """Return a map of a plate's wells, darker for more objects; a well without image is an empty ring."""
    places = [(split_well(row.well), row) for row in rows]
    letters = sorted({place[0] for place, _ in places}, key=lambda name: (len(name), name))
    columns = sorted({place[1] for place, _ in places})
    step = min(44, max(14, 660 // max(1, len(columns))))
    most = max([1, *(row.n for row in rows)])
    parts = [
        element("text", str(c), x=40 + (j + 0.5) * step, y=12, class_="tick middle") for j, c in enumerate(columns)
    ]
    parts += [element("text", a, x=30, y=20 + (i + 0.5) * step + 4, class_="tick end") for i, a in enumerate(letters)]
    for (letter, column), row in places:
        cx, cy = 40 + (columns.index(column) + 0.5) * step, 20 + (letters.index(letter) + 0.5) * step
        hint = element("title", f"{row.well}: {number(row.n)} objects, {number(row.fields)} fields")
        strength = round(0.08 + 0.92 * row.n / most, 3)
        look = {"fill": color_of(0), "fill_opacity": strength} if row.fields else {"class_": "missing"}
        parts.append(element("circle", hint, cx=cx, cy=cy, r=round(step * 0.42, 2), **look))
        if row.fields and step >= _NUMBERED_STEP:
            parts.append(element("text", number(row.n), x=cx, y=cy + 4, class_="inside middle"))
    width, height = 48 + step * len(columns), 26 + step * len(letters)
    # A few wells are not enlarged to the width of the page.
    return _svg(*parts, label=label, width=width, height=height, style=f"max-width: {width}px")
