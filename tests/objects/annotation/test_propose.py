"""Proposals: drawn without favour, the least certain, the least alike; the same for any order, batch or numbering."""

from __future__ import annotations

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.annotation.propose import (
    STRATEGIES,
    Candidates,
    candidates_of,
    choose,
    farthest_first,
    feature_names,
    keep,
    object_keys,
    pool_size,
)

SIZES = {"a.zarr": 200, "b.zarr": 70, "p.zarr/B/3/0": 30}


def table(n: int, seed: int = 0, **more: object) -> pyarrow.Table:
    """Objects in rows of a lattice, as neighbouring objects are; few sizes, two classes."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    columns = {
        "label": np.arange(1, n + 1),
        "y": np.arange(n) // 20 * 12.0,
        "x": np.arange(n) % 20 * 12.0,
        "area": rng.integers(30, 35, n),
        "eccentricity": rng.random(n),
        "class": np.where(p > 0.5, "round", "long"),
        "prob_round": p,
        "prob_long": 1 - p,
    }
    return pyarrow.table({**columns, **more})


def pools(by: str, seed: int, tables: dict[str, pyarrow.Table]) -> list[Candidates]:
    return [
        candidates_of(one, number=i, image=name, seed=seed, by=by, features=("area", "eccentricity"))
        for i, (name, one) in enumerate(tables.items())
    ]


def proposed(by: str, n: int, seed: int, tables: dict[str, pyarrow.Table]) -> list[tuple[str, float, float]]:
    names = list(tables)
    found = choose(keep(pools(by, seed, tables), pool_size(by, n)), n, by)
    return [(names[i], *center) for i, center in zip(found.image, found.center.tolist(), strict=True)]


def test_every_object_of_every_image_is_drawn_equally_often() -> None:
    """Chi-square over 300 seeds; draws without replacement vary less than multinomial ones by 1 - n / N."""
    tables, n, seeds = {name: table(size) for name, size in SIZES.items()}, 15, 300
    total = sum(SIZES.values())
    times = np.zeros((3, 200))
    firsts = np.zeros((3, 200))
    for seed in range(seeds):
        found = keep(pools("random", seed, tables), n)
        times[found.image, found.label - 1] += 1
        firsts[found.image[0], found.label[0] - 1] += 1
    drawn = np.concatenate([times[i, :size] for i, size in enumerate(SIZES.values())])
    expected = seeds * n / total
    statistic = ((drawn - expected) ** 2 / expected).sum() / (1 - n / total)
    assert 0.001 < stats.chi2.sf(statistic, total - 1) < 0.999
    by_image = np.array([times[i].sum() for i in range(3)])
    shares = np.array(list(SIZES.values())) / total
    assert stats.chisquare(by_image, seeds * n * shares).pvalue > 0.001
    areas = np.concatenate([one["area"].to_numpy() for one in tables.values()])
    by_area = [drawn[areas == a].sum() for a in range(30, 35)]
    assert stats.chisquare(by_area, [expected * (areas == a).sum() for a in range(30, 35)]).pvalue > 0.001
    assert stats.chisquare(firsts.sum(axis=1), seeds * shares).pvalue > 0.001


def test_pairs_are_drawn_as_often_as_chance_has_it() -> None:
    """Neighbours in a row are not drawn together more often than others."""
    one, n, seeds = {"a.zarr": table(60)}, 12, 400
    together = 0
    for seed in range(seeds):
        found = np.sort(keep(pools("random", seed, one), n).label)
        together += int((np.diff(found) == 1).sum())
    expected = seeds * 59 * (n * (n - 1)) / (60 * 59)
    assert abs(together - expected) < 4 * np.sqrt(expected)


@given(
    st.sampled_from(STRATEGIES),
    st.integers(0, 1000),
    st.integers(1, 40),
    st.permutations(list(SIZES)),
    st.integers(9, 80),
)
@settings(max_examples=25)
def test_order_of_images_batches_and_numbers_changes_nothing(
    by: str, seed: int, n: int, order: list[str], batch: int
) -> None:
    tables = {name: table(size, seed=i) for i, (name, size) in enumerate(SIZES.items())}
    expected = proposed(by, n, seed, tables)
    rng = np.random.default_rng(seed)
    shuffled = {}
    for name in order:
        rows = rng.permutation(tables[name].num_rows)
        renamed = tables[name].set_column(0, "label", pyarrow.array(rng.permutation(10 * len(rows))[: len(rows)] + 1))
        shuffled[name] = renamed.take(rows)
    assert proposed(by, n, seed, shuffled) == expected
    held: list[Candidates] = []
    for i, one in enumerate(tables.values()):
        for start in range(0, one.num_rows, batch):
            name = list(tables)[i]
            part = one.slice(start, batch)
            new = candidates_of(part, number=i, image=name, seed=seed, by=by, features=("area", "eccentricity"))
            held = [keep([*held, new], pool_size(by, n))]
    names = list(tables)
    found = choose(held[0], n, by)
    assert [(names[i], *c) for i, c in zip(found.image, found.center.tolist(), strict=True)] == expected


def test_fewer_random_proposals_are_the_first_of_more() -> None:
    tables = {name: table(size) for name, size in SIZES.items()}
    assert proposed("random", 50, 3, tables)[:20] == proposed("random", 20, 3, tables)
    assert proposed("random", 20, 3, tables) != proposed("random", 20, 4, tables)
    assert len(proposed("random", 999, 3, tables)) == 300


def test_uncertainty_is_the_margin_between_the_two_best() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.9, 0.1, 0.0], [np.nan] * 3])
    columns = {f"prob_{name}": probabilities[:, i] for i, name in enumerate("abc")}
    one = pyarrow.table({"label": [1, 2, 3, 4], "y": [0.0, 1, 2, 3], "x": [0.0] * 4, "area": [5] * 4, **columns})
    pool = keep([candidates_of(one, number=0, image="a", seed=0, by="uncertainty")], 4)
    assert pool.label.tolist() == [4, 2, 1, 3]
    np.testing.assert_allclose(pool.rank, [0, 0.05, 0.2, 0.8])
    plain = one.drop_columns(list(columns)).append_column("class_prob", pyarrow.array([0.9, 0.6, None, 0.7]))
    pool = keep([candidates_of(plain, number=0, image="a", seed=0, by="uncertainty")], 4)
    assert pool.label.tolist() == [3, 2, 4, 1]


def test_annotated_objects_are_not_proposed_and_kept_away_from() -> None:
    one = table(40, in_training=np.arange(40) < 10)
    pool = keep([candidates_of(one, number=0, image="a", seed=0, by="random")], 99)
    assert sorted(pool.label) == list(range(11, 41))
    known = candidates_of(one, number=0, image="a", seed=0, by="random", annotated=True)
    assert sorted(known.label) == list(range(1, 11))
    line = np.arange(11.0)[:, None]
    assert farthest_first(line, 2).tolist() == [5, 0]
    assert farthest_first(line, 2, shown=np.array([[0.0]])).tolist() == [10, 5]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
@settings(max_examples=25)
def test_farthest_first_agrees_with_trying_all(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(int(rng.integers(1, 30)), 3)) * [1, 50, 0]
    points = (features - features.mean(axis=0)) / np.where(features.std(axis=0) > 0, features.std(axis=0), 1)
    chosen = [int(np.argmin((points**2).sum(axis=1)))]
    while len(chosen) < min(n, len(points)):
        gaps = [
            min(((p - points[c]) ** 2).sum() for c in chosen) if i not in chosen else -1 for i, p in enumerate(points)
        ]
        chosen.append(int(np.argmax(gaps)))
    assert farthest_first(features, n).tolist() == chosen


def test_dirt_and_missing_values_do_not_take_over() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 2))
    features[7, 0], features[8, 1], features[9] = 1e9, np.inf, np.nan
    assert len(set(farthest_first(features, 20).tolist())) == 20
    assert np.isfinite(features[farthest_first(features, 20)][:, 0]).sum() >= 19


def test_both_is_diverse_among_the_least_certain() -> None:
    one = {"a": table(500)}
    chosen = proposed("both", 5, 0, one)
    uncertain = proposed("uncertainty", 50, 0, one)
    assert set(chosen) <= set(uncertain)
    assert set(chosen) != set(uncertain[:5])


def test_features_are_what_the_object_is_not_where() -> None:
    one = table(3, box_y_start=[1, 2, 3], in_training=[True] * 3, class_prob=[0.5] * 3, mean_c0=[1.0, 2, 3])
    assert feature_names(dict(zip(one.schema.names, one.schema.types, strict=True))) == (
        "area",
        "eccentricity",
        "mean_c0",
    )


def test_keys_differ_between_images_seeds_places_and_sizes() -> None:
    center = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [-0.0, 1.0], [0.0, 1.0]])
    keys = object_keys(center, np.array([5, 5, 6, 5, 5]), "a", 0)
    assert len(set(keys.tolist())) == 4
    assert keys[3] == keys[4]
    assert not set(keys.tolist()) & set(object_keys(center, np.array([5, 5, 6, 5, 5]), "b", 0).tolist())


def test_what_is_missing_is_named() -> None:
    one = table(3)
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        candidates_of(one, number=0, image="a", seed=0, by="randm")
    with pytest.raises(InputError, match="run classify apply first"):
        candidates_of(one.drop_columns(["prob_round"]), number=0, image="a", seed=0, by="uncertainty")
    with pytest.raises(InputError, match="expected: label, y and x"):
        candidates_of(one.drop_columns(["y"]), number=0, image="a", seed=0, by="random")
    flat = candidates_of(one, number=0, image="a", seed=0, by="random")
    deep = candidates_of(one.append_column("z", pyarrow.array([1.0] * 3)), number=1, image="b", seed=0, by="random")
    with pytest.raises(InputError, match="planes and of volumes"):
        keep([flat, deep], 9)


def test_objects_of_one_key_follow_in_one_order_whatever_the_pools():
    rings = pyarrow.table({"label": [7, 3], "y": [5.0, 5.0], "x": [5.0, 5.0], "area": [9, 9]})
    one, other = (candidates_of(rings.slice(i, 1), number=0, image="a", seed=0, by="random") for i in (0, 1))
    assert keep([one, other], 2).label.tolist() == keep([other, one], 2).label.tolist() == [3, 7]
