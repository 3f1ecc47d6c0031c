"""Counts add up the same whatever they are summed by, and wells come in the order of their plate."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.reports.plate import CountRow, class_names, split_well, sum_counts

CLASSES = st.lists(st.sampled_from(["round", "long", "unclassified"]), max_size=20)
FIELDS = st.lists(st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(["A01", "B02", "AB10"]), CLASSES), max_size=12)


@given(FIELDS)
@settings(max_examples=50, deadline=None)
def test_images_wells_and_plates_count_the_same_objects(fields: list[tuple[str, str, list[str]]]) -> None:
    rows = [
        CountRow(image=f"i{i}", plate=plate, well=well, n=len(names), by_class=Counter(names))
        for i, (plate, well, names) in enumerate(fields)
    ]
    for by in ((), ("image",), ("plate",), ("plate", "well"), ("plate", "well", "image")):
        sums = sum_counts(rows, by)
        assert sum(row.n for row in sums) == sum(len(names) for _, _, names in fields)
        assert sum(row.fields for row in sums) == len(fields)
        assert all(sum(row.by_class.values()) == row.n for row in sums)
        assert len(sums) == len({tuple(getattr(row, name) for name in by) for row in rows})


def test_a_well_without_objects_and_a_well_without_image_have_their_rows() -> None:
    rows = [CountRow(n=0, well="B02"), *(CountRow(n=0, fields=0, well=well) for well in ("B10", "B02", "A01"))]
    assert [(w.well, w.n, w.fields) for w in sum_counts(rows, ["plate", "well"])] == [
        ("A01", 0, 0),
        ("B02", 0, 1),
        ("B10", 0, 0),
    ]


def test_wells_are_in_plate_order_not_in_text_order() -> None:
    names = ["AA01", "B01", "A10", "A2"]
    assert [w.well for w in sum_counts([CountRow(n=1, well=n) for n in names], ["well"])] == [
        "A2",
        "A10",
        "B01",
        "AA01",
    ]
    assert split_well("odd") == ("odd", 0)


def test_unclassified_objects_come_last() -> None:
    assert class_names([CountRow(n=3, by_class={"unclassified": 2, "z": 1})]) == ("z", "unclassified")
