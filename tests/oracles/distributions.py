"""Distances of distributions, slow and obvious: matrix roots by eigenvalues, kernels pair by pair."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def matrix_root(square: Floats) -> Floats:
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(square)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet_of_normals(mean_1: Floats, cov_1: Floats, mean_2: Floats, cov_2: Floats) -> float:
    """As the papers write it, with the root of C1^(1/2) C2 C1^(1/2)."""
    half = matrix_root(cov_1)
    middle = matrix_root(half @ cov_2 @ half)
    return float(((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1 + cov_2 - 2 * middle))


def frechet(first: Floats, second: Floats) -> float:
    moments = [part for x in (first, second) for part in (x.mean(0), np.cov(x.T).reshape(x.shape[1], -1))]
    return frechet_of_normals(*moments)


def discrepancy(first: Floats, second: Floats) -> float:
    """The unbiased estimator with loops over all pairs."""

    def kernel(a: Floats, b: Floats) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def within(x: Floats) -> float:
        pairs = [kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]
        return float(np.mean(pairs))

    across = float(np.mean([kernel(a, b) for a in first for b in second]))
    return within(first) + within(second) - 2 * across
