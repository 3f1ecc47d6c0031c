"""Train a classifier on annotated objects, and score it on held-out objects.

    1. a fifth of each class is held out, a first training runs on the rest and is scored on the held-out objects
    2. with few objects this is repeated with other fifths until 20 objects are scored, at most three times
    3. the classifier itself is trained on all objects, so the score is a conservative one

Training is seeded and runs on one thread: the same objects give the same weights, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

from sketchscale.errors import InputError
from sketchscale.objects.classifiers.base import Classifier, ClassifierConfig, Patches, find_classifier
from sketchscale.objects.classifiers.files import classifier_digest
from sketchscale.objects.classifiers.fitting import fit_network
from sketchscale.objects.classifiers.forests import fit_forest
from sketchscale.objects.classifiers.options import TrainingOptions
from sketchscale.objects.classifiers.scores import class_scores

__all__ = ["train_classifier"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_JUDGED = 20
"""Objects that should be scored; a score on 5 objects means little."""

_PARTS = 3
"""Most held-out parts; each takes one training of some seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Examples:
    """Patches or rows of training objects, or both, and their classes."""

    patches: Patches | None
    rows: Floats | None
    targets: Ints

    def take(self, chosen: npt.NDArray[np.bool_]) -> _Examples:
        return _Examples(
            patches=None if self.patches is None else self.patches[chosen],
            rows=None if self.rows is None else self.rows[chosen],
            targets=self.targets[chosen],
        )


def train_classifier(
    patches: Patches | None,
    rows: Floats | None,
    names: Sequence[str],
    *,
    kind: str = "light",
    channels: Sequence[str],
    ranges: Sequence[tuple[float, float]],
    features: Sequence[str] = (),
    options: TrainingOptions | None = None,
    init: Classifier | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Classifier:
    """Train on annotated objects.

    Args:
        patches: (n, C + 1, [s,] s, s) of `read_patches`, from one or more images; None for a kind that needs none.
        rows: (n, F) of `feature_rows`; None for a kind that needs none.
        names: class of each object.
        kind: name in CLASSIFIERS.
        channels, ranges: of the images, as the patches were cut.
        features: names of the columns of `rows`.
        init: a classifier of the same kind and channels to start from. Size and patch preparation of its network are
            kept; with other classes the last layer is new. Forests are always trained from scratch. The score is
            unbiased only for objects that `init` was not trained on.
        provenance: kept with the classifier; the options and the score are added.

    Returns:
        A classifier with classes in alphabetical order. `provenance["held_out"]` is from `class_scores`, or None if no
        class has enough objects to hold one out.

    Raises:
        InputError: there are fewer than two classes, or patches, rows or `init` do not fit.
        UnknownNameError: the kind is unknown, or a class has no weight.
    """
    options = options or TrainingOptions()
    classes = tuple(sorted(set(names)))
    made = find_classifier(kind)
    if made.network is not None and patches is None:
        raise InputError.of(found=f"no patches for {kind}", expected="one per object", fix="cut them with read_patches")
    if made.forest is not None and rows is None:
        raise InputError.of(found=f"no table rows for {kind}", expected="one per object", fix="take feature_rows")
    config = ClassifierConfig(
        kind=kind,
        channels=tuple(channels),
        classes=classes,
        side=0 if made.network is None or patches is None else patches.shape[-1],
        ranges=() if made.network is None else tuple((float(lo), float(hi)) for lo, hi in ranges),
        dim=cast(Literal[2, 3], 2 if patches is None else min(max(patches.ndim - 2, 2), 3)),
        features=() if made.forest is None else tuple(features),
        network=options.network if init is None else init.config.network,
        patches=options.patches if init is None else init.config.patches,
        network_share=options.network_share,
    )
    targets = np.array([classes.index(name) for name in names], np.int64)
    examples = _checked(patches, rows, targets, config)
    start = {} if init is None else _transferred(init, config)
    score = _held_out_score(examples, config, options, start)
    weights = _fit(examples, config, options, start)
    record = {
        **(provenance or {}),
        "options": asdict(options),
        "examples": {name: int((targets == i).sum()) for i, name in enumerate(classes)},
        "held_out": score,
        "torch": torch.__version__,
        **({} if init is None else {"init": init.sha256}),
    }
    return Classifier(config=config, weights=weights, provenance=record, sha256=classifier_digest(config, weights))


def _checked(patches: Patches | None, rows: Floats | None, targets: Ints, config: ClassifierConfig) -> _Examples:
    """Return the examples that the kind needs; refuse wrong shapes."""
    made, n = find_classifier(config.kind), len(targets)
    patches = None if made.network is None else patches
    rows = None if made.forest is None else rows
    spatial = (config.side,) * config.dim
    if patches is not None and patches.shape != (n, len(config.channels) + 1, *spatial):
        raise InputError.of(
            found=f"patches of shape {patches.shape}",
            expected=f"({n}, {len(config.channels) + 1}, side, side): one per annotation, channels and mask",
            fix="cut them with read_patches",
        )
    if rows is not None and rows.shape != (n, len(config.features)):
        raise InputError.of(
            found=f"table rows of shape {rows.shape}",
            expected=f"({n}, {len(config.features)}): one per annotation, one column per feature",
            fix="take them with feature_rows",
        )
    return _Examples(patches=patches, rows=rows, targets=targets)


def _transferred(init: Classifier, config: ClassifierConfig) -> dict[str, Array]:
    """Return the weights of another network that are reused."""
    old = init.config
    if (old.kind, old.channels, old.dim) != (config.kind, config.channels, config.dim):
        raise InputError.of(
            found=f"a {old.kind} classifier in {old.dim}-D of channels {', '.join(old.channels)} to start from",
            expected=f"{config.kind} in {config.dim}-D of channels {', '.join(config.channels)}",
            fix="start from another, or from none",
        )
    same = old.classes == config.classes
    return {
        name: values
        for name, values in init.weights.items()
        if not name.startswith("forest.") and (same or not name.startswith("fc."))
    }


def _fit(
    examples: _Examples, config: ClassifierConfig, options: TrainingOptions, start: Mapping[str, Array]
) -> dict[str, Array]:
    """Train the parts of the kind and return their weights."""
    made, balance = find_classifier(config.kind), _class_weights(examples.targets, config.classes, options)
    weights: dict[str, Array] = {}
    if examples.patches is not None:
        weights |= fit_network(examples.patches, examples.targets, balance, config, options, start)
    if examples.rows is not None and made.forest is not None:
        targets = examples.targets
        weights |= fit_forest(made.forest, examples.rows, targets, balance, options=options.forest, seed=options.seed)
    return weights


def _class_weights(targets: Ints, classes: Sequence[str], options: TrainingOptions) -> Floats:
    """Return (L,) weights of an example of each class."""
    given = options.class_weights
    if isinstance(given, str):
        counts = np.bincount(targets, minlength=len(classes))
        balanced = len(targets) / (len(classes) * np.maximum(counts, 1))
        return balanced if given == "balanced" else np.ones(len(classes))
    lacking = [name for name in classes if not given.get(name, 0) > 0]
    if lacking:
        raise InputError.of(
            found=f"no weight above 0 for class {lacking[0]!r}",
            expected=f"one for each of {', '.join(classes)}",
            fix="add it",
        )
    return np.array([float(given[name]) for name in classes])


def _held_out_score(
    examples: _Examples, config: ClassifierConfig, options: TrainingOptions, start: Mapping[str, Array]
) -> dict[str, Any] | None:
    found, true = [], []
    for part in _held_out_parts(examples.targets, options):
        first = Classifier(config=config, weights=_fit(examples.take(~part), config, options, start))
        held_out = examples.take(part)
        batches = [] if held_out.patches is None else [held_out.patches]
        found.append(first.predict(batches, held_out.rows, device=options.device, precision=options.precision))
        true.append(held_out.targets)
    if not found:
        return None
    return class_scores(np.concatenate(found), np.concatenate(true), config.classes)


def _held_out_parts(targets: Ints, options: TrainingOptions) -> list[npt.NDArray[np.bool_]]:
    """Return disjoint parts with the same share of each class; at least one object of each class is not held out."""
    rng = np.random.default_rng((options.seed, 1))
    order = {int(kind): rng.permutation(np.flatnonzero(targets == kind)) for kind in np.unique(targets)}
    share = {kind: min(round(options.held_out * len(rows)), len(rows) - 1) for kind, rows in order.items()}
    parts: list[npt.NDArray[np.bool_]] = []
    while len(parts) < _PARTS and sum(int(part.sum()) for part in parts) < _JUDGED:
        part = np.zeros(len(targets), bool)
        for kind, rows in order.items():
            part[rows[len(parts) * share[kind] : (len(parts) + 1) * share[kind]]] = True
        if not part.any():
            break
        parts.append(part)
    return parts
