"""Distances of distributions: against slow twins and against what is known of normal distributions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.evaluation.distributions import frechet_distance, kernel_distance
from tests.oracles.distributions import discrepancy, frechet, frechet_of_normals, matrix_root

Floats = npt.NDArray[np.float64]


def normal(n: int, d: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, d))


def with_moments(n: int, mean: Floats, cov: Floats, seed: int = 0) -> Floats:
    """Vectors whose sample mean and covariance are exactly these."""
    x = normal(n, len(mean), seed)
    x -= x.mean(0)
    white = x @ np.linalg.inv(matrix_root(np.cov(x.T).reshape(len(mean), -1)))
    return white @ matrix_root(cov) + mean


def rotation(d: int, seed: int = 0) -> Floats:
    turned, _ = np.linalg.qr(normal(d, d, seed))
    return turned


@settings(max_examples=60)
@given(n=st.integers(2, 40), m=st.integers(2, 40), d=st.integers(1, 12), seed=st.integers(0, 9999))
def test_frechet_is_what_matrix_roots_give_with_many_and_with_few_vectors(n: int, m: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d))
    x, y = rng.standard_normal((n, d)) @ mix + 1, rng.standard_normal((m, d)) * rng.uniform(0.1, 3, d)
    # eigenvalues of 1e-16 have roots of 1e-8, which the twin adds up
    assert frechet_distance(x, y) == pytest.approx(frechet(x, y), rel=1e-5, abs=1e-5)


def test_frechet_of_normals_with_equal_covariance_is_the_squared_distance_of_their_means() -> None:
    cov = np.cov(normal(50, 4, 1).T)
    x, y = with_moments(30, np.zeros(4), cov, 2), with_moments(20, np.array([3.0, 0.0, 4.0, 0.0]), cov, 3)
    assert frechet_distance(x, y) == pytest.approx(25)


@pytest.mark.parametrize("scale", [0.25, 1.0, 9.0])
def test_frechet_of_round_normals_is_known(scale: float) -> None:
    x = with_moments(30, np.zeros(5), np.eye(5), 1)
    y = with_moments(40, np.full(5, 2.0), scale * np.eye(5), 2)
    assert frechet_distance(x, y) == pytest.approx(5 * 4 + 5 * (1 - scale**0.5) ** 2)


def test_frechet_of_covariances_that_do_not_commute_is_known() -> None:
    cov_1, cov_2 = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[5.0, -2.0], [-2.0, 1.0]])
    x, y = with_moments(25, np.zeros(2), cov_1, 1), with_moments(35, np.ones(2), cov_2, 2)
    # tr of the root of a 2 x 2 matrix M with positive eigenvalues: sqrt(tr M + 2 sqrt(det M))
    product = cov_1 @ cov_2
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet_distance(x, y) == pytest.approx(2 + np.trace(cov_1 + cov_2) - 2 * root)
    assert frechet_of_normals(np.zeros(2), cov_1, np.ones(2), cov_2) == pytest.approx(frechet_distance(x, y))


@pytest.mark.parametrize("n", [5, 100])
def test_frechet_of_a_set_and_itself_is_zero_whatever_the_order(n: int) -> None:
    x = normal(n, 20)
    assert frechet_distance(x, x[::-1]) == pytest.approx(0, abs=1e-9)


def test_frechet_of_the_same_distribution_falls_with_the_number_of_vectors() -> None:
    few, many = (frechet_distance(normal(n, 20, 1), normal(n, 20, 2)) for n in (10, 1000))
    assert few > 10 > 1 > many > 0


@settings(max_examples=30)
@given(n=st.integers(4, 30), m=st.integers(4, 30), d=st.integers(1, 10), seed=st.integers(0, 999))
def test_both_distances_stay_the_same_under_rotation_and_exchange(n: int, m: int, d: int, seed: int) -> None:
    x, y = normal(n, d, seed), 1.5 * normal(m, d, seed + 1) + 1
    turned = rotation(d, seed)
    assert frechet_distance(x @ turned, y @ turned) == pytest.approx(frechet_distance(x, y), abs=1e-9)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), abs=1e-9)
    one, other = kernel_distance(x, y, subsets=3), kernel_distance(x @ turned, y @ turned, subsets=3)
    assert other.mean == pytest.approx(one.mean, abs=1e-8)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(4, 15), d=st.integers(1, 6), seed=st.integers(0, 999))
def test_kernel_distance_of_all_vectors_is_what_pair_by_pair_gives(n: int, d: int, seed: int) -> None:
    x, y = normal(n, d, seed), 2 * normal(n, d, seed + 1) - 1
    whole = kernel_distance(x, y, size=n, subsets=2)
    assert whole.mean == pytest.approx(discrepancy(x, y), rel=1e-9, abs=1e-9)
    assert whole.deviation == pytest.approx(0, abs=1e-9)


def test_kernel_distance_of_equal_distributions_is_zero_on_average() -> None:
    found = [kernel_distance(normal(8, 3, 2 * s), normal(8, 3, 2 * s + 1), size=8, subsets=1).mean for s in range(2000)]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found)) < 4 * error
    # a vector paired with itself would add this much, many errors more
    assert error < 0.05
    assert min(found) < 0


def test_kernel_distance_has_its_known_mean_for_shifted_normals_of_one_feature() -> None:
    # E k = E (xy + 1)^3 = E[x^3]E[y^3] + 3 E[x^2]E[y^2] + 3 E[x]E[y] + 1; of N(1, 1): 1, 2, 4
    expected = (0 + 3 + 0 + 1) + (16 + 12 + 3 + 1) - 2 * (0 + 3 * 2 + 0 + 1)
    found = kernel_distance(normal(4000, 1, 1), normal(4000, 1, 2) + 1, size=500, subsets=40)
    assert found.mean == pytest.approx(expected, rel=0.1)


def test_subsets_are_drawn_by_the_seed() -> None:
    x, y = normal(40, 3, 1), normal(30, 3, 2)
    one = kernel_distance(x, y, seed=5)
    assert one == kernel_distance(x, y, seed=5) != kernel_distance(x, y, seed=6)
    assert one.size == 15
    assert one.deviation > 0


def test_kernel_distance_does_not_grow_as_vectors_become_few_frechet_does() -> None:
    few = [(normal(10, 20, 2 * s), normal(10, 20, 2 * s + 1)) for s in range(40)]
    assert np.mean([frechet_distance(*pair) for pair in few]) > 10
    assert abs(np.mean([kernel_distance(*pair, subsets=5).mean for pair in few])) < 0.3


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (normal(1, 3), normal(5, 3), r"\(1, 3\) and \(5, 3\)"),
        (normal(5, 3), normal(5, 4), "the same d"),
        (normal(5, 0), normal(5, 0), "the same d"),
        (normal(5, 3)[0], normal(5, 3), "the same d"),
        (np.full((5, 3), np.nan), normal(5, 3), "vector 0 of the first set"),
        (normal(5, 3), np.full((5, 3), np.inf), "vector 0 of the second set"),
    ],
)
def test_what_has_no_distance_is_refused(x: Floats, y: Floats, said: str) -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(InputError, match=said):
            distance(x, y)


@pytest.mark.parametrize(("size", "subsets"), [(1, 5), (6, 5), (2, 0)])
def test_subsets_that_cannot_be_drawn_are_refused(size: int, subsets: int) -> None:
    with pytest.raises(InputError, match="from sets of 5 and 9"):
        kernel_distance(normal(5, 2), normal(9, 2), size=size, subsets=subsets)
