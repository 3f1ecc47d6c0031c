"""Propose objects to annotate next: random, the least certain, or the most different.

    tables, batch by batch ──keep──▶ the best few candidates ──choose──▶ n proposals, best first

Every object has a key, a 64-bit hash of seed, image name, position and size. It decides ties, and the smallest keys are
the random sample: every object is equally likely for any class, size, image or place in a file, and neither object ids
nor the order of images or blocks change the sample. The first m of n random proposals are again a random sample, so a
person may stop early.

    random        unbiased: the only strategy whose results allow an estimate (`review`)
    uncertainty   smallest margin between the two most probable classes (Scheffer et al. 2001)
    diversity     farthest-first: the next object is the one least similar to those shown so far (Gonzalez 1985), by
                  features standardised and clipped at 5 standard deviations, so that dirt does not come first
    both          the most diverse among the 10 n least certain
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from sketchscale.errors import InputError, UnknownNameError

__all__ = [
    "STRATEGIES",
    "Candidates",
    "candidates_of",
    "choose",
    "farthest_first",
    "feature_names",
    "keep",
    "object_keys",
    "pool_size",
]

Floats = npt.NDArray[np.float64]

STRATEGIES = ("random", "uncertainty", "diversity", "both")

_MOST = 100_000
"""Most candidates that diversity compares; of more, a random sample is taken."""

_SHORTLIST = 10
_CUT = 5.0
_NO_FEATURE = ("label", "z", "y", "x", "z_um", "y_um", "x_um", "in_training", "patch_cropped")
_NO_FEATURE_START = ("box_", "prob_", "class")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """n objects that may be proposed, as columns.

    Attributes:
        image: (n,) number of the image.
        label: (n,) ids.
        center: (n, d) centroid in pixels, (y, x) or (z, y, x).
        key: (n,) hash, see `object_keys`.
        rank: (n,) smaller is better; margins of probability, or 0.
        features: (n, f) of the table; NaN where missing.
    """

    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    center: Floats
    key: npt.NDArray[np.uint64]
    rank: Floats
    features: Floats

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: npt.NDArray[Any]) -> Candidates:
        """Return some of the candidates, by index or by mask."""
        return Candidates(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def object_keys(center: Floats, size: npt.NDArray[Any], image: str, seed: int) -> npt.NDArray[np.uint64]:
    """Return a hash of each object that does not depend on its id.

    Args:
        center: (n, d) centroids. size: (n,) areas or volumes. image: name that does not depend on the folder.

    Returns:
        (n,) uniform on 64 bits; equal only for objects of one image with the same centroid and size.

    Source: mixing function of SplitMix64 (Steele, Lea and Flood 2014).

    >>> a = object_keys(np.array([[1.0, 2.0]]), np.array([7]), "a.zarr", 0)
    >>> b = object_keys(np.array([[1.0, 2.0]]), np.array([7]), "a.zarr", 1)
    >>> int(a[0]) == int(b[0])
    False
    """
    start = hashlib.sha256(f"{seed}\n{image}".encode()).digest()[:8]
    key = np.full(len(center), int.from_bytes(start, "little"), np.uint64)
    for column in (*np.asarray(center, np.float64).T, np.asarray(size, np.float64)):
        bits = np.ascontiguousarray(column + 0.0).view(np.uint64)  # + 0.0 makes one of both zeros
        key = _mixed(key ^ _mixed(bits))
    return key


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)), np.uint64)


def feature_names(types: Mapping[str, pyarrow.DataType]) -> tuple[str, ...]:
    """Return numeric columns that describe the object itself: not its id, position, class or probabilities.

    >>> feature_names({"label": pyarrow.int64(), "area": pyarrow.int64(), "prob_a": pyarrow.float32()})
    ('area',)
    """
    return tuple(
        name
        for name, kind in types.items()
        if (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind))
        and name not in _NO_FEATURE
        and not name.startswith(_NO_FEATURE_START)
    )


def candidates_of(
    table: pyarrow.Table,
    *,
    number: int,
    image: str,
    seed: int,
    by: str,
    features: Sequence[str] = (),
    annotated: bool = False,
) -> Candidates:
    """Return the objects of a table, or of a batch of its rows.

    Args:
        number, image: index and name of the image.
        by: one of STRATEGIES.
        features: columns to compare by; needed for diversity.
        annotated: return the objects with `in_training` instead of all others.

    Raises:
        UnknownNameError: the strategy is unknown.
        InputError: a column is missing.
    """
    if by not in STRATEGIES:
        raise UnknownNameError.among("strategy", by, STRATEGIES)
    names = table.column_names
    axes = [name for name in ("z", "y", "x") if name in names]
    size = next((name for name in ("area", "volume") if name in names), None)
    if "label" not in names or axes[-2:] != ["y", "x"]:
        raise InputError.of(
            found=f"a table with columns {', '.join(names)[:80]}", expected="label, y and x", fix="measure the labels"
        )
    known = _numbers(table, "in_training") == 1 if "in_training" in names else np.zeros(table.num_rows, bool)
    rows = np.flatnonzero(known if annotated else ~known)
    center = np.stack([_numbers(table, name) for name in axes], axis=1)[rows]
    rank = _margins(table)[rows] if by in ("uncertainty", "both") else np.zeros(len(rows))
    columns = [_numbers(table, name)[rows] for name in features]
    return Candidates(
        image=np.full(len(rows), number, np.int64),
        label=table.column("label").to_numpy()[rows].astype(np.int64),
        center=center,
        key=object_keys(center, _numbers(table, size)[rows] if size else np.zeros(len(rows)), image, seed),
        rank=rank,
        features=np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0)),
    )


def _numbers(table: pyarrow.Table, name: str) -> Floats:
    """Return a column as float64, NaN where missing."""
    return np.asarray(pc.cast(table.column(name), pyarrow.float64()).to_numpy(), np.float64)


def _margins(table: pyarrow.Table) -> Floats:
    """Return best minus second best probability; 0, the least certain, where there is none."""
    names = [name for name in table.column_names if name.startswith("prob_")]
    if len(names) >= 2:
        ordered = np.sort(np.stack([_numbers(table, name) for name in names], axis=1), axis=1)
        return np.asarray(np.nan_to_num(ordered[:, -1] - ordered[:, -2], nan=0.0), np.float64)
    if "class_prob" not in table.column_names:
        raise InputError.of(
            found="a table without probabilities", expected="classified objects", fix="run classify apply first"
        )
    return np.asarray(np.nan_to_num(2 * _numbers(table, "class_prob") - 1, nan=-1.0), np.float64)


def pool_size(by: str, n: int) -> int:
    """Return how many candidates `choose` needs for n proposals."""
    return {"random": n, "uncertainty": n, "diversity": max(n, _MOST), "both": _SHORTLIST * n}[by]


def keep(pools: Sequence[Candidates], most: int) -> Candidates:
    """Return the best candidates of several pools in any order, best first: by rank, then by key.

    Objects with equal keys (equal centroid and size, such as concentric rings) are ordered by label.

    Raises:
        InputError: planes and volumes are mixed.
    """
    if len({pool.center.shape[1] for pool in pools}) > 1:
        raise InputError("objects of planes and of volumes; expected: one kind; to fix: propose for each by itself")
    whole = Candidates(**{f.name: np.concatenate([getattr(p, f.name) for p in pools]) for f in fields(Candidates)})
    return whole.take(np.lexsort((whole.label, whole.image, whole.key, whole.rank))[:most])


def choose(pool: Candidates, n: int, by: str, shown: Floats | None = None) -> Candidates:
    """Return the n best proposals, best first; all if there are fewer.

    Args:
        pool: of `keep`, with `pool_size` candidates or all there are.
        shown: (m, f) features of objects that are already annotated; diversity avoids similar ones.
    """
    if by in ("random", "uncertainty") or len(pool) == 0:
        return pool.take(np.arange(min(n, len(pool))))
    return pool.take(farthest_first(pool.features, n, shown))


def farthest_first(features: Floats, n: int, shown: Floats | None = None) -> npt.NDArray[np.int64]:
    """Return rows that are far from each other, chosen greedily.

    Args:
        features: (m, f); standardised here over finite values, clipped at 5 standard deviations, NaN becomes the mean.
        n: number of rows.
        shown: (k, f) rows to stay away from; without any, the row nearest to the mean comes first.

    Returns:
        Up to n row numbers; of rows at equal distance, the first.

    Source: Gonzalez (1985), farthest-first traversal: within a factor of two of the best possible largest gap.

    >>> farthest_first(np.array([[0.0], [1.0], [10.0], [4.0]]), 3).tolist()
    [3, 2, 0]
    """
    finite = np.isfinite(features)
    number = np.maximum(finite.sum(axis=0), 1)
    mean = np.where(finite, features, 0.0).sum(axis=0) / number
    spread = np.sqrt((np.where(finite, features - mean, 0.0) ** 2).sum(axis=0) / number)

    def standard(rows: Floats) -> Floats:
        scaled = np.where(np.isfinite(rows), rows - mean, 0.0) / np.where(spread > 0, spread, 1.0)
        return np.asarray(np.clip(scaled, -_CUT, _CUT), np.float64)

    points, avoided = standard(features), shown is not None and len(shown) > 0
    if shown is not None and avoided:
        gap = np.full(len(points), np.inf)
        for other in np.unique(standard(shown), axis=0):
            gap = np.minimum(gap, _squares(points, other))
    else:
        gap = -_squares(points, np.zeros(points.shape[1]))
    chosen: list[int] = []
    for _ in range(min(n, len(points))):
        chosen.append(int(np.argmax(gap)))
        distance = _squares(points, points[chosen[-1]])
        gap = distance if len(chosen) == 1 and not avoided else np.minimum(gap, distance)
        gap[chosen] = -1.0
    return np.array(chosen, np.int64)


def _squares(points: Floats, other: Floats) -> Floats:
    return np.asarray(((points - other) ** 2).sum(axis=1), np.float64)
