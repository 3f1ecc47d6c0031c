"""How well predicted labels agree with true ones, from one streamed table of overlaps.

Every figure here is a function of how many pixels each (true id, predicted id) pair shares. That table is a sum over
pixels, so it is counted box by box and added, and the scores of an image never depend on how it was cut:

    1. `count_overlaps(truth, predicted)`  per box     unique pairs and their pixels
    2. `combine_overlaps(parts)`           any order   addition
    3. `score_overlaps(overlaps)`          once        matching and all figures

Ids are names: they may have gaps, and renaming them changes nothing (one exception, AJI under exact ties, is stated at
`Scores`). 0 is background on both sides. Two objects match when an optimal one-to-one assignment pairs them and their
intersection over union (IoU) reaches the threshold. Nothing to find and nothing found is a perfect answer: every share
is 1. Only one side empty: every share is 0. (StarDist gives 0 in both cases; elsewhere its figures are these, see
tests/data/make_stardist_matching.py.)
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
