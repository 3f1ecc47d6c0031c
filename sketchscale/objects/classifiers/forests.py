"""Forests on table rows: trained by scikit-learn, stored as plain arrays without pickles, so that loading runs no code.

The nodes of all trees are concatenated in five arrays, so that a forest is saved like a network's weights and applied
without scikit-learn, whose pickles execute code and work with one version only:

    forest.first      (T + 1,)  first node of each tree
    forest.feature    (N,)      column that a node compares, -1 in a leaf
    forest.threshold  (N,)      value <= threshold goes left
    forest.children   (N, 2)    nodes to the left and to the right, counted over all trees
    forest.missing    (N,)      1 where a missing value goes left
    forest.value      (N, L)    what a leaf adds to each class
    forest.start      (L,)      gradient boosting: the sum before the first tree

A random forest is the mean of its trees' class shares; gradient boosting the softmax of the sum. Sums run over the
trees in order, separately for each row: a row's probabilities do not depend on other rows. They equal scikit-learn's
`predict_proba`; as there, a random forest converts rows to float32.

Source: Breiman, Machine Learning 45 (2001) 5; Friedman, Annals of Statistics 29 (2001) 1189; scikit-learn's
`RandomForestClassifier` and `HistGradientBoostingClassifier`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from sketchscale.errors import InputError

__all__ = ["FORESTS", "ForestOptions", "check_forest", "fit_forest", "forest_probabilities"]

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]

Arrays = dict[str, Array]
Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestOptions:
    """Options of forests.

    Attributes:
        trees: of a random forest; more are slower and more stable.
        rounds: of gradient boosting; each adds one tree, or one per class for three or more classes.
        learning_rate: weight of each round's tree.
        leaf: fewest examples in a leaf of gradient boosting; 1 in a random forest.
    """

    trees: int = 200
    rounds: int = 100
    learning_rate: float = 0.1
    leaf: int = 5

    def __post_init__(self) -> None:
        if min(self.trees, self.rounds, self.leaf) < 1 or not self.learning_rate > 0:
            raise InputError.of(
                found=f"{self.trees} trees, {self.rounds} rounds, rate {self.learning_rate}, leaves of {self.leaf}",
                expected="1 or more of each, a rate above 0",
                fix="leave out options that you do not need",
            )


def fit_forest(
    name: str, rows: Rows, targets: Ints, class_weights: npt.NDArray[np.float64], *, options: ForestOptions, seed: int
) -> Arrays:
    """Train a forest and return the arrays of the module's table.

    Args:
        name: in FORESTS.
        rows: (n, F), NaN where missing.
        targets: (n,) class of each row; every class 0 ... L - 1 occurs.
        class_weights: (L,) weight of each example of a class.
    """
    # A column without any number contains no information, and scikit-learn warns about it.
    known = np.where(np.isnan(rows).all(axis=0), 0.0, rows)
    create, arrays_of = FORESTS[name]
    return arrays_of(create(options, seed).fit(known, targets, class_weights[targets]))


def random_forest_arrays(model: RandomForestClassifier) -> Arrays:
    """Return the arrays of a fitted RandomForestClassifier with one output."""
    parts = [
        {
            "feature": np.where(tree.children_left < 0, -1, tree.feature),
            "threshold": tree.threshold,
            "children": np.stack([tree.children_left, tree.children_right], axis=1),
            "missing": tree.missing_go_to_left,
            "value": tree.value[:, 0, :],
        }
        for tree in (estimator.tree_ for estimator in model.estimators_)
    ]
    return _joined(parts)


def gradient_boosting_arrays(model: HistGradientBoostingClassifier) -> Arrays:
    """Return the arrays of a fitted HistGradientBoostingClassifier; of two classes only the second has a sum."""
    classes = len(model.classes_)
    parts = []
    for trees in model._predictors:
        for place, tree in enumerate(trees):
            nodes, leaf = tree.nodes, tree.nodes["is_leaf"].astype(bool)
            value = np.zeros((len(nodes), classes))
            value[:, place if len(trees) > 1 else 1] = np.where(leaf, nodes["value"], 0)
            parts.append(
                {
                    "feature": np.where(leaf, -1, nodes["feature_idx"]),
                    "threshold": nodes["num_threshold"],
                    "children": np.stack([nodes["left"], nodes["right"]], axis=1),
                    "missing": nodes["missing_go_to_left"],
                    "value": value,
                }
            )
    start = np.zeros(classes)
    start[-model._baseline_prediction.size :] = model._baseline_prediction.ravel()
    return {**_joined(parts), "forest.start": start}


FORESTS: dict[str, tuple[Callable[[ForestOptions, int], Any], Callable[[Any], Arrays]]] = {
    "random-forest": (
        lambda options, seed: RandomForestClassifier(options.trees, random_state=seed),
        random_forest_arrays,
    ),
    "gradient-boosting": (
        lambda options, seed: HistGradientBoostingClassifier(
            max_iter=options.rounds,
            learning_rate=options.learning_rate,
            min_samples_leaf=options.leaf,
            early_stopping=False,
            random_state=seed,
        ),
        gradient_boosting_arrays,
    ),
}
"""Name to: a new model of scikit-learn for options and a seed, and the arrays of a fitted one."""


_TYPES: dict[str, type[np.generic]] = {
    "feature": np.int32,
    "threshold": np.float64,
    "children": np.int64,
    "missing": np.uint8,
    "value": np.float64,
}
"""Types of the arrays of nodes, as stored."""


def _joined(parts: list[Arrays]) -> Arrays:
    first = np.concatenate([[0], np.cumsum([len(part["feature"]) for part in parts])]).astype(np.int64)
    for part, offset in zip(parts, first[:-1], strict=True):
        part["children"] = np.where(part["feature"][:, None] < 0, 0, part["children"].astype(np.int64) + offset)
    joined = {f"forest.{name}": np.concatenate([part[name] for part in parts]).astype(k) for name, k in _TYPES.items()}
    return {"forest.first": first, **joined}


def forest_probabilities(arrays: Mapping[str, Array], rows: Rows) -> npt.NDArray[np.float64]:
    """Return class probabilities of rows, (n, L); rows sum to 1.

    Args:
        arrays: of `fit_forest`; other names are ignored.
        rows: (n, F), NaN where missing; an infinite value counts as missing.

    >>> stump = fit_forest("random-forest", np.array([[0.0], [1.0]]), np.array([0, 1]), np.ones(2),
    ...                    options=ForestOptions(trees=9), seed=0)
    >>> forest_probabilities(stump, np.array([[5.0]])).argmax()
    np.int64(1)
    """
    boosted = "forest.start" in arrays
    with np.errstate(over="ignore"):
        seen = rows if boosted else rows.astype(np.float32).astype(np.float64)
    seen = np.where(np.isfinite(seen), seen, np.nan)
    trees = _Trees(**{name: arrays[f"forest.{name}"] for name in _Trees._fields})
    total = np.zeros((len(rows), trees.value.shape[1]))
    total += arrays["forest.start"] if boosted else 0
    _add_trees(seen, trees, total)
    if not boosted:
        mean: npt.NDArray[np.float64] = total / (len(trees.first) - 1)
        return mean
    grown = np.exp(total - total.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = grown / grown.sum(axis=1, keepdims=True)
    return shares


class _Trees(NamedTuple):
    """The arrays of the module's table that a walk through the trees needs."""

    first: Array
    feature: Array
    threshold: Array
    children: Array
    missing: Array
    value: Array


@numba.njit(nogil=True, cache=True)
def _add_trees(rows, trees, total):  # type: ignore[no-untyped-def]
    """Add the leaf of every tree to `total`, row by row."""
    first, feature, threshold, children, missing, value = trees
    for i in range(rows.shape[0]):
        for tree in range(first.shape[0] - 1):
            node = first[tree]
            while feature[node] >= 0:
                x = rows[i, feature[node]]
                left = missing[node] == 1 if np.isnan(x) else x <= threshold[node]
                node = children[node, 0 if left else 1]
            for k in range(value.shape[1]):
                total[i, k] += value[node, k]


def check_forest(arrays: Mapping[str, Array], columns: int, classes: int) -> None:
    """Raise ValueError if a walk through the trees could leave the arrays or never end."""
    for name, kind in {**_TYPES, "first": np.int64}.items():
        if arrays[f"forest.{name}"].dtype != kind:
            raise ValueError(f"forest.{name} of type {arrays[f'forest.{name}'].dtype}")
    first, feature, children = (arrays[f"forest.{name}"] for name in ("first", "feature", "children"))
    nodes, inner = len(feature), feature >= 0
    shapes = {"threshold": (nodes,), "children": (nodes, 2), "missing": (nodes,), "value": (nodes, classes)}
    for name, shape in shapes.items():
        if arrays[f"forest.{name}"].shape != shape:
            raise ValueError(f"forest.{name} of shape {arrays[f'forest.{name}'].shape}")
    if "forest.start" in arrays and arrays["forest.start"].shape != (classes,):
        raise ValueError("forest.start does not fit the classes")
    roots = first.ndim == 1 and len(first) > 1 and first[0] == 0 and first[-1] == nodes and (np.diff(first) > 0).all()
    # Children come after their parent in both libraries, so a walk always ends.
    later = (children[inner] > np.flatnonzero(inner)[:, None]).all() and (children[inner] < nodes).all()
    if not roots or not later or (feature >= columns).any():
        raise ValueError("nodes of the forest do not make trees")
