"""Distances between two sets of feature vectors as distributions, to compare images that do not show the same objects.

    Fréchet   as if both were normal: how far apart means and covariances are; always too large for few vectors
    kernel    no assumption, and unbiased for any number of vectors: it can be below 0 for similar sets

Both depend on the units of the features: if these differ, divide each feature by its spread first. Rotating all vectors
together changes neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError

__all__ = ["KernelDistance", "frechet_distance", "kernel_distance"]

Floats = npt.NDArray[np.float64]


def frechet_distance(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating]) -> float:
    """Return the Fréchet distance of two sets as if normal: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).

    No matrix root is taken: with C1 = A'A and C2 = B'B, the trace of the root is the sum of the singular values of AB',
    which is real and stable for covariances of any rank.

    With fewer vectors than features the covariances lack directions, and the distance is dominated by chance and large
    even for sets of the same distribution. It falls with the number of vectors: compare only distances of equally many
    vectors, together with the distance of two sets known to be similar.

    Args:
        first, second: (n, d) and (m, d), at least 2 vectors each; covariances are divided by n - 1 and m - 1.

    Returns:
        At least 0; 0 for the same vectors in any order. A squared distance, in squared units of the features.

    Raises:
        InputError: fewer than 2 vectors, different features, or values that are not finite.

    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule", equation 6 (there on features of an
    Inception network); Dowson and Landau 1982 for the distance.

    >>> round(frechet_distance(np.array([[0.0], [2.0]]), np.array([[3.0], [5.0]])), 9)
    9.0
    """
    x, y = _checked(first, second, least=2)
    a, b = _root(x), _root(y)
    shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    apart = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return max(0.0, float(apart + (a**2).sum() + (b**2).sum() - 2 * shared))


def _root(x: Floats) -> Floats:
    """Return A with A'A = the covariance, with at most d rows."""
    centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    root: Floats = np.linalg.qr(centred).R if len(x) > x.shape[1] else centred
    return root


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelDistance:
    """Kernel distance over random subsets.

    Attributes:
        mean: over the subsets; 0 on average for equal distributions, so it may be negative.
        deviation: standard deviation over the subsets, the spread of one estimate from `size` vectors on each side.
        size, subsets: number of vectors drawn from each side, and number of draws.
    """

    mean: float
    deviation: float
    size: int
    subsets: int


def kernel_distance(
    first: npt.NDArray[np.floating],
    second: npt.NDArray[np.floating],
    *,
    size: int | None = None,
    subsets: int = 100,
    seed: int = 0,
) -> KernelDistance:
    """Return the kernel distance of two sets: the unbiased squared maximum mean discrepancy of (x.y / d + 1)^3.

        mean of k(x, x') over pairs of first  +  mean of k(y, y') over pairs of second  -  2 mean of k(x, y)

    No vector is paired with itself.

    Args:
        first, second: (n, d) and (m, d), at least 4 vectors each.
        size: vectors of each subset, at least 2, drawn without repeats; None means half of the smaller set, at most
            1000. With the size of a set, all its subsets are equal, and `deviation` ignores that set.
        subsets: number of subsets.
        seed: of the draws; equal arguments give equal results.

    Raises:
        InputError: too few vectors, a size that is larger than a set, no subset, or values that are not finite.

    Source: Bińkowski et al. 2018, "Demystifying MMD GANs", section 4; the estimator is that of Gretton et al. 2012,
    lemma 6.

    >>> same = np.random.default_rng(0).standard_normal((2, 200, 3))
    >>> abs(kernel_distance(*same).mean) < 0.1
    True
    """
    x, y = _checked(first, second, least=4)
    chosen = min(1000, len(x) // 2, len(y) // 2) if size is None else size
    if not 2 <= chosen <= min(len(x), len(y)) or subsets < 1:
        raise InputError.of(
            found=f"{subsets} subsets of {chosen} from sets of {len(x)} and {len(y)}",
            expected="at least one, of 2 or more and no more than there are",
            fix="leave size and subsets out",
        )
    rng = np.random.default_rng(seed)
    found: list[float] = []
    for _ in range(subsets):
        a, b = (s[rng.choice(len(s), chosen, replace=False, shuffle=False)] for s in (x, y))
        within = [
            (kernel.sum() - np.trace(kernel)) / (chosen * (chosen - 1)) for kernel in (_kernel(a, a), _kernel(b, b))
        ]
        found.append(float(sum(within) - 2 * _kernel(a, b).mean()))
    return KernelDistance(mean=float(np.mean(found)), deviation=float(np.std(found)), size=chosen, subsets=subsets)


def _kernel(x: Floats, y: Floats) -> Floats:
    base: Floats = x @ y.T / x.shape[1] + 1
    return base * base * base  # a tenth of the time of a power


def _checked(first: npt.NDArray[np.floating], second: npt.NDArray[np.floating], *, least: int) -> tuple[Floats, Floats]:
    """Return both as float64 (n, d) after checking them."""
    x, y = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] < 1 or min(len(x), len(y)) < least:
        raise InputError.of(
            found=f"feature vectors of shapes {x.shape} and {y.shape}",
            expected=f"(n, d) and (m, d) with the same d, n and m at least {least}",
            fix="more vectors, of the same network",
        )
    for name, values in (("first", x), ("second", y)):
        lost = np.flatnonzero(~np.isfinite(values).all(1))
        if lost.size:
            raise InputError.of(
                found=f"vector {lost[0]} of the {name} set holds NaN or Inf",
                expected="numbers",
                fix="look at what it was made from",
            )
    return x, y
