"""Forests kept as arrays: scikit-learn's probabilities, row by row; and the columns they read."""

from __future__ import annotations

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from sketchscale.errors import InputError
from sketchscale.objects.classifiers import ForestOptions, feature_columns, feature_rows
from sketchscale.objects.classifiers.forests import (
    check_forest,
    fit_forest,
    forest_probabilities,
    gradient_boosting_arrays,
    random_forest_arrays,
)
from tests.oracles.classifiers import tree_walk


def drawn(n, columns, seed, missing=0.1):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, columns)) * 10.0 ** rng.integers(-3, 4, columns)
    rows[rng.random(rows.shape) < missing] = np.nan
    return rows


def targets_of(n, classes, seed):
    targets = np.random.default_rng(seed).integers(0, classes, n)
    targets[:classes] = range(classes)
    return targets


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 5), st.sampled_from([0.0, 0.2]), st.booleans(), st.integers(0, 2**16))
def test_probabilities_are_those_of_scikit_learn(classes, columns, missing, boosted, seed):
    rows, targets = drawn(60, columns, seed, missing), targets_of(60, classes, seed)
    if boosted:
        model = HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=3).fit(rows, targets)
        arrays = gradient_boosting_arrays(model)
    else:
        model = RandomForestClassifier(5, random_state=seed % 7).fit(rows, targets)
        arrays = random_forest_arrays(model)
    check_forest(arrays, columns, classes)
    asked = arrays["forest.threshold"]
    exact = asked[np.isfinite(asked)][:9, None].repeat(columns, axis=1)
    new = np.concatenate([drawn(40, columns, seed + 1, 0.2), exact])
    found = forest_probabilities(arrays, new)
    np.testing.assert_allclose(found, model.predict_proba(new), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(forest_probabilities(arrays, new[::-1])[::-1], found)
    np.testing.assert_array_equal(forest_probabilities(arrays, new[7:8]), found[7:8])


def test_trees_are_walked_node_by_node():
    rows, targets = drawn(50, 3, 1), targets_of(50, 3, 1)
    model = RandomForestClassifier(4, random_state=0).fit(rows, targets)
    new = drawn(20, 3, 2)
    expected = [np.mean([tree_walk(e.tree_, row) for e in model.estimators_], axis=0) for row in new]
    np.testing.assert_allclose(forest_probabilities(random_forest_arrays(model), new), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["random-forest", "gradient-boosting"])
def test_growing_is_seeded_and_heavier_classes_win(name):
    rows, targets = np.zeros((40, 1)), np.repeat([0, 1], [30, 10])
    options = ForestOptions(trees=20, rounds=5)

    def grown(weights, seed=0):
        return fit_forest(name, rows, targets, np.array(weights), options=options, seed=seed)

    assert forest_probabilities(grown([1.0, 1.0]), rows[:1])[0, 0] > 0.6
    assert forest_probabilities(grown([1.0, 9.0]), rows[:1])[0, 0] < 0.4
    again = drawn(40, 3, 0)
    one, two = (fit_forest(name, again, targets, np.ones(2), options=options, seed=3) for _ in range(2))
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_a_column_without_numbers_and_infinite_values_count_as_missing():
    rows, targets = drawn(40, 3, 5), targets_of(40, 2, 5)
    rows[:, 1] = np.nan
    arrays = fit_forest("random-forest", rows, targets, np.ones(2), options=ForestOptions(trees=5), seed=0)
    new, gone = drawn(4, 3, 6, 0), drawn(4, 3, 6, 0)
    new[:, 0], gone[:, 0] = [np.inf, -np.inf, 1e300, -1e300], np.nan
    np.testing.assert_array_equal(forest_probabilities(arrays, new), forest_probabilities(arrays, gone))
    assert forest_probabilities(arrays, np.zeros((0, 3))).shape == (0, 2)


@pytest.mark.parametrize("harm", ["loop", "outside", "column", "shape", "type", "roots"])
def test_arrays_that_are_no_trees_are_refused(harm):
    rows, targets = drawn(40, 2, 5, 0), targets_of(40, 2, 5)
    arrays = fit_forest("random-forest", rows, targets, np.ones(2), options=ForestOptions(trees=2), seed=0)
    inner = int(np.flatnonzero(arrays["forest.feature"] >= 0)[-1])
    if harm == "loop":
        arrays["forest.children"][inner, 0] = inner
    elif harm == "outside":
        arrays["forest.children"][inner, 1] = len(arrays["forest.feature"])
    elif harm == "column":
        arrays["forest.feature"][inner] = 2
    elif harm == "shape":
        arrays["forest.missing"] = arrays["forest.missing"][:-1]
    elif harm == "type":
        arrays["forest.children"] = arrays["forest.children"].astype(np.float32)
    else:
        arrays["forest.first"][1] = 0
    with pytest.raises(ValueError, match="forest"):
        check_forest(arrays, 2, 2)


def table():
    columns = {
        "label": [1, 2],
        **{name: [0.5, 1.5] for name in ("z", "y", "x", "y_um", "box_y_start", "box_x_stop", "prob_a", "class_prob")},
        "area": [10, 20],
        "area_um2": [1.0, 2.0],
        "only_um": [3.0, None],
        "intensity_mean_a": [1.5, float("inf")],
        "touches_edge": [True, False],
        "patch_cropped": [True, False],
        "class": ["a", "b"],
    }
    return pyarrow.table(columns)


def test_columns_say_what_an_object_is_not_where_it_is_or_what_was_said_of_it():
    assert feature_columns(table()) == ("area", "only_um", "intensity_mean_a")
    rows = feature_rows(table(), ("intensity_mean_a", "area", "only_um"))
    np.testing.assert_array_equal(rows, [[1.5, 10, 3], [np.nan, 20, np.nan]])


def test_a_missing_column_is_named_in_one_line():
    with pytest.raises(InputError, match="a table without column solidity and 1 more; expected: the columns") as caught:
        feature_rows(table(), ("area", "solidity", "extent"))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="column class of type string; expected: numbers"):
        feature_rows(table(), ("class",))
