"""How well predicted labels agree with true ones, from one streamed table of overlaps.

Every figure here is a function of how many pixels each (true id, predicted id) pair shares. That table is a sum over
pixels, so it is counted box by box and added, and the scores of an image never depend on how it was cut:

    1. `count_overlaps(truth, predicted)`  per box     unique pairs and their pixels
    2. `combine_overlaps(parts)`           any order   addition
    3. `score_overlaps(overlaps)`          once        matching and all figures

Ids are names: they may have gaps, and renaming them changes nothing (one exception, AJI under exact ties, is stated at
`Scores`). 0 is background on both sides. Two objects match when an optimal one-to-one assignment pairs them and their
intersection over union (IoU) reaches the threshold. Nothing to find and nothing found is a perfect answer: every share
is 1. Only one side empty: every share is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from sketchscale.errors import InputError

__all__ = [
    "THRESHOLDS",
    "Matching",
    "Overlaps",
    "Scores",
    "combine_overlaps",
    "count_overlaps",
    "join_images",
    "match_objects",
    "score_labels",
    "score_overlaps",
]

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""0.5, 0.55 ... 0.95, as the nearest doubles, so that an IoU of exactly 11/20 reaches 0.55."""

Ids = npt.NDArray[np.uint64]
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlaps:
    """Pixels shared by each pair of ids that meet, background included; sorted by (truth, predicted), each pair once.

    Attributes:
        truth, predicted: (k,) ids, 0 is background.
        pixels: (k,) how many pixels have both, > 0.
    """

    truth: Ids
    predicted: Ids
    pixels: Counts


def count_overlaps(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> Overlaps:
    """The overlaps inside one box, or in a whole image.

    Args:
        truth, predicted: label arrays of one shape, any integer type, no negative ids, 0 background. May be empty.

    Raises:
        InputError: the shapes differ, or labels are not integers, or an id is negative.

    >>> count_overlaps(np.array([[0, 7, 7]]), np.array([[0, 0, 3]])).pixels.tolist()
    [1, 1, 1]
    """
    _check_labels(truth, predicted)
    true, pred = truth.ravel(), predicted.ravel()
    # Labels are constant along most of a row: sorting runs instead of pixels is some twenty times less work.
    changes = np.flatnonzero((true[1:] != true[:-1]) | (pred[1:] != pred[:-1])) + 1
    starts = np.concatenate([np.zeros(min(1, true.size), np.int64), changes])
    lengths = np.diff(starts, append=true.size)
    return _add_up(true[starts].astype(np.uint64), pred[starts].astype(np.uint64), lengths.astype(np.int64))


def _check_labels(truth: npt.NDArray[Any], predicted: npt.NDArray[Any]) -> None:
    if truth.shape != predicted.shape:
        raise InputError.of(
            found=f"true labels of shape {truth.shape}, predicted ones of {predicted.shape}",
            expected="one shape",
            fix="evaluate the level and the region that were annotated",
        )
    for name, labels in (("true", truth), ("predicted", predicted)):
        if labels.dtype.kind not in "iub" or (labels.dtype.kind == "i" and labels.size and labels.min() < 0):
            raise InputError.of(
                found=f"{name} labels of type {labels.dtype}, with fractions or negative ids",
                expected="integer ids, 0 for background",
                fix="convert the label image",
            )


def combine_overlaps(parts: Iterable[Overlaps]) -> Overlaps:
    """The overlaps of all boxes together; the order of the parts does not matter. No parts: an empty table.

    >>> part = count_overlaps(np.array([1, 1]), np.array([2, 2]))
    >>> combine_overlaps([part, part]).pixels.tolist()
    [4]
    """
    listed = list(parts)
    return _add_up(
        np.concatenate([np.zeros(0, np.uint64), *(p.truth for p in listed)]),
        np.concatenate([np.zeros(0, np.uint64), *(p.predicted for p in listed)]),
        np.concatenate([np.zeros(0, np.int64), *(p.pixels for p in listed)]),
    )


def join_images(images: Iterable[Overlaps]) -> Overlaps:
    """The overlaps of several images as if they were one; equal ids of different images stay different objects.

    >>> one = count_overlaps(np.array([0, 1]), np.array([0, 1]))
    >>> score_overlaps(join_images([one, one])).n_true
    2
    """
    parts, true_ids, pred_ids = [], 0, 0
    for image in images:
        true_names, truth = np.unique(image.truth, return_inverse=True)
        pred_names, predicted = np.unique(image.predicted, return_inverse=True)
        parts.append(
            Overlaps(
                truth=_renamed(image.truth, truth, true_ids),
                predicted=_renamed(image.predicted, predicted, pred_ids),
                pixels=image.pixels,
            )
        )
        true_ids += len(true_names)
        pred_ids += len(pred_names)
    return combine_overlaps(parts)


def _renamed(ids: Ids, position: npt.NDArray[np.intp], taken: int) -> Ids:
    return np.where(ids == 0, 0, position + 1 + taken).astype(np.uint64)


def _add_up(truth: Ids, predicted: Ids, pixels: Counts) -> Overlaps:
    order = np.lexsort((predicted, truth))
    truth, predicted, pixels = truth[order], predicted[order], pixels[order]
    fresh = np.ones(len(truth), bool)
    fresh[1:] = (truth[1:] != truth[:-1]) | (predicted[1:] != predicted[:-1])
    starts = np.flatnonzero(fresh)
    sums = np.add.reduceat(pixels, starts) if len(starts) else pixels
    return Overlaps(truth=truth[starts], predicted=predicted[starts], pixels=sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
    """Objects that share pixels: `row` and `col` are places among the objects of each side, in order of id."""

    true_area: Counts
    pred_area: Counts
    row: npt.NDArray[np.intp]
    col: npt.NDArray[np.intp]
    shared: Counts
    union: Counts

    @property
    def iou(self) -> Floats:
        return self.shared / self.union

    @property
    def dice(self) -> Floats:
        return 2 * self.shared / (self.shared + self.union)


def _object_pairs(overlaps: Overlaps) -> _Pairs:
    true_area, row = _areas(overlaps.truth, overlaps.pixels)
    pred_area, col = _areas(overlaps.predicted, overlaps.pixels)
    both = (overlaps.truth > 0) & (overlaps.predicted > 0)
    row, col, shared = row[both], col[both], overlaps.pixels[both]
    union = true_area[row] + pred_area[col] - shared
    return _Pairs(true_area=true_area, pred_area=pred_area, row=row, col=col, shared=shared, union=union)


def _areas(ids: Ids, pixels: Counts) -> tuple[Counts, npt.NDArray[np.intp]]:
    """Areas of the objects in order of id, and for every entry its object's place there (-1 for background)."""
    names, place = np.unique(ids, return_inverse=True)
    # int64 throughout: bincount with weights would add in doubles.
    area = np.zeros(len(names), np.int64)
    np.add.at(area, place, pixels)
    background = int(len(names) > 0 and names[0] == 0)
    return area[background:], place - background


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """One-to-one matches at one threshold.

    Attributes:
        threshold: smallest accepted IoU.
        tp, fp, fn: matched pairs, predicted objects without partner, true objects without partner.
        sum_iou, sum_dice: over the matched pairs.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    sum_iou: float
    sum_dice: float

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN), which the field calls average precision, accuracy or Jaccard index of objects."""
        return self._share(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        return self._share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return self._share(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """Also the detection quality DQ of panoptic quality."""
        return self._share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the matched pairs: StarDist's mean matched score, and the segmentation quality SQ."""
        return self._share(self.sum_iou, self.tp)

    @property
    def mean_dice(self) -> float:
        """Mean Dice of the matched pairs."""
        return self._share(self.sum_dice, self.tp)

    @property
    def pq(self) -> float:
        """Panoptic quality: sum of matched IoU / (TP + FP/2 + FN/2) = DQ x SQ."""
        return self._share(2 * self.sum_iou, 2 * self.tp + self.fp + self.fn)

    def _share(self, part: float, of: float) -> float:
        if self.tp + self.fp + self.fn == 0:
            return 1.0
        return part / of if of else 0.0


def match_objects(overlaps: Overlaps, threshold: float) -> Matching:
    """Match true and predicted objects one to one.

    The assignment minimises the sum of -(IoU >= threshold) - IoU / (2 min(n_true, n_pred)): first as many accepted
    pairs as possible, then the largest IoU. It is solved on the pairs that share pixels only.

    Args:
        threshold: in (0, 1].

    Raises:
        InputError: the threshold is outside (0, 1].

    Source: matching of StarDist (Weigert et al.), whose figures these are, except that 0 / 0 is 1 when both are empty.

    >>> match_objects(count_overlaps(np.array([1, 1, 2]), np.array([5, 5, 0])), 0.5).fn
    1
    """
    return _match(_object_pairs(overlaps), threshold)


def _match(pairs: _Pairs, threshold: float) -> Matching:
    if not 0 < threshold <= 1:
        raise InputError.of(found=f"an IoU threshold of {threshold}", expected="a number in (0, 1]", fix="use 0.5")
    n_true, n_pred = len(pairs.true_area), len(pairs.pred_area)
    iou = pairs.iou
    # From 1/2 on, two accepted pairs can only compete when both have an IoU of exactly 1/2 (disjoint objects that each
    # cover half of a third), so the pairs below the threshold cannot change the result and are left out.
    edges = np.flatnonzero(iou >= threshold) if threshold >= 0.5 else np.arange(len(iou))
    gain = (iou >= threshold) + iou / (2 * max(1, min(n_true, n_pred)))
    chosen = edges[_best_assignment(pairs.row[edges], pairs.col[edges], gain[edges])]
    accepted = chosen[iou[chosen] >= threshold]
    return Matching(
        threshold=threshold,
        tp=len(accepted),
        fp=n_pred - len(accepted),
        fn=n_true - len(accepted),
        sum_iou=float(np.sort(iou[accepted]).sum()),
        sum_dice=float(np.sort(pairs.dice[accepted]).sum()),
    )


def _best_assignment(row: npt.NDArray[np.intp], col: npt.NDArray[np.intp], gain: Floats) -> npt.NDArray[np.intp]:
    """Indices of the edges of a one-to-one assignment with the largest sum of gains (all >= 0, at most 2).

    Edges that compete with no other are taken at once; a sparse Jonker-Volgenant solver does the rest. It wants every
    row matched, so each row also has a private column that gains nothing.
    """
    alone = (np.bincount(row)[row] == 1) & (np.bincount(col)[col] == 1) if len(row) else np.zeros(0, bool)
    contested = np.flatnonzero(~alone)
    if not len(contested):
        return np.flatnonzero(alone)
    _, r = np.unique(row[contested], return_inverse=True)
    columns, c = np.unique(col[contested], return_inverse=True)
    private = np.arange(r.max() + 1)
    cost = np.concatenate([3.0 - gain[contested], np.full(len(private), 3.0)])
    places = np.concatenate([r, private]), np.concatenate([c, len(columns) + private])
    graph = csr_array((cost, places), shape=(len(private), len(columns) + len(private)))
    matched_rows, matched_cols = min_weight_full_bipartite_matching(graph)
    edge_of = {pair: i for i, pair in zip(contested.tolist(), zip(r.tolist(), c.tolist(), strict=True), strict=True)}
    pairs = zip(matched_rows.tolist(), matched_cols.tolist(), strict=True)
    taken = np.array(sorted(edge_of[pair] for pair in pairs if pair in edge_of), np.intp)
    return np.sort(np.concatenate([np.flatnonzero(alone), taken]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All figures of one comparison.

    Attributes:
        matchings: one for each IoU threshold, ascending.
        n_true, n_pred: objects on each side.
        dice, jaccard: of the two foregrounds, pixel by pixel: 2|A n B| / (|A| + |B|) and |A n B| / |A u B|.
        matched_dice, matched_jaccard: means over the object pairs matched at the lowest threshold.
        aji: aggregated Jaccard index: each true object takes its predicted object of largest IoU, and one predicted
            object may serve several; shared pixels / (unions + areas of all others). On equal IoU the lower id wins:
            the one figure here that could notice renamed ids.
        aji_plus: the same with the one-to-one assignment of largest total IoU.
    """

    matchings: tuple[Matching, ...]
    n_true: int
    n_pred: int
    dice: float
    jaccard: float
    matched_dice: float
    matched_jaccard: float
    aji: float
    aji_plus: float

    @property
    def count_error(self) -> float:
        """(n_pred - n_true) / n_true; with nothing to find, the number of objects found."""
        return (self.n_pred - self.n_true) / max(1, self.n_true)

    def at(self, threshold: float) -> Matching:
        """The matching at one of the thresholds.

        Raises:
            InputError: it was not computed at this threshold.
        """
        for matching in self.matchings:
            if matching.threshold == threshold:
                return matching
        known = ", ".join(f"{m.threshold:g}" for m in self.matchings)
        raise InputError.of(found=f"an IoU threshold of {threshold}", expected=f"one of {known}", fix="choose one")

    def as_dict(self) -> dict[str, Any]:
        """For JSON: figures by IoU threshold are objects keyed "0.5" ... "0.95"; every number is finite.

        >>> score_labels(np.array([[0, 1]]), np.array([[0, 9]])).as_dict()["ap"]["0.5"]
        1.0
        """
        curves = {
            name: {f"{m.threshold:g}": float(getattr(m, attribute)) for m in self.matchings}
            for name, attribute in _CURVES.items()
        }
        single = {name: getattr(self, name) for name in _SINGLE}
        counts = {name: {f"{m.threshold:g}": getattr(m, name) for m in self.matchings} for name in ("tp", "fp", "fn")}
        mean_ap = sum(curves["ap"].values()) / max(1, len(self.matchings))
        return {"n_true": self.n_true, "n_pred": self.n_pred, **curves, "ap_mean": mean_ap, **single, **counts}


_CURVES = {
    "ap": "ap",
    "f1": "f1",
    "precision": "precision",
    "recall": "recall",
    "mean_matched_score": "mean_iou",
    "pq": "pq",
    "dq": "f1",
    "sq": "mean_iou",
}
"""Name in the output to property of a Matching: both the words of StarDist and those of panoptic quality."""

_SINGLE = ("dice", "jaccard", "matched_dice", "matched_jaccard", "aji", "aji_plus", "count_error")


def score_overlaps(overlaps: Overlaps, thresholds: Sequence[float] = THRESHOLDS) -> Scores:
    """Every figure, from the overlaps of a whole image (or of several, see `join_images`).

    Args:
        thresholds: IoU thresholds in (0, 1], at least one.

    Raises:
        InputError: no threshold, or one outside (0, 1].

    Source: AP and matching: StarDist; PQ: Kirillov et al. 2019; AJI: Kumar et al. 2017; AJI+: Graham et al. 2019.

    >>> score_overlaps(count_overlaps(np.array([1, 1]), np.array([1, 0]))).jaccard
    0.5
    """
    if not len(thresholds):
        raise InputError.of(found="no IoU threshold", expected="at least one", fix="leave the default")
    pairs = _object_pairs(overlaps)
    matchings = tuple(_match(pairs, float(t)) for t in sorted(thresholds))
    shared = int(pairs.shared.sum())
    true_area, pred_area = int(pairs.true_area.sum()), int(pairs.pred_area.sum())
    return Scores(
        matchings=matchings,
        n_true=len(pairs.true_area),
        n_pred=len(pairs.pred_area),
        dice=_ratio(2 * shared, true_area + pred_area),
        jaccard=_ratio(shared, true_area + pred_area - shared),
        matched_dice=matchings[0].mean_dice,
        matched_jaccard=matchings[0].mean_iou,
        aji=_aggregated_jaccard(pairs, _best_of_each_row(pairs)),
        aji_plus=_aggregated_jaccard(pairs, _best_assignment(pairs.row, pairs.col, pairs.iou)),
    )


def _best_of_each_row(pairs: _Pairs) -> npt.NDArray[np.intp]:
    """For each true object that overlaps something, the edge of largest IoU; on ties the lower predicted id."""
    order = np.lexsort((pairs.col, -pairs.iou, pairs.row))
    first = np.ones(len(order), bool)
    first[1:] = pairs.row[order][1:] != pairs.row[order][:-1]
    return order[first]


def _aggregated_jaccard(pairs: _Pairs, edges: npt.NDArray[np.intp]) -> float:
    true_left = np.ones(len(pairs.true_area), bool)
    pred_left = np.ones(len(pairs.pred_area), bool)
    true_left[pairs.row[edges]] = False
    pred_left[pairs.col[edges]] = False
    unpaired = int(pairs.true_area[true_left].sum()) + int(pairs.pred_area[pred_left].sum())
    return _ratio(int(pairs.shared[edges].sum()), int(pairs.union[edges].sum()) + unpaired)


def _ratio(part: int, of: int) -> float:
    """Only an image without any object has nothing to divide by: a perfect answer."""
    return part / of if of else 1.0


def score_labels(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], thresholds: Sequence[float] = THRESHOLDS
) -> Scores:
    """`score_overlaps` of two label arrays in memory.

    >>> score_labels(np.array([[1, 1, 0, 2]]), np.array([[4, 4, 0, 0]])).as_dict()["ap"]["0.5"]
    0.5
    """
    return score_overlaps(count_overlaps(truth, predicted), thresholds)
