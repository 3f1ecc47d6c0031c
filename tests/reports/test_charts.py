from __future__ import annotations

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.reports.charts import Series, bar, line_chart, number, plate_map, ticks
from sketchscale.reports.markup import element
from sketchscale.reports.plate import CountRow


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 12))
@settings(max_examples=50, deadline=None)
def test_ticks_are_few_round_and_inside(low: float, span: float, n: int) -> None:
    found = ticks(low, low + span, n)
    slack = span * 1e-6
    assert 1 <= len(found) <= n + 1
    assert all(low - slack <= t <= low + span + slack for t in found)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234567, "1,234,567"), (0.5, "0.5"), (12.25, "12.2"), (130.0, "130"), (0.0001, "1.00e-04"),
     (1200.0, "1,200"), (math.nan, "–"), (None, "–"), (-3.5, "-3.5"), (100, "100"), (10.0, "10")],
)  # fmt: skip
def test_numbers_are_written_as_people_write_them(value: float | None, text: str) -> None:
    assert number(value) == text


def test_a_line_on_a_logarithmic_axis_leaves_out_what_has_no_logarithm() -> None:
    chart = line_chart(
        [Series(name="a", points=((0, 1.0), (1, 0.0), (2, math.nan), (3, 0.1)))],
        x_title="step",
        label="l",
        logarithmic=True,
    )
    (path,) = re.findall(r' d="([^"]+)"', chart)
    assert path.count("L") == 1
    assert "nan" not in chart
    assert line_chart([Series(name="a", points=())], x_title="x", label="l") == ""


def test_a_constant_line_is_drawn() -> None:
    assert "nan" not in line_chart(
        [Series(name="a", points=((1, 2.0), (1, 2.0)))], x_title="x", label="l", logarithmic=True
    )


def test_bars_fill_their_share_of_the_longest() -> None:
    widths = [float(w) for w in re.findall(r' width="([\d.]+)"', bar([1, 3], ["a", "b"], 8))]
    assert widths == [12.5, 37.5]


def test_a_plate_map_shows_every_well_and_marks_missing_ones() -> None:
    wells = [CountRow(well=f"{r}{c:02d}", n=c, fields=int(c < 3)) for r in "AB" for c in (1, 2, 3)]
    drawn = plate_map(wells, "plate")
    assert drawn.count("<circle") == 6
    assert drawn.count('class="missing"') == 2


def test_text_and_attributes_are_escaped_and_false_ones_left_out() -> None:
    built = element("p", "<b>", element("i", "&"), title='"', hidden=False, id=None, checked=True)
    assert built == '<p title="&quot;" checked>&lt;b&gt;<i>&amp;</i></p>'
