"""What a refused resume shows: what differs, and nothing else."""

from __future__ import annotations

import json

from sketchscale.io.runs.differences import differences


def test_only_the_keys_that_differ_are_shown_with_both_values():
    rule = {"agreement": {"angle": 0.5, "radius": 3}, "link": 2, "threshold": -2, "weights": [1, 2, 3]}
    other = {**rule, "threshold": -1.5, "agreement": {"angle": 0.25, "radius": 3}, "weights": [1, 9, 3]}
    stored = {"code": "1.0", "integration": json.dumps(rule), "model": "a" * 64}
    wanted = {"code": "1.0", "integration": json.dumps(other), "model": "b" * 64}
    assert differences(stored, wanted) == (
        "integration.agreement.angle: 0.5 -> 0.25, integration.threshold: -2 -> -1.5, integration.weights.1: 2 -> 9, "
        "model: aaaaaaaaaaaa... -> bbbbbbbbbbbb..."
    )
    assert differences(stored, stored) == ""


def test_what_is_only_on_one_side_is_absent_on_the_other():
    assert differences({"a": None}, {"b": {"c": 1}}) == 'a: null -> absent, b: absent -> {"c": 1}'


def test_long_values_are_cut_around_the_place_where_they_differ():
    same = "word " * 40
    line = differences({"text": f"{same}left{same}"}, {"text": f"{same}right{same}"})
    assert "left" in line
    assert "right" in line
    assert len(line) < 130


def test_many_differences_are_counted():
    line = differences(dict.fromkeys("abcdefghijkl", 0), dict.fromkeys("abcdefghijkl", 1))
    assert line.endswith("h: 0 -> 1, 4 more")
    assert len(line.split(", ")) == 9
