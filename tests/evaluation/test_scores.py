"""Metrics: against brute force, at any cut, under renamed ids, flips and exchanged sides."""

from __future__ import annotations

import itertools
import json
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import sketchscale.evaluation
from sketchscale.errors import InputError
from sketchscale.evaluation import (
    THRESHOLDS,
    Overlaps,
    combine_overlaps,
    count_overlaps,
    join_images,
    match_objects,
    mean_figures,
    score_labels,
    score_overlaps,
)
from sketchscale.evaluation.matching import best_assignment, object_pairs
from sketchscale.geometry import tile_cover
from tests.oracles import metrics as oracle

PLAIN = ("n_true", "n_pred", "dice", "jaccard", "matched_dice", "matched_jaccard")


def test_no_module_hides_a_function_of_the_package():
    modules = {module.name for module in pkgutil.iter_modules(sketchscale.evaluation.__path__)}
    assert not modules & set(sketchscale.evaluation.__all__)


@st.composite
def label_pairs(draw, ids=6):
    """Two label maps of one shape: blobs of random ids, the second a disturbed copy of the first, with gaps in ids."""
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))
    truth = draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, ids)))
    keep = draw(hnp.arrays(np.bool_, shape))
    other = draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, ids)))
    return truth * 3, np.where(keep, truth * 70, other * 70).astype(np.uint32)


def figures(scores, names=PLAIN):
    return [getattr(scores, name) for name in names] + [
        (m.tp, m.fp, m.fn, pytest.approx(m.sum_iou), pytest.approx(m.sum_dice)) for m in scores.matchings
    ]


DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "stardist_matching.json").read_text())
SHARES = {"precision": "precision", "recall": "recall", "ap": "accuracy", "f1": "f1"}


def golden_pair(name):
    with np.load(DATA / "stardist_matching.npz") as arrays:
        return arrays[f"{name}/t"], arrays[f"{name}/p"]


@pytest.mark.parametrize("name", GOLDEN["pairs"])
def test_figures_are_those_stardist_printed(name):
    """Counts and shares to the last bit; sums of IoU to 1e-12, and to 1e-6 of its own, which are float32."""
    overlaps = count_overlaps(*golden_pair(name))
    for wanted in GOLDEN["pairs"][name]:
        matching = match_objects(overlaps, wanted["threshold"])
        assert {k: getattr(matching, k) for k in ("tp", "fp", "fn")} == {k: wanted[k] for k in ("tp", "fp", "fn")}
        if name == "both empty":
            continue
        assert {k: getattr(matching, k) for k in SHARES} == {k: wanted[v] for k, v in SHARES.items()}
        assert matching.sum_iou == pytest.approx(wanted["sum_iou"], rel=1e-12)
        assert matching.mean_iou == pytest.approx(wanted["sum_iou"] / max(1, matching.tp), rel=1e-12)
        assert matching.mean_iou == pytest.approx(wanted["mean_matched_score"], rel=1e-6)
        assert matching.pq == pytest.approx(wanted["panoptic_quality"], rel=1e-6)


def test_means_over_images_are_stardists_but_for_images_without_any_object():
    scores = [score_overlaps(count_overlaps(*golden_pair(name)), (0.5, 0.75, 0.95)) for name in GOLDEN["pairs"]]
    means, n = mean_figures(scores), len(scores)
    for threshold in ("0.5", "0.75", "0.95"):
        for ours, theirs in SHARES.items():
            both_empty_as_zero = means[ours][threshold] - 1 / n
            assert both_empty_as_zero == pytest.approx(GOLDEN["by_image"][threshold][theirs], rel=1e-12)


def test_means_over_images_count_images_and_pooled_figures_count_objects():
    few, many = np.array([[1, 0]]), np.arange(1, 10)[None]
    parts = [count_overlaps(few, 0 * few), count_overlaps(many, many)]
    means = mean_figures([score_overlaps(part) for part in parts])
    assert (means["images"], means["ap"]["0.5"], means["count_error_absolute"]) == (2, 0.5, 0.5)
    assert score_overlaps(join_images(parts)).at(0.5).ap == 0.9
    with pytest.raises(InputError, match="the same thresholds"):
        mean_figures([score_overlaps(parts[0]), score_overlaps(parts[1], (0.5,))])
    with pytest.raises(InputError, match="at least one"):
        mean_figures([])


@settings(max_examples=50, deadline=None)
@given(st.lists(label_pairs(), min_size=1, max_size=4))
def test_pooled_images_score_as_one_image_with_ids_of_their_own(pairs):
    """The oracle puts the images side by side, each with a thousand ids more than the one before."""
    truths, preds = ([np.where(p[s] > 0, p[s] + 10_000 * i, 0).ravel() for i, p in enumerate(pairs)] for s in (0, 1))
    side_by_side = score_labels(np.concatenate(truths), np.concatenate(preds))
    assert score_overlaps(join_images([count_overlaps(*pair) for pair in pairs])) == side_by_side


@settings(max_examples=25, deadline=None)
@given(label_pairs(), st.lists(st.integers(1, 2**64 - 1), min_size=6, max_size=6, unique=True))
def test_ids_of_64_bits_with_gaps_change_nothing(pair, names):
    table = np.array([0, *sorted(names)], np.uint64)
    big = table[pair[0] // 3], table[pair[1] // 70]
    assert score_labels(*big) == score_labels(*pair)


@settings(max_examples=25, deadline=None)
@given(label_pairs(), st.integers(1, 3))
def test_volumes_score_as_their_voxels_do(pair, depth):
    volume = [np.repeat(labels[None], depth, 0) for labels in pair]
    flat = [labels.reshape(1, -1) for labels in volume]
    assert score_labels(*volume) == score_labels(*flat)
    assert score_labels(*volume).n_true == score_labels(*pair).n_true


@settings(max_examples=50, deadline=None)
@given(label_pairs(), st.sampled_from((0.1, *THRESHOLDS)))
def test_panoptic_quality_is_detection_times_segmentation(pair, threshold):
    tp, fp, fn, sum_iou = oracle.stardist_matching(*pair, threshold)
    everything = score_labels(*pair, (threshold,)).as_dict()
    key = f"{threshold:g}"
    if tp + fp + fn:
        assert everything["pq"][key] == pytest.approx(sum_iou / (tp + fp / 2 + fn / 2))
    assert everything["pq"][key] == pytest.approx(everything["dq"][key] * everything["sq"][key])


def test_count_errors_say_which_way_how_many_and_how_much():
    everything = score_labels(np.array([[1, 2, 3, 4]]), np.array([[1, 1, 1, 0]])).as_dict()
    assert everything["count_error_signed"] == -3
    assert everything["count_error_absolute"] == 3
    assert everything["count_error"] == -0.75


@settings(max_examples=50, deadline=None)
@given(label_pairs(), st.sampled_from((0.05, 0.1, 0.3, *THRESHOLDS, 1.0)))
def test_matching_is_stardists_on_the_dense_matrix(pair, threshold):
    matching = match_objects(count_overlaps(*pair), threshold)
    tp, fp, fn, sum_iou = oracle.stardist_matching(*pair, threshold)
    assert (matching.tp, matching.fp, matching.fn) == (tp, fp, fn)
    assert matching.sum_iou == pytest.approx(sum_iou)


@settings(max_examples=50, deadline=None)
@given(label_pairs())
def test_pixel_scores_and_aji_equal_their_definitions(pair):
    scores = score_labels(*pair)
    assert (scores.dice, scores.jaccard) == pytest.approx(oracle.pixel_scores(*pair))
    assert scores.aji == pytest.approx(oracle.aggregated_jaccard(*pair))


@settings(max_examples=50, deadline=None)
@given(label_pairs())
def test_aji_plus_rests_on_the_best_one_to_one_assignment(pair):
    pairs = object_pairs(count_overlaps(*pair))
    edges = best_assignment(pairs.row, pairs.col, pairs.iou)
    assert len(set(pairs.row[edges])) == len(set(pairs.col[edges])) == len(edges)
    assert pairs.iou[edges].sum() == pytest.approx(oracle.best_one_to_one_iou(*pair))


@settings(max_examples=50, deadline=None)
@given(label_pairs(), st.integers(1, 5), st.integers(1, 5), st.randoms())
def test_overlaps_counted_in_any_blocks_and_order_are_those_of_the_whole(pair, y, x, random):
    parts = [
        count_overlaps(pair[0][t.write.slices], pair[1][t.write.slices]) for t in tile_cover(pair[0].shape, (y, x))
    ]
    random.shuffle(parts)
    whole, joined = count_overlaps(*pair), combine_overlaps(parts)
    for name in ("truth", "predicted", "pixels"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


@pytest.mark.parametrize("names", list(itertools.permutations((1, 2, 3))))
def test_numbers_of_objects_do_not_decide_between_assignments_of_equal_iou(names):
    truth = np.array([[0, 3, 0, 1, 1, 1], [3, 1, 1, 0, 3, 3], [1, 2, 0, 1, 2, 3]])
    predicted = np.array([[1, 3, 1, 3, 3, 0], [1, 3, 1, 1, 1, 3], [3, 3, 3, 1, 0, 2]])
    assert score_labels(truth, np.array([0, *names])[predicted]).aji_plus == 0.25


@settings(max_examples=25, deadline=None)
@given(label_pairs(), st.permutations(range(1, 7)))
def test_renamed_ids_change_nothing(pair, names):
    table = np.array([0, *names], np.uint32) * 1000
    renamed = table[pair[0] // 3], table[pair[1] // 70]
    assert figures(score_labels(*renamed)) == figures(score_labels(*pair))


@settings(max_examples=25, deadline=None)
@given(label_pairs())
def test_flips_and_transposes_change_nothing(pair):
    scores = score_labels(*pair)
    for moved in ([a[::-1] for a in pair], [a[:, ::-1] for a in pair], [a.T for a in pair]):
        assert score_labels(*moved) == scores


@settings(max_examples=25, deadline=None)
@given(label_pairs())
def test_exchanging_the_sides_exchanges_precision_and_recall(pair):
    here, there = score_labels(*pair), score_labels(*pair[::-1])
    assert (here.dice, here.jaccard, here.n_true) == (there.dice, there.jaccard, there.n_pred)
    for a, b in zip(here.matchings, there.matchings, strict=True):
        assert (a.precision, a.recall, a.ap) == (b.recall, b.precision, b.ap)
        assert a.pq == pytest.approx(b.pq)


@settings(max_examples=25, deadline=None)
@given(label_pairs())
def test_every_image_agrees_perfectly_with_itself(pair):
    scores = score_labels(pair[0], pair[0])
    everything = scores.as_dict()
    assert set(everything["ap"].values()) == {1.0}
    assert (scores.dice, scores.aji, scores.aji_plus, scores.matchings[-1].pq) == (1.0, 1.0, 1.0, 1.0)


def test_nothing_to_find_and_nothing_found_is_perfect():
    empty = np.zeros((4, 4), np.uint8)
    everything = score_labels(empty, empty).as_dict()
    assert everything["ap"]["0.5"] == everything["dice"] == everything["aji"] == everything["pq"]["0.95"] == 1.0
    assert everything["n_true"] == everything["n_pred"] == everything["count_error"] == 0


@pytest.mark.parametrize("side", [0, 1])
def test_one_empty_side_scores_zero_without_a_nan(side):
    pair = [np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8)]
    pair[side][1:, 1:] = 5
    everything = score_labels(*pair).as_dict()
    for name in ("ap", "f1", "precision", "recall", "pq", "sq"):
        assert everything[name]["0.5"] == 0.0
    assert everything["dice"] == everything["aji"] == everything["aji_plus"] == 0.0
    json.dumps(everything, allow_nan=False)


def test_an_array_without_pixels_counts_as_empty():
    assert score_labels(np.zeros((0, 4), np.uint8), np.zeros((0, 4), np.uint8)).as_dict()["ap"]["0.5"] == 1.0


def test_two_halves_at_exactly_one_half_make_one_match():
    truth = np.ones((1, 4), np.uint8)
    predicted = np.array([[1, 1, 2, 2]], np.uint8)
    matching = match_objects(count_overlaps(truth, predicted), 0.5)
    assert (matching.tp, matching.fp, matching.fn, matching.sum_iou) == (1, 1, 0, 0.5)


def test_an_iou_of_eleven_twentieths_reaches_0_55():
    truth = np.ones((1, 20), np.uint8)
    predicted = np.where(np.arange(20) < 11, 1, 0)[None]
    assert [m.tp for m in score_labels(truth, predicted).matchings[:3]] == [1, 1, 0]


def test_output_is_keyed_by_threshold_from_0_5_to_0_95():
    everything = score_labels(np.array([[0, 1]]), np.array([[0, 1]])).as_dict()
    keys = ["0.5", "0.55", "0.6", "0.65", "0.7", "0.75", "0.8", "0.85", "0.9", "0.95"]
    assert list(everything["ap"]) == list(everything["f1"]) == keys


def test_equal_ids_of_different_images_stay_different_objects():
    one, two = np.array([[1, 1, 0]]), np.array([[0, 1, 1]])
    joined = score_overlaps(join_images([count_overlaps(one, one), count_overlaps(two, one)]))
    assert (joined.n_true, joined.n_pred, joined.at(0.5).tp) == (2, 2, 1)


def test_ids_past_32_bits_are_kept_apart():
    big = np.array([[2**33, 2**33 + 2**32, 0]], np.uint64)
    assert score_labels(big, big).n_true == 2


def test_a_sheet_of_overlapping_objects_is_solved_as_one_component():
    """Every object overlaps its neighbours, so that the overlap graph is one piece: dense matrices would be 3 GB."""
    n = 20_000
    truth = np.repeat(np.arange(1, n + 1), 5)
    predicted = np.roll(truth, 1)
    scores = score_labels(truth[None], predicted[None])
    assert scores.at(0.65).tp == n
    assert scores.aji == scores.aji_plus == pytest.approx(4 / 6)


@pytest.mark.parametrize(
    ("truth", "predicted", "words"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), "expected: one shape"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), "true labels of type float64"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), "predicted labels of type int64"),
    ],
)
def test_labels_that_are_none_are_refused_in_one_line(truth, predicted, words):
    with pytest.raises(InputError, match=words) as caught:
        score_labels(truth, predicted)
    assert "\n" not in str(caught.value)


def test_thresholds_outside_the_unit_interval_are_refused():
    overlaps = count_overlaps(np.array([1]), np.array([1]))
    for threshold in (0.0, 1.5):
        with pytest.raises(InputError, match=r"expected: a number in \(0, 1\]"):
            match_objects(overlaps, threshold)
    with pytest.raises(InputError, match="at least one"):
        score_overlaps(overlaps, [])
    with pytest.raises(InputError, match=r"one of 0\.5"):
        score_overlaps(overlaps, [0.5]).at(0.6)


def test_an_empty_table_is_a_legal_partial():
    assert combine_overlaps([]).pixels.size == 0
    part = count_overlaps(np.array([1]), np.array([2]))
    assert isinstance(combine_overlaps([combine_overlaps([]), part]), Overlaps)
