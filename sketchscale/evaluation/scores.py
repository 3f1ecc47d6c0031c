"""Compute all figures of a comparison: by threshold, over the foregrounds, aggregated over objects, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.evaluation.matching import Matching, Pairs, best_assignment, match_pairs, object_pairs
from sketchscale.evaluation.overlaps import Overlaps, count_overlaps

__all__ = ["THRESHOLDS", "Scores", "mean_figures", "score_labels", "score_overlaps"]

THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""0.5, 0.55 ... 0.95, as the nearest doubles, so that an IoU of exactly 11/20 reaches 0.55."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """All figures of one comparison.

    Attributes:
        matchings: one for each IoU threshold, ascending.
        n_true, n_pred: objects on each side.
        dice, jaccard: of the pixels of the two foregrounds: 2|A n B| / (|A| + |B|) and |A n B| / |A u B|.
        matched_dice, matched_jaccard: means over the object pairs matched at the lowest threshold computed.
        aji: aggregated Jaccard index: each true object takes its predicted object of largest IoU, and one predicted
            object may serve several; shared pixels / (unions + areas of all others). On equal IoU the lower id wins,
            so this is the only figure that renamed ids can change.
        aji_plus: the same with the one-to-one assignment of largest total IoU and, among those, of most shared pixels.
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
        """Relative and signed: (n_pred - n_true) / n_true; without true objects, the number of predicted ones."""
        return (self.n_pred - self.n_true) / max(1, self.n_true)

    @property
    def count_error_signed(self) -> int:
        """n_pred - n_true, in objects."""
        return self.n_pred - self.n_true

    @property
    def count_error_absolute(self) -> int:
        """|n_pred - n_true|, in objects; unlike the signed error, it does not cancel in a mean over images."""
        return abs(self.n_pred - self.n_true)

    def at(self, threshold: float) -> Matching:
        """Return the matching at one of the thresholds.

        Raises:
            InputError: it was not computed at this threshold.
        """
        for matching in self.matchings:
            if matching.threshold == threshold:
                return matching
        known = ", ".join(f"{m.threshold:g}" for m in self.matchings)
        raise InputError.of(found=f"an IoU threshold of {threshold}", expected=f"one of {known}", fix="choose one")

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON; those by IoU threshold are objects with keys "0.5" ... "0.95"; all are finite.

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
"""Name in the output to property of a Matching, in the words of StarDist and of panoptic quality."""

_SINGLE = (
    "dice",
    "jaccard",
    "matched_dice",
    "matched_jaccard",
    "aji",
    "aji_plus",
    "count_error",
    "count_error_signed",
    "count_error_absolute",
)


def score_overlaps(overlaps: Overlaps, thresholds: Sequence[float] = THRESHOLDS) -> Scores:
    """Compute every figure from the overlaps of a whole image (or of several, see `join_images`).

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
    pairs = object_pairs(overlaps)
    matchings = tuple(match_pairs(pairs, float(t)) for t in sorted(set(thresholds)))
    order = np.lexsort((pairs.col, -pairs.iou, pairs.row))  # for each true object, its largest IoU first
    is_best = np.diff(pairs.row[order], prepend=-1) != 0
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
        aji=_aggregated_jaccard(pairs, order[is_best]),
        aji_plus=_aggregated_jaccard(pairs, _best_edges(pairs)),
    )


def _best_edges(pairs: Pairs) -> npt.NDArray[np.intp]:
    """Return the assignment of largest total IoU; of several, one that shares most pixels, so that AJI+ is unique."""
    tie = 1e-9 * pairs.shared / pairs.shared.max(initial=1)
    return best_assignment(pairs.row, pairs.col, pairs.iou + tie)


def _aggregated_jaccard(pairs: Pairs, edges: npt.NDArray[np.intp]) -> float:
    true_left = np.ones(len(pairs.true_area), bool)
    pred_left = np.ones(len(pairs.pred_area), bool)
    true_left[pairs.row[edges]] = False
    pred_left[pairs.col[edges]] = False
    unpaired = int(pairs.true_area[true_left].sum()) + int(pairs.pred_area[pred_left].sum())
    return _ratio(int(pairs.shared[edges].sum()), int(pairs.union[edges].sum()) + unpaired)


def _ratio(part: int, of: int) -> float:
    """Return the ratio; 1 for an image without any object, which is a perfect answer."""
    return part / of if of else 1.0


def score_labels(
    truth: npt.NDArray[Any], predicted: npt.NDArray[Any], thresholds: Sequence[float] = THRESHOLDS
) -> Scores:
    """Compute `score_overlaps` for two label arrays in memory.

    >>> score_labels(np.array([[1, 1, 0, 2]]), np.array([[4, 4, 0, 0]])).as_dict()["ap"]["0.5"]
    0.5
    """
    return score_overlaps(count_overlaps(truth, predicted), thresholds)


def mean_figures(images: Sequence[Scores]) -> dict[str, Any]:
    """Return figures averaged over images, with equal weight for each image.

    An image without objects on either side counts as perfect (1); in `by_image` of StarDist it counts 0. For equal
    weight of each object use `score_overlaps(join_images(...))`.

    Args:
        images: at least one, all at the same thresholds.

    Returns:
        As `Scores.as_dict`, without the numbers of objects, and with the number of `images`.

    Raises:
        InputError: no image, or different thresholds.

    >>> one, none = score_labels(np.array([1]), np.array([1])), score_labels(np.array([1]), np.array([0]))
    >>> mean_figures([one, none])["ap"]["0.5"]
    0.5
    """
    if not images or len({tuple(m.threshold for m in s.matchings) for s in images}) > 1:
        raise InputError.of(
            found=f"{len(images)} scores, of one or several sets of thresholds",
            expected="at least one, all at the same thresholds",
            fix="score every image with the same thresholds",
        )
    figures = [s.as_dict() for s in images]
    means = {name: float(np.mean([f[name] for f in figures])) for name in ("ap_mean", *_SINGLE)}
    curves = {name: {t: float(np.mean([f[name][t] for f in figures])) for t in figures[0][name]} for name in _CURVES}
    return {"images": len(images), **curves, **means}
