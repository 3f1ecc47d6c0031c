"""Corrected counts of all objects, estimated from a random sample that a person has reviewed.

    predicted class j     stratum of N_j objects, of which n_j were judged, n_jk of them as class k
    judged class k        N_k = known_k + sum over j of N_j n_jk / n_j           post-stratified estimate

Objects that were annotated for training are known; they are counted as they are and belong to no stratum. A judged
object counts as itself, so only the N_j - n_j others are uncertain (finite population).

The interval comes from a Bayesian posterior. The classes of stratum j have a Dirichlet prior with 1/2 on the predicted
class and 1/2 / sqrt(K - 1) on each other class and on `none`, where K counts the classes without it. (For K = 2 this is
Jeffreys' prior; for more classes it is weaker, because the prior's pseudo-objects, summed over many strata, would
inflate rare classes.) The objects that were not judged are drawn from the posterior. Its quantiles, widened to contain
the estimate, are the interval. The accuracy uses all strata together, with Jeffreys' prior on right and wrong, as the
sample is random among all objects. In a stratum without judged objects the estimate takes the share of right ones over
all strata and spreads the rest evenly over the other classes.

`unsure` and `none` (not an object) are one class, `none`, which is left out of the total. It is always one of the K: 50
objects without a `none` do not prove that there is none among the others.

Source: post-stratification: Cochran (1977), Sampling Techniques, 5A.9; counts from a confusion matrix of a random
sample: Olofsson et al. (2014), Remote Sensing of Environment 148; the prior is ours, chosen by simulation (see tests).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.objects.annotation.mark_files import UNSURE, Mark

__all__ = ["NONE", "ClassEstimate", "Review", "check_random", "estimate", "judged_name", "passed_over"]

Counts = npt.NDArray[np.int64]

NONE = "none"
"""Class of what is no object, or cannot be decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEstimate:
    """Predicted and estimated number of objects of one class, with a 95 % interval.

    Attributes:
        predicted: objects with this class in the table, annotated ones included.
        estimate, low, high: objects to which a person would give this class.
        judged: objects of the sample to which the person gave it.
    """

    name: str
    predicted: int
    estimate: float
    low: float
    high: float
    judged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Estimates from a judged sample.

    Attributes:
        classes: by name, `none` last.
        total: objects that are not `none`, with interval.
        accuracy: share of the not annotated objects with the right class, with interval.
        confusion: judged objects as (predicted class, class by the person, number), numbers above 0.
        judged, population: objects in the sample, and not annotated objects in all. annotated: the others.
    """

    classes: tuple[ClassEstimate, ...]
    total: tuple[float, float, float]
    accuracy: tuple[float, float, float]
    confusion: tuple[tuple[str, str, int], ...]
    judged: int
    population: int
    annotated: int


def judged_name(name: str) -> str:
    """Return the class that a judgement counts for.

    >>> judged_name("unsure"), judged_name("round")
    ('none', 'round')
    """
    return NONE if name == UNSURE else name


def check_random(marks: Sequence[Mark]) -> None:
    """Refuse judgements of objects that were not drawn at random; without a column `reason` they are accepted.

    Raises:
        InputError: the message names the first such line.
    """
    for mark in marks:
        reason = (mark.row or {}).get("reason", "")
        if reason and reason != "random":
            raise InputError.of(
                found=f"{mark.where}: an object chosen by {reason}",
                expected="objects drawn at random: others do not represent the rest",
                fix="judge proposals of classify propose --by random",
            )


def passed_over(marks: Sequence[Mark]) -> int:
    """Return how many proposals were skipped: not judged although a later one was. Skipping causes bias."""
    ranks = {int(r) for mark in marks if (r := (mark.row or {}).get("rank", "")).isdigit()}
    return max(ranks, default=0) - len(ranks)


def estimate(
    predicted: Mapping[str, int],
    judged: Mapping[tuple[str, str], int],
    known: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
    draws: int = 20_000,
) -> Review:
    """Return corrected counts and accuracy.

    Args:
        predicted: number of objects without annotation, by predicted class.
        judged: numbers of the sample by (predicted class, class by the person); `unsure` is `none`.
        known: number of annotated objects, by class.
        seed, draws: of the random numbers for the intervals.

    Raises:
        InputError: nothing was judged, or more objects of a class than exist.

    >>> found = estimate({"a": 90, "b": 10}, {("a", "a"): 18, ("a", "b"): 2, ("b", "b"): 5})
    >>> [(one.name, one.predicted, one.estimate) for one in found.classes]
    [('a', 90, 81.0), ('b', 10, 19.0), ('none', 0, 0.0)]
    """
    known = dict(known or {})
    merged: dict[tuple[str, str], int] = {}
    for (guess, name), number in judged.items():
        merged[guess, judged_name(name)] = merged.get((guess, judged_name(name)), 0) + number
    names = [*sorted({*predicted, *known, *(name for _, name in merged)} - {NONE}), NONE]
    sizes = np.array([predicted.get(name, 0) for name in names], np.int64)
    table = np.array([[merged.get((j, k), 0) for k in names] for j in names], np.int64).reshape(len(names), len(names))
    _check(names, sizes, table, {guess for guess, _ in merged})
    extra = np.array([known.get(name, 0) for name in names], np.int64)
    return _review(names, sizes, table, extra, np.random.default_rng(seed), draws)


def _check(names: Sequence[str], sizes: Counts, table: Counts, guessed: set[str]) -> None:
    if not table.sum():
        raise InputError.of(found="no judged object", expected="some", fix="judge proposals of classify propose")
    wrong = [name for name, n, size in zip(names, table.sum(axis=1), sizes, strict=True) if n > size]
    if wrong or not guessed <= set(names):
        raise InputError.of(
            found=f"more judged than predicted objects of class {', '.join(wrong)}",
            expected="a sample of these objects",
            fix="count the images that the proposals were drawn from",
        )


def _review(
    names: Sequence[str], sizes: Counts, table: Counts, extra: Counts, rng: np.random.Generator, draws: int
) -> Review:
    k, judged, population = len(names), int(table.sum()), int(sizes.sum())
    shares = _shares(table)
    rest = sizes - table.sum(axis=1)
    points = table.sum(axis=0) + (rest[:, None] * shares).sum(axis=0)
    counts = np.tile(table.sum(axis=0).astype(np.float64), (draws, 1))
    prior = np.full((k, k), 0.5 / np.sqrt(max(1, k - 2)))
    np.fill_diagonal(prior, 0.5)
    for j in np.flatnonzero(rest):
        counts += rng.multinomial(int(rest[j]), rng.dirichlet(table[j] + prior[j], draws))
    classes = []
    for i in range(k):
        point, low, high = _interval(counts[:, i], float(points[i]), float(extra[i]))
        predicted, n = int(sizes[i] + extra[i]), int(table[:, i].sum())
        classes.append(ClassEstimate(name=names[i], predicted=predicted, estimate=point, low=low, high=high, judged=n))
    real = np.array([name != NONE for name in names])
    agreed = int(np.trace(table))
    correct = agreed + rng.binomial(population - judged, rng.beta(agreed + 0.5, judged - agreed + 0.5, draws))
    right, first, last = _interval(correct, float(agreed + (rest * np.diag(shares)).sum()))
    everything = max(1, population)
    return Review(
        classes=tuple(classes),
        total=_interval(counts[:, real].sum(axis=1), float(points[real].sum()), float(extra[real].sum())),
        accuracy=(right / everything, first / everything, last / everything),
        confusion=tuple((names[i], names[j], int(table[i, j])) for i in range(k) for j in range(k) if table[i, j]),
        judged=judged,
        population=population,
        annotated=int(extra.sum()),
    )


def _shares(table: Counts) -> npt.NDArray[np.float64]:
    """Return the (k, k) share of each class in each stratum; without judged objects, guessed from the other strata."""
    k, number = len(table), table.sum(axis=1, keepdims=True)
    right = (np.trace(table) + 1) / (table.sum() + 2)
    guess = np.full((k, k), (1 - right) / (k - 1))
    np.fill_diagonal(guess, right)
    return np.where(number > 0, table / np.maximum(number, 1), guess)


def _interval(draws: npt.NDArray[Any], point: float, known: float = 0.0) -> tuple[float, float, float]:
    """Return the estimate and its 95 % interval, each with `known` added."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return point + known, float(min(low, point)) + known, float(max(high, point)) + known
