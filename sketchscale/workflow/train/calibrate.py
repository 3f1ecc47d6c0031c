"""Set a trained model's threshold, joining rule and smallest size on annotated objects.

    annotation   ▒▒▒▒▒▒▒▒      outside the annotated pixels A nothing is known: truth and prediction are compared on A,
    prediction     ██████████  and the smallest size on the predicted objects' whole areas, which A may cut

For every candidate threshold and joining rule, the trained network's fields in some annotated windows are made into
objects of any size. A predicted object and an annotated one match at t when the pixels that they share are more than t
of the pixels of A in either. The rules for choosing:

  * The candidate with the best mean of the average precisions at 0.5 and 0.75 over the pooled objects wins.
  * Of the smallest sizes within 0.001 of the best, the largest is taken, because specks mostly lie where nothing was
    drawn; but at most half of the 5th percentile of the matched objects.
  * The default joining is left only for one that is better by more than 0.02: images that trained the network look a
    little better than others, most of all under rules that suit only them (benchmarks/results/rules.txt).
  * Among thresholds within 0.003 of the best, the middle one is taken.
  * Objects with fewer than 8 annotated pixels are left out.

Where boundaries are not drawn, the same comparison says which strokes are covered, which are in one object that should
be in two, and which background is taken for an object; it does not say how far objects reach. There the meaning of the
distance does: of thresholds within 0.003 of the best, the one nearest to 0 is taken. A dot is a single pixel, so
components of one pixel count.

What a start model says about joining, threshold and smallest size is kept, unless another choice is better by more than
0.05, as one object in twenty is no evidence against it; its smallest size never grows, as strokes on a few objects do
not say that there are no smaller ones elsewhere.

Windows are cut to what is annotated in them, so the cost follows the annotation and not the image. (Tighter boxes
around single objects cost half as much and were .009 worse for the shipped model: background far from objects shows
where nothing should be found.) Windows are taken one by one, in an order that is spread over the images, until the time
is over; without a time limit all of them count, and the result is a function of model and annotation alone.

`train` uses the validation images or, where these have too few annotated objects, the training images, where fields are
a little better than elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Never

import numpy as np
import numpy.typing as npt

from sketchscale.evaluation import count_overlaps
from sketchscale.geometry import Box, tile_cover
from sketchscale.integration.config import IntegrationConfig, crowd_for
from sketchscale.integration.plan import integrate_each
from sketchscale.networks.checkpoint import Model, ModelConfig
from sketchscale.rule import JoiningRule
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.thresholds import labels_with_lines, predict_image

__all__ = ["JOININGS", "VOLUME_JOININGS", "Joining", "calibrate", "score_annotation"]

THRESHOLDS = (-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5)
"""Finer towards 0, where a signed distance changes by 1 px from pixel to pixel."""
SIZES = (10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960)

_WINDOWS = {2: (512, 512), 3: (64, 128, 128)}
"""px, of planes and of volumes."""
_MOST_VOLUMES = 8
_MARGIN = 32
"""Margin in px around the annotation of a window, because the whole area of an object counts."""
_HALOS = {2: 64, 3: 32}
"""Margin in px around a window that the network reads; pixels beyond it hardly change its output."""
_TIE = 0.003
_PREFERENCE = 0.02
_FEWEST = 5
_LEAST_GAIN = 0.05
_AT = (0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining(JoiningRule[Never]):
    """A rule that joins end points and components."""


_SEPARATING = Joining(link_radius=1, prominence=-8.0)
JOININGS = (Joining(), _SEPARATING, Joining(join_share=0.3), replace(_SEPARATING, join_share=0.3))
"""One robust to noisy flow, one that separates small touching objects; then both with components joined by ends."""

VOLUME_JOININGS = (Joining(prominence=-2.0), Joining())
"""Of volumes: a network that learned from strokes in planes gives distances well below the true ones, so that the
default joins objects that touch (AP 0.5 of .82 beside .87, benchmarks/results/volumes.txt)."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """A candidate with its best smallest size, and its score."""

    score: float
    threshold: float
    min_size: int
    joining: Joining


@dataclass(frozen=True, slots=True)
class _Evidence:
    """Predicted objects that A covers in part: whole area, and largest overlap with one true object.

    Attributes:
        areas: px. shares: intersection over union within A. covered: share of the object that A covers.
        objects: number of annotated objects.
    """

    areas: npt.NDArray[np.int64]
    shares: npt.NDArray[np.float64]
    covered: npt.NDArray[np.float64]
    objects: int


def calibrate(
    model: Model,
    images: Sequence[AnnotatedImage],
    *,
    most: int = 32,
    sizes: Sequence[int] = SIZES,
    prefer: float | None = None,
    telling: int = 8,
    start: ModelConfig | None = None,
    until: float | None = None,
    on_window: Callable[[int, int], None] = lambda done, total: None,
) -> Model:
    """Return the model with the threshold, joining rule and smallest size that suit the annotation best.

    Args:
        model: in evaluation mode; its fields are those of `images` at scale 1.
        images: annotated, densely or in part.
        most: windows that are looked at, spread evenly over all with annotated foreground: of at most 512 x 512 px, or
            of 64 x 128 x 128 px, of which at most 8 count.
        sizes: candidates for the smallest size, px, rising.
        prefer: px; of thresholds that are equally good, the one nearest to this is taken; None: the middle one.
        telling: annotated pixels from which on an object counts.
        start: configuration of the model that training started from, kept unless another one is clearly better.
        until: no further window is begun after this time (`time.monotonic`) once 5 objects were seen; None: no limit.
        on_window: called before each window with the number of windows done, and of all.

    Returns:
        The same network with another configuration. The model is unchanged where fewer than 5 objects are annotated,
        and where it gives h/v maps, whose foreground is a probability.
    """
    if model.target.rule != "flow":
        return model
    found: dict[tuple[float, Joining], list[_Evidence]] = {}
    axes = model.config.network.dim
    windows, objects = _spread(_annotated_windows(images), most if axes == 2 else min(most, _MOST_VOLUMES)), 0
    crowd = 1 if axes == 2 else crowd_for(model.config.diameter)
    for seen, (image, box) in enumerate(windows):
        if until is not None and objects >= _FEWEST and time.monotonic() > until:
            windows = windows[:seen]
            break
        on_window(seen, len(windows))
        predicted, labels = _shown(model, image, box)
        objects += int((np.bincount(labels[labels > 0]) >= telling).sum())
        for rule, evidence in _compared(predicted, labels, telling, start, crowd):
            found.setdefault(rule, []).append(evidence)
    if objects < _FEWEST:
        return model
    joinings = _joinings(axes)
    ours = {rule: evidence for rule, evidence in found.items() if rule[0] in THRESHOLDS and rule[1] in joinings}
    chosen = _best([_trial(*rule, evidence, sizes) for rule, evidence in ours.items()], joinings, prefer)
    if start is not None:
        kept = _as_it_is(start, found[start.threshold, _joining_of(start)])
        smaller = replace(chosen, min_size=min(chosen.min_size, start.min_size))
        chosen = kept if chosen.score <= kept.score + _LEAST_GAIN else smaller
    return replace(
        model,
        provenance={**model.provenance, "calibrated": {"windows": len(windows), "score": round(chosen.score, 4)}},
        config=replace(model.config, threshold=chosen.threshold, min_size=chosen.min_size, **asdict(chosen.joining)),
    )


def _joinings(axes: int) -> tuple[Joining, ...]:
    """Return the candidates; the first is the default."""
    return JOININGS if axes == 2 else VOLUME_JOININGS


def score_annotation(
    model: Model, images: Sequence[AnnotatedImage], *, most: int = 32, telling: int = 8, until: float | None = None
) -> float | None:
    """Return the average precision at 0.5 of a model, by its own rule, on annotated objects.

    Args:
        model, images, most, telling, until: see `calibrate`.

    Returns:
        0 to 1; None where fewer than 5 objects are annotated, or the model gives h/v maps.
    """
    if model.target.rule != "flow":
        return None
    config, found = model.config, list[_Evidence]()
    axes = config.network.dim
    crowd = 1 if axes == 2 else crowd_for(config.diameter)
    rule = IntegrationConfig(threshold=config.threshold, min_size=0, crowd=crowd, **asdict(_joining_of(config)))
    for image, box in _spread(_annotated_windows(images), most if axes == 2 else min(most, _MOST_VOLUMES)):
        objects = sum(evidence.objects for evidence in found)
        if until is not None and objects >= _FEWEST and time.monotonic() > until:
            break
        predicted, labels = _shown(model, image, box)
        found.append(_compare(next(iter(integrate_each(predicted, [rule]))), labels, telling))
    if sum(evidence.objects for evidence in found) < _FEWEST:
        return None
    return _as_it_is(config, found, (0.5,)).score


def _shown(model: Model, image: AnnotatedImage, box: Box) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int32]]:
    """Return the fields that a model predicts in a window, and the window's labels with drawn lines as background."""
    pixels = image.image
    near = box.grow(min(_HALOS[len(box.shape)], model.declares.context)).clip(pixels.shape[1:])
    inner = box.relative_to(near.start).slices
    predicted = predict_image(model, pixels[(slice(None), *near.slices)])[(slice(None), *inner)]
    return predicted.astype(np.float16), labels_with_lines(image, box)


def _joining_of(config: ModelConfig) -> Joining:
    return Joining(**{f.name: getattr(config, f.name) for f in fields(Joining)})


def _as_it_is(config: ModelConfig, evidence: Sequence[_Evidence], at: tuple[float, ...] = _AT) -> _Trial:
    """Score the choices of a model."""
    shares, areas = (np.concatenate([getattr(e, name) for e in evidence]) for name in ("shares", "areas"))
    score = _precision(shares[areas >= config.min_size], sum(e.objects for e in evidence), at)
    return _Trial(score, config.threshold, config.min_size, _joining_of(config))


def _best(trials: Sequence[_Trial], joinings: Sequence[Joining], prefer: float | None) -> _Trial:
    """Choose the joining with the best score (the default unless another wins clearly), and its best threshold."""
    scores = {j: max(t.score for t in trials if t.joining == j) for j in joinings}
    joining = max(joinings, key=lambda j: scores[j] + (_PREFERENCE if j == joinings[0] else 0))
    near = [t for t in trials if t.joining == joining and t.score >= scores[joining] - _TIE]
    return near[len(near) // 2] if prefer is None else min(near, key=lambda t: abs(t.threshold - prefer))


def _annotated_windows(images: Sequence[AnnotatedImage]) -> list[tuple[AnnotatedImage, Box]]:
    """Return every window with annotated foreground, in raster order, cut to its annotation and a margin."""
    found = []
    for image in images:
        labels = labels_with_lines(image)
        for box in (tile.write for tile in tile_cover(labels.shape, _WINDOWS[labels.ndim])):
            if (labels[box.slices] > 0).any():
                at = np.argwhere(labels[box.slices] >= 0) + box.start
                drawn = Box(tuple(map(int, at.min(axis=0))), tuple(map(int, at.max(axis=0) + 1)))
                found.append((image, drawn.grow(_MARGIN).intersect(box)))
    return found


def _spread(items: list[tuple[AnnotatedImage, Box]], most: int) -> list[tuple[AnnotatedImage, Box]]:
    """Return at most `most` items, spread evenly, in an order in which every beginning is spread too."""
    chosen = [items[int(i)] for i in np.linspace(0, len(items) - 1, min(most, len(items)))]
    return [chosen[i] for i in np.random.default_rng(0).permutation(len(chosen))]


def _compared(
    predicted: npt.NDArray[np.float16],
    labels: npt.NDArray[np.int32],
    telling: int,
    start: ModelConfig | None,
    crowd: int,
) -> Iterator[tuple[tuple[float, Joining], _Evidence]]:
    """Yield every threshold with every joining, and how their objects compare with the annotation of a window.

    Args:
        predicted: fields (axes + 1, ...). labels: their shape, k > 0 is an object, 0 background, -1 unknown.
        telling, start: see `calibrate`. crowd: see IntegrationConfig.
    """
    joinings = {threshold: list(_joinings(labels.ndim)) for threshold in THRESHOLDS}
    if start is not None and _joining_of(start) not in joinings.setdefault(start.threshold, []):
        joinings[start.threshold].append(_joining_of(start))
    for threshold, chosen in joinings.items():
        rules = [
            IntegrationConfig(threshold=threshold, min_size=0, crowd=crowd, **asdict(joining)) for joining in chosen
        ]
        for joining, objects in zip(chosen, integrate_each(predicted, rules), strict=True):
            yield (threshold, joining), _compare(objects, labels, telling)


def _trial(threshold: float, joining: Joining, evidence: Sequence[_Evidence], sizes: Sequence[int]) -> _Trial:
    """Return a candidate with its best smallest size."""
    areas = np.concatenate([e.areas for e in evidence])
    shares = np.concatenate([e.shares for e in evidence])
    objects = sum(e.objects for e in evidence)
    # Half of the weighted 5th percentile of the matched areas. Annotation meets large objects more often than small
    # ones; weighted by the share that it covers of each, objects of all sizes count as often as they occur.
    order = np.argsort(areas, kind="stable")
    weights = np.concatenate([e.covered for e in evidence]) * (shares > 0.5)
    reached = np.cumsum(weights[order])
    most = 0
    if reached.size and reached[-1] > 0:
        most = int(areas[order][np.searchsorted(reached, 0.05 * reached[-1])]) // 2
    allowed = [*(size for size in sizes if size < most), most]
    scores = [_precision(shares[areas >= size], objects) for size in allowed]
    size = max(i for i, score in enumerate(scores) if score >= max(scores) - _TIE / 3)
    return _Trial(scores[size], threshold, allowed[size], joining)


def _precision(shares: npt.NDArray[np.float64], objects: int, at: tuple[float, ...] = _AT) -> float:
    """Return the mean of TP / (TP + FP + FN) over thresholds from 0.5, above which overlaps match one to one."""
    hits = [int((shares > threshold).sum()) for threshold in at]
    return float(np.mean([hit / max(1, shares.size + objects - hit) for hit in hits]))


def _compare(predicted: npt.NDArray[np.uint32], labels: npt.NDArray[np.int32], telling: int) -> _Evidence:
    """Compare the predicted objects of a window with its annotation."""
    known = labels >= 0
    whole = np.bincount(predicted.ravel())
    table = count_overlaps(np.where(known, labels, 0), np.where(known, predicted, 0))
    true, found, shared = table.truth.astype(np.int64), table.predicted.astype(np.int64), table.pixels
    inside = (true > 0) | (found > 0)
    true, found, shared = true[inside], found[inside], shared[inside]
    true_area = np.bincount(true, shared, minlength=1)
    found_area = np.bincount(found, shared, minlength=whole.size)
    both = (true > 0) & (found > 0) & (true_area[true] >= telling)
    share = shared[both] / (true_area[true[both]] + found_area[found[both]] - shared[both])
    best = np.zeros(whole.size)
    np.maximum.at(best, found[both], share)
    seen = np.flatnonzero(found_area >= telling)
    seen = seen[seen > 0]
    covered = found_area[seen] / whole[seen]
    return _Evidence(whole[seen], best[seen], covered, int((true_area[1:] >= telling).sum()))
