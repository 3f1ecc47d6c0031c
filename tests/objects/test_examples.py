"""Annotated objects: both kinds of table, and every way in which one can be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from sketchscale.errors import InputError, MissingDataError
from sketchscale.objects.examples import Mark, read_marks, resolve_marks
from tests.objects.test_plan import Drawn

LABELS = np.zeros((600, 700), np.uint32)
LABELS[2:5, 3:6], LABELS[590:599, 600:650], LABELS[8, 8] = 7, 12, 3
KNOWN = np.array([3, 7, 12])


def written(folder, text):
    path = folder / "cells.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_and_points_name_the_same_objects(tmp_path):
    by_label = read_marks(written(tmp_path, "label,class\n7,round\n12, long\n"))
    by_point = read_marks(written(tmp_path, "\ufeffY, X ,Class,who\n2.4,3,round,me\n598.2,649.4,long,you\n"))
    expected = {7: "round", 12: "long"}
    assert resolve_marks(by_label, Drawn(LABELS), KNOWN) == expected
    assert resolve_marks(by_point, Drawn(LABELS), KNOWN) == expected


def test_the_same_mark_twice_is_one_example():
    marks = [Mark(name="a", label=7), Mark(name="a", point=(3, 4)), Mark(name="b", label=3)]
    assert resolve_marks(marks, Drawn(LABELS), KNOWN) == {3: "b", 7: "a"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,class\n7,round\n9,long\n", "line 3: no object at label 9"),
        ("y,x,class\n3,4,round\n0,0,long\n", r"line 3: no object at point \(0.0, 0.0\)"),
        ("y,x,class\n3,4,round\n600,0,long\n", r"line 3: point \(600.0, 0.0\) outside the image"),
        ("y,x,class\n3,4,round\nnan,0,long\n", "outside the image"),
        ("label,class\n7,round\n7,long\n", "object 7 is 'long' and 'round'"),
        ("label,class\n7,round\n12,round\n", "2 annotated objects of 1 class; expected: at least two classes"),
        ("label,class\n", "0 annotated objects of 0 class"),
        ("label,class\n7,\n", "line 2: no class"),
        ("label,class\nseven,round\n", "line 2: invalid literal"),
        ("id,class\n7,round\n", "columns id, class; expected: label,class or y,x,class"),
        ("y,x,class\n3\n", "line 2: no class"),
    ],
)
def test_a_wrong_annotation_is_one_line_that_names_it(tmp_path, text, words):
    with pytest.raises(InputError, match=words) as caught:
        resolve_marks(read_marks(written(tmp_path, text)), Drawn(LABELS), KNOWN)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    with pytest.raises(MissingDataError, match="No such file"):
        read_marks(tmp_path / "none.csv")
    (tmp_path / "cells.csv").write_bytes(b"label,class\n\xff\xfe\x00,1\n")
    with pytest.raises(InputError, match="expected: a CSV file in UTF-8"):
        read_marks(tmp_path / "cells.csv")
