"""Corrected counts: what a person's look at a few random objects says about all of them.

    predicted class j     stratum of N_j objects, of which n_j were judged, n_jk of them as class k
    judged class k        N_k = known_k + sum over j of N_j n_jk / n_j           post-stratified estimate

Objects that a person annotated for training are known; they are counted as they are and belong to no stratum. A judged
object counts as itself, so only the N_j - n_j others are uncertain (finite population).

The interval is of a Bayesian posterior: the classes of stratum j have a Dirichlet prior with 1/2 on the predicted class
and 1/2 / sqrt(K - 1) on each other one and on `none`, where K counts the classes without it (Jeffreys' prior for K = 2;
for more classes a weaker one, because the sum over many strata of a prior's pseudo-objects would push rare classes up),
and what was not judged is drawn from it. Its quantiles, widened to hold the estimate, are the interval. That of the
accuracy is from all strata together, with Jeffreys' prior on right and wrong: the sample is a random one of all
objects, too. Where no object of a stratum was judged, the estimate takes the share of right ones over all strata, and
spreads the rest evenly over the other classes.

`unsure` and `none` (not an object) are one class, `none`, which is counted out of the total. It is always one of the K:
that nobody said `none` of 50 objects does not show that there is none among the others.

Source: post-stratification: Cochran (1977), Sampling Techniques, 5A.9; counts from a confusion matrix of a random
sample: Olofsson et al. (2014), Remote Sensing of Environment 148; the prior is ours, chosen by simulation (see tests).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.objects.annotation.mark_files import UNSURE, Mark

__all__ = ["NONE", "ClassEstimate", "Review", "check_random", "estimate", "judged_name", "passed_over"]

NONE = "none"
"""What is no object, or cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEstimate:
    """One class: how many were predicted, and how many there are, with an interval of 95 %.

    Attributes:
        predicted: objects that the table calls so, annotated ones included.
        estimate, low, high: objects that a person would call so.
        judged: objects of the sample that the person called so.
    """

    name: str
    predicted: int
    estimate: float
    low: float
    high: float
    judged: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What the sample says.

    Attributes:
        classes: by name, `none` last.
        total: objects that are something, of `counted`; with its interval.
        accuracy: share of all not annotated objects whose class is right; with its interval.
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
    """The class that a judgement counts for.

    >>> judged_name("unsure"), judged_name("round")
    ('none', 'round')
    """
    return NONE if name == UNSURE else name


def check_random(marks: Sequence[Mark]) -> None:
    """Refuse judgements of objects that were not drawn at random; without a column `reason` the person is believed.

    Raises:
        InputError: names the first such line.
    """
    for mark in marks:
        reason = (mark.row or {}).get("reason", "")
        if reason and reason != "random":
            raise InputError.of(
                found=f"{mark.where}: an object chosen by {reason}",
                expected="objects drawn at random: others say nothing about the rest",
                fix="judge proposals of classify propose --by random",
            )


def passed_over(marks: Sequence[Mark]) -> int:
    """Proposals of a lower rank than some judged one that were not judged: a choice, hence a bias."""
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
    """Corrected counts and accuracy.

    Args:
        predicted: objects that no person annotated, by predicted class.
        judged: numbers of the sample by (predicted class, class by the person); `unsure` is `none`.
        known: annotated objects by class.
        seed, draws: of the random numbers that give the intervals.

    Raises:
        InputError: nothing was judged, or more objects of a class than there are.

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


def _check(names: Sequence[str], sizes: npt.NDArray[np.int64], table: npt.NDArray[np.int64], guessed: set[str]) -> None:
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
    names: Sequence[str],
    sizes: npt.NDArray[np.int64],
    table: npt.NDArray[np.int64],
    extra: npt.NDArray[np.int64],
    rng: np.random.Generator,
    draws: int,
) -> Review:
    k = len(names)
    shares = _shares(table)
    rest = sizes - table.sum(axis=1)
    points = table.sum(axis=0) + (rest[:, None] * shares).sum(axis=0)
    right = float(np.trace(table) + (rest * np.diag(shares)).sum())
    counts, correct = _draws(sizes, table, rng, draws), _right_draws(sizes, table, rng, draws)
    real = np.array([name != NONE for name in names])
    population = max(1, int(sizes.sum()))
    classes = []
    for i in range(k):
        low, high = _interval(counts[:, i], float(points[i]))
        classes.append(
            ClassEstimate(
                name=names[i],
                predicted=int(sizes[i] + extra[i]),
                estimate=float(points[i] + extra[i]),
                low=low + float(extra[i]),
                high=high + float(extra[i]),
                judged=int(table[:, i].sum()),
            )
        )
    total, added = float(points[real].sum()), float(extra[real].sum())
    low, high = _interval(counts[:, real].sum(axis=1), total)
    first, last = _interval(correct, right)
    confusion = [(names[i], names[j], int(table[i, j])) for i in range(k) for j in range(k) if table[i, j]]
    return Review(
        classes=tuple(classes),
        total=(total + added, low + added, high + added),
        accuracy=(right / population, first / population, last / population),
        confusion=tuple(confusion),
        judged=int(table.sum()),
        population=int(sizes.sum()),
        annotated=int(extra.sum()),
    )


def _prior(k: int) -> npt.NDArray[np.float64]:
    """(k, k) Dirichlet parameters: row is the predicted class."""
    prior = np.full((k, k), 0.5 / np.sqrt(max(1, k - 2)))
    np.fill_diagonal(prior, 0.5)
    return prior


def _shares(table: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(k, k) share of each class in each stratum: as judged, or guessed from the others where nothing was."""
    k, number = len(table), table.sum(axis=1, keepdims=True)
    right = (np.trace(table) + 1) / (table.sum() + 2)
    guess = np.full((k, k), (1 - right) / (k - 1))
    np.fill_diagonal(guess, right)
    return np.where(number > 0, table / np.maximum(number, 1), guess)


def _draws(
    sizes: npt.NDArray[np.int64], table: npt.NDArray[np.int64], rng: np.random.Generator, number: int
) -> npt.NDArray[np.float64]:
    """(number, k) objects of each class, from the posterior."""
    rest = sizes - table.sum(axis=1)
    counts = np.tile(table.sum(axis=0).astype(np.float64), (number, 1))
    parameters = table + _prior(len(sizes))
    for j in np.flatnonzero(rest):
        counts += rng.multinomial(int(rest[j]), rng.dirichlet(parameters[j], number))
    return counts


def _right_draws(
    sizes: npt.NDArray[np.int64], table: npt.NDArray[np.int64], rng: np.random.Generator, number: int
) -> npt.NDArray[np.float64]:
    """(number,) objects whose predicted class is right, from the posterior."""
    right, judged = int(np.trace(table)), int(table.sum())
    shares = rng.beta(right + 0.5, judged - right + 0.5, number)
    return right + rng.binomial(int(sizes.sum()) - judged, shares).astype(np.float64)


def _interval(draws: npt.NDArray[np.float64], point: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(min(low, point)), float(max(high, point))
