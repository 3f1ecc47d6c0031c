"""Scores written as plainly as their definitions: dense matrices, one mask per object, a full assignment."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def dense_tables(truth, predicted):
    """Intersections and unions of every true with every predicted object, from masks."""
    true_masks = [truth == i for i in np.unique(truth) if i]
    pred_masks = [predicted == i for i in np.unique(predicted) if i]
    shape = (len(true_masks), len(pred_masks))
    shared = np.array([(a & b).sum() for a in true_masks for b in pred_masks], np.int64).reshape(shape)
    union = np.array([(a | b).sum() for a in true_masks for b in pred_masks], np.int64).reshape(shape)
    return shared, union, [m.sum() for m in true_masks], [m.sum() for m in pred_masks]


def stardist_matching(truth, predicted, threshold):
    """StarDist's matching on the dense matrix: (tp, fp, fn, sum of matched IoU)."""
    shared, union, true_area, pred_area = dense_tables(truth, predicted)
    n = min(shared.shape)
    if n == 0:
        return 0, len(pred_area), len(true_area), 0.0
    iou = shared / union
    rows, cols = linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * n))
    accepted = iou[rows, cols] >= threshold
    tp = int(accepted.sum())
    return tp, len(pred_area) - tp, len(true_area) - tp, float(iou[rows, cols][accepted].sum())


def aggregated_jaccard(truth, predicted):
    """Kumar's AJI, with its loop over true objects."""
    shared, union, true_area, pred_area = dense_tables(truth, predicted)
    top, bottom, used = 0, 0, set()
    for i, area in enumerate(true_area):
        if len(pred_area) == 0 or shared[i].max() == 0:
            bottom += area
            continue
        best = int(np.argmax(shared[i] / union[i]))
        top, bottom = top + shared[i, best], bottom + union[i, best]
        used.add(best)
    bottom += sum(area for j, area in enumerate(pred_area) if j not in used)
    return top / bottom if bottom else 1.0


def best_one_to_one_iou(truth, predicted):
    """The largest total IoU of any one-to-one assignment."""
    shared, union, *_ = dense_tables(truth, predicted)
    if 0 in shared.shape:
        return 0.0
    iou = shared / union
    return float(iou[linear_sum_assignment(-iou)].sum())


def pixel_scores(truth, predicted):
    """(Dice, Jaccard) of the two foregrounds."""
    a, b = truth > 0, predicted > 0
    if not a.any() and not b.any():
        return 1.0, 1.0
    return 2 * (a & b).sum() / (a.sum() + b.sum()), (a & b).sum() / (a | b).sum()
