"""Corrected counts: the estimate against sums by hand, its interval against simulated people, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.objects.annotation.examples import Mark
from sketchscale.objects.annotation.review import check_random, estimate, passed_over

FOUR = [[0.95, 0.03, 0.015, 0.005], [0.05, 0.9, 0.04, 0.01], [0.02, 0.05, 0.92, 0.01], [0.05, 0.05, 0.1, 0.8]]
SETTINGS = {
    "two classes": ([1000, 1000], [[0.9, 0.1], [0.1, 0.9]], 100),
    "a rare class": ([9800, 200], [[0.995, 0.005], [0.3, 0.7]], 300),
    "four classes, one rare": ([5000, 3000, 1900, 100], FOUR, 100),
    "four classes, larger sample": ([5000, 3000, 1900, 100], FOUR, 200),
    "a poor classifier": ([600, 1400], [[0.6, 0.4], [0.45, 0.55]], 60),
    "half of all judged": ([60, 90, 50], [[0.8, 0.1, 0.1], [0.1, 0.85, 0.05], [0.1, 0.2, 0.7]], 100),
    "six classes": ([2000, 2000, 2000, 2000, 2000, 200], (np.eye(6) * 0.85 + 0.025).tolist(), 150),
    "often an empty stratum": (
        [4000, 3900, 60, 40],
        [[0.96, 0.02, 0.01, 0.01], [0.03, 0.95, 0.01, 0.01], [0.1, 0.1, 0.7, 0.1], [0.2, 0.1, 0.1, 0.6]],
        80,
    ),
}


def people(sizes, shares, n, rng):
    """True objects by (predicted, true) class, and a random sample of n of them."""
    truth = np.array([rng.multinomial(size, share) for size, share in zip(sizes, shares, strict=True)])
    return truth, rng.multivariate_hypergeometric(truth.ravel(), n).reshape(truth.shape)


def reviewed(truth, sample, **more):
    names = [f"c{i}" for i in range(len(truth))]
    judged = {(names[j], names[k]): int(sample[j, k]) for j in range(len(names)) for k in range(len(names))}
    return estimate(dict(zip(names, truth.sum(axis=1).tolist(), strict=True)), judged, **more)


def coverage(name, repeats, draws):
    """Share of intervals that hold the truth: of each class, then of the accuracy; and how wide they are."""
    sizes, shares, n = SETTINGS[name]
    holds, widths = [], []
    for seed in range(repeats):
        truth, sample = people(sizes, shares, n, np.random.default_rng(seed))
        found = reviewed(truth, sample, draws=draws)
        correct = np.trace(truth) / truth.sum()
        rows = [(c.low, c.high) for c in found.classes if c.name != "none"]
        holds.append([a <= t <= b for (a, b), t in zip(rows, truth.sum(axis=0), strict=True)])
        holds[-1].append(found.accuracy[1] <= correct <= found.accuracy[2])
        widths.append([b - a for a, b in rows])
    return np.mean(holds, axis=0), np.mean(widths, axis=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_intervals_hold_the_truth_about_as_often_as_they_say(name):
    """95 % intervals; with 150 simulated people one class's share is itself known to 4 %, the mean of all better."""
    held, _ = coverage(name, 150, 1000)
    assert held.min() >= 0.89
    assert 0.93 <= held.mean() <= 0.99


@pytest.mark.nightly
@pytest.mark.parametrize("name", SETTINGS)
def test_intervals_hold_the_truth_in_many_repeats(name):
    held, _ = coverage(name, 2000, 2000)
    assert held.min() >= 0.925
    assert held.mean() <= 0.985


def test_a_larger_sample_gives_narrower_intervals():
    few, many = (coverage(f"four classes, {name}", 20, 500)[1] for name in ("one rare", "larger sample"))
    assert (many < 0.85 * few).all()


def test_nothing_is_left_to_doubt_when_all_were_judged():
    truth, sample = people(*SETTINGS["half of all judged"][:2], 200, np.random.default_rng(0))
    np.testing.assert_array_equal(truth, sample)
    found = reviewed(truth, sample)
    for one, true in zip(found.classes, [*truth.sum(axis=0), 0], strict=True):
        assert one.low == one.estimate == one.high == true
    assert found.accuracy[0] == pytest.approx(np.trace(truth) / 200)
    assert found.total == (200, 200, 200)


def test_the_estimate_is_the_sum_over_strata():
    judged = {("a", "a"): 8, ("a", "b"): 2, ("b", "b"): 3, ("b", "unsure"): 1, ("b", "none"): 1}
    found = estimate({"a": 100, "b": 50}, judged, {"a": 7, "b": 3})
    by_name = {one.name: one for one in found.classes}
    assert [one.name for one in found.classes] == ["a", "b", "none"]
    assert by_name["a"].estimate == pytest.approx(7 + 100 * 0.8)
    assert by_name["b"].estimate == pytest.approx(3 + 100 * 0.2 + 50 * 0.6)
    assert by_name["none"].estimate == pytest.approx(50 * 0.4)
    assert (by_name["a"].predicted, by_name["b"].predicted, by_name["none"].predicted) == (107, 53, 0)
    assert found.total[0] == pytest.approx(140)
    assert found.accuracy[0] == pytest.approx((100 * 0.8 + 50 * 0.6) / 150)
    assert found.confusion == (("a", "a", 8), ("a", "b", 2), ("b", "b", 3), ("b", "none", 2))
    assert (found.judged, found.population, found.annotated) == (15, 150, 10)


def test_a_class_of_which_none_was_judged_keeps_most_of_its_objects():
    found = estimate({"a": 1000, "rare": 4}, {("a", "a"): 48, ("a", "rare"): 2})
    rare = found.classes[1]
    assert rare.estimate == pytest.approx(1000 * 2 / 50 + 4 * 49 / 52)
    assert rare.low < rare.estimate < rare.high
    assert sum(one.estimate for one in found.classes) == pytest.approx(1004)


def test_a_class_that_the_classifier_does_not_have_is_counted():
    found = estimate({"a": 100, "b": 100}, {("a", "a"): 18, ("a", "new"): 2, ("b", "b"): 20})
    assert {one.name: one.estimate for one in found.classes} == {"a": 90, "b": 100, "new": 10, "none": 0}


def test_that_nobody_said_none_does_not_prove_it():
    found = estimate({"a": 1000}, {("a", "a"): 50})
    none = found.classes[-1]
    assert (none.estimate, none.low) == (0, 0)
    assert 20 < none.high < 100
    assert found.total[1] == pytest.approx(1000 - none.high)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_names_of_classes_and_order_of_counts_are_of_no_matter(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 5))
    truth, sample = people(rng.integers(20, 300, k), rng.dirichlet(np.ones(k), k), 40, rng)
    found = reviewed(truth, sample, draws=400)
    assert sum(one.estimate for one in found.classes) == pytest.approx(truth.sum())
    for one in found.classes:
        assert one.judged <= one.low + 1e-9
        assert one.low <= one.estimate <= one.high <= truth.sum() - sample.sum() + one.judged + 1e-9
    assert 0 <= found.accuracy[1] <= found.accuracy[0] <= found.accuracy[2] <= 1
    assert reviewed(truth, sample, draws=400) == found
    order = rng.permutation(k)
    turned = reviewed(truth[np.ix_(order, order)], sample[np.ix_(order, order)], draws=400)
    for i, j in enumerate(order):
        assert turned.classes[i].estimate == pytest.approx(found.classes[j].estimate)


def row(**values):
    return Mark(name="a", label=1, row={k: str(v) for k, v in values.items()}, where="judged.csv, line 2")


def test_only_random_objects_can_be_counted_from():
    check_random([row(reason="random"), row(reason=""), row(), Mark(name="a", label=1)])
    for reason in ("uncertainty", "diversity", "uncertainty and diversity"):
        with pytest.raises(
            InputError, match=f"line 2: an object chosen by {reason}; expected: objects drawn at random"
        ):
            check_random([row(reason="random"), row(reason=reason)])


def test_passing_over_is_counted_and_stopping_early_is_not():
    assert passed_over([row(rank=i) for i in (1, 2, 3)]) == 0
    assert passed_over([row(rank=i) for i in (1, 2, 6, 6)]) == 3
    assert passed_over([row()]) == 0


def test_what_cannot_be_estimated_is_one_line():
    with pytest.raises(InputError, match="no judged object"):
        estimate({"a": 5}, {})
    with pytest.raises(InputError, match="more judged than predicted objects of class a"):
        estimate({"a": 5, "b": 9}, {("a", "a"): 6})
