"""Measure how well predicted labels agree with true ones, from one streamed table of overlaps.

Every figure is a function of the number of pixels that each (true id, predicted id) pair shares. That table is a sum
over pixels, so boxes are counted separately and added, and the scores do not depend on how an image was cut:

    1. `count_overlaps(truth, predicted)`  per box     unique pairs and their pixels
    2. `combine_overlaps(parts)`           any order   addition
    3. `score_overlaps(overlaps)`          once        matching and all figures

Ids may have gaps, and renaming them changes nothing (except AJI with exact ties, see `Scores`). 0 is background on both
sides. Two objects match if an optimal one-to-one assignment pairs them and their intersection over union (IoU) reaches
the threshold. If both sides are empty, every share is 1; if only one side is empty, every share is 0. (StarDist gives 0
in both cases; all its other figures are equal to these, see tests/data/make_stardist_matching.py.)
"""

from sketchscale.evaluation.matching import Matching, match_objects
from sketchscale.evaluation.overlaps import Overlaps, combine_overlaps, count_overlaps, join_images
from sketchscale.evaluation.scores import THRESHOLDS, Scores, mean_figures, score_labels, score_overlaps

__all__ = [
    "THRESHOLDS",
    "Matching",
    "Overlaps",
    "Scores",
    "combine_overlaps",
    "count_overlaps",
    "join_images",
    "match_objects",
    "mean_figures",
    "score_labels",
    "score_overlaps",
]
