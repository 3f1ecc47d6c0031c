from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.reports.plate import (
    CountRow,
    FieldTable,
    class_names,
    count_fields,
    count_plates,
    count_wells,
    counts_table,
    split_well,
)

CLASSES = st.lists(st.sampled_from(["round", "long", None]), max_size=20)
FIELDS = st.lists(st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(["A01", "B02", "AB10"]), CLASSES), max_size=12)


def tables(fields: list[tuple[str, str, list[str | None]]]) -> list[FieldTable]:
    return [
        FieldTable(image=f"i{i}", plate=plate, well=well, table=pa.table({"class": pa.array(names, pa.string())}))
        for i, (plate, well, names) in enumerate(fields)
    ]


@given(FIELDS)
@settings(max_examples=50, deadline=None)
def test_fields_wells_and_plates_count_the_same_objects(fields: list[tuple[str, str, list[str | None]]]) -> None:
    rows = count_fields(tables(fields))
    total = sum(len(names) for _, _, names in fields)
    for level in (rows, count_wells(rows), count_plates(rows)):
        assert sum(row.n for row in level) == total
        assert sum(row.fields for row in level) == len(fields)
        assert all(sum(row.by_class.values()) == row.n for row in level)
        for name in ("round", "long"):
            assert sum(r.by_class.get(name, 0) for r in level) == sum(f[2].count(name) for f in fields)


def test_a_well_without_objects_and_a_well_without_image_have_their_rows() -> None:
    rows = count_fields([FieldTable(image="a", well="B02", table=pa.table({"class": pa.array([], pa.string())}))])
    wells = count_wells(rows, {"": ["B10", "B02", "A01"]})
    assert [(w.well, w.n, w.fields) for w in wells] == [("A01", 0, 0), ("B02", 0, 1), ("B10", 0, 0)]


def test_a_well_that_the_plate_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match=r"well 'Z99' of plate 'p'; expected: one of its 1 wells"):
        count_wells([CountRow(n=1, plate="p", well="Z99")], {"p": ["A01"]})


def test_wells_are_in_plate_order_not_in_text_order() -> None:
    names = ["AA01", "B01", "A10", "A2"]
    assert [w.well for w in count_wells([CountRow(n=1, well=n) for n in names])] == ["A2", "A10", "B01", "AA01"]
    assert split_well("odd") == ("odd", 0)


def test_unclassified_objects_are_counted_and_come_last() -> None:
    rows = count_fields(tables([("p", "A01", ["z", None, ""])]))
    assert class_names(rows) == ("z", "unclassified")
    assert counts_table(rows).to_pylist()[0] | {} == {
        "plate": "p",
        "well": "A01",
        "field": "",
        "image": "i0",
        "fields": 1,
        "n": 3,
        "n_z": 1,
        "n_unclassified": 2,
    }


def test_a_table_without_classes_counts_rows() -> None:
    (row,) = count_fields([FieldTable(image="a", table=pa.table({"label": [1, 2]}))])
    assert (row.n, dict(row.by_class)) == (2, {})
