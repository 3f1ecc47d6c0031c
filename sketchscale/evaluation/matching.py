"""Match true and predicted objects one to one, on the pairs that share pixels and without a dense matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from sketchscale.errors import InputError
from sketchscale.evaluation.overlaps import Counts, Ids, Overlaps

__all__ = ["Matching", "Pairs", "best_assignment", "match_objects", "match_pairs", "object_pairs"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Objects that share pixels; `row` and `col` are positions among the objects of each side, in order of id."""

    true_area: Counts
    pred_area: Counts
    row: npt.NDArray[np.intp]
    col: npt.NDArray[np.intp]
    shared: Counts
    union: Counts

    @property
    def iou(self) -> Floats:
        """Intersection over union of each pair."""
        return self.shared / self.union

    @property
    def dice(self) -> Floats:
        """Dice coefficient of each pair."""
        return 2 * self.shared / (self.shared + self.union)


def object_pairs(overlaps: Overlaps) -> Pairs:
    """Return the pairs of objects that share a pixel, and the areas of all objects; background is left out.

    >>> from sketchscale.evaluation.overlaps import count_overlaps
    >>> object_pairs(count_overlaps(np.array([0, 7, 7]), np.array([3, 3, 3]))).union.tolist()
    [3]
    """
    true_area, row = _areas(overlaps.truth, overlaps.pixels)
    pred_area, col = _areas(overlaps.predicted, overlaps.pixels)
    both = (overlaps.truth > 0) & (overlaps.predicted > 0)
    row, col, shared = row[both], col[both], overlaps.pixels[both]
    union = true_area[row] + pred_area[col] - shared
    return Pairs(true_area=true_area, pred_area=pred_area, row=row, col=col, shared=shared, union=union)


def _areas(ids: Ids, pixels: Counts) -> tuple[Counts, npt.NDArray[np.intp]]:
    """Return the areas of the objects in order of id, and the position of each entry there (-1 for background)."""
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
        """TP / (TP + FP)."""
        return self._share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
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

    >>> from sketchscale.evaluation.overlaps import count_overlaps
    >>> match_objects(count_overlaps(np.array([1, 1, 2]), np.array([5, 5, 0])), 0.5).fn
    1
    """
    return match_pairs(object_pairs(overlaps), threshold)


def match_pairs(pairs: Pairs, threshold: float) -> Matching:
    """Match given pairs as `match_objects` does, so that ten thresholds need to find them only once.

    >>> from sketchscale.evaluation.overlaps import count_overlaps
    >>> match_pairs(object_pairs(count_overlaps(np.array([0, 7]), np.array([3, 3]))), 0.5).tp
    1
    """
    if not 0 < threshold <= 1:
        raise InputError.of(found=f"an IoU threshold of {threshold}", expected="a number in (0, 1]", fix="use 0.5")
    n_true, n_pred = len(pairs.true_area), len(pairs.pred_area)
    iou = pairs.iou
    # From 1/2 on, two accepted pairs can only compete when both have an IoU of exactly 1/2 (disjoint objects that each
    # cover half of a third), so the pairs below the threshold cannot change the result and are left out.
    edges = np.flatnonzero(iou >= threshold) if threshold >= 0.5 else np.arange(len(iou))
    gain = (iou >= threshold) + iou / (2 * max(1, min(n_true, n_pred)))
    chosen = edges[best_assignment(pairs.row[edges], pairs.col[edges], gain[edges])]
    accepted = chosen[iou[chosen] >= threshold]
    return Matching(
        threshold=threshold,
        tp=len(accepted),
        fp=n_pred - len(accepted),
        fn=n_true - len(accepted),
        sum_iou=float(np.sort(iou[accepted]).sum()),
        sum_dice=float(np.sort(pairs.dice[accepted]).sum()),
    )


def best_assignment(row: npt.NDArray[np.intp], col: npt.NDArray[np.intp], gain: Floats) -> npt.NDArray[np.intp]:
    """Return the ascending indices of the edges of a one-to-one assignment with the largest sum of gains (0 to 2 each).

    Edges that compete with no other are taken first; a sparse Jonker-Volgenant solver does the rest. It matches every
    row, so each row also has a private column without gain.

    Args:
        row, col: (k,) ends of the edges, each pair once.
        gain: (k,).

    >>> best_assignment(np.array([0, 0, 1]), np.array([0, 1, 0]), np.array([0.9, 0.5, 0.8])).tolist()
    [1, 2]
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
