from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sketchscale.annotations.simulate import (
    INTERIOR_STYLES,
    STYLES,
    InteriorStyle,
    simulate_interior,
    simulate_strokes,
)
from sketchscale.annotations.simulate_mask import simulate_mask
from sketchscale.errors import InputError


def blobs(shape: tuple[int, int], n: int, seed: int) -> npt.NDArray[np.int32]:
    """Touching objects of odd shapes on some background: nearest of n random centres, cut by a smooth random field."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (n, 2))
    at = np.moveaxis(np.indices(shape), 0, -1)[:, :, None, :]
    nearest = ((at - centres) ** 2).sum(axis=-1).argmin(axis=-1) + 1
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    return np.where(field > np.quantile(field, 0.4), nearest, 0).astype(np.int32)


def has_other_neighbour(labels: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    padded = np.pad(labels, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.any([neighbour != labels for neighbour in around], axis=0)


LABELS = st.builds(blobs, st.tuples(st.integers(1, 60), st.integers(1, 60)), st.integers(1, 12), st.integers(0, 999))


@given(LABELS, st.sampled_from(STYLES), st.integers(0, 99), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_strokes_are_never_wrong(labels: npt.NDArray[np.int32], style: str, seed: int, n: int) -> None:
    if not labels.any():
        return
    sketch = simulate_strokes(labels, n_objects=n, seed=seed, style=style)  # type: ignore[arg-type]
    raster = sketch.rasterize()
    assert not labels[raster.labels == 0].any()
    assert has_other_neighbour(labels)[raster.boundary].all()
    for k in range(1, raster.labels.max() + 1):
        (true,) = np.unique(labels[raster.labels == k])
        assert true > 0
    assert sketch.conflicts() == ()


@given(LABELS, st.sampled_from(INTERIOR_STYLES), st.integers(0, 99), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_strokes_inside_are_never_wrong_and_say_which_object_they_are_in(
    labels: npt.NDArray[np.int32], style: InteriorStyle, seed: int, n: int
) -> None:
    if not labels.any():
        return
    sketch = simulate_interior(labels, n_objects=n, seed=seed, style=style)
    raster = sketch.rasterize()
    assert not labels[raster.labels == 0].any()
    assert not raster.boundary.any()
    found = [np.unique(labels[raster.labels == k]) for k in range(1, raster.labels.max() + 1)]
    assert len(found) == min(n, len(np.unique(labels[labels > 0]))) == len(raster.numbered)
    assert all(true.size == 1 and true[0] > 0 for true in found)
    assert len({int(true[0]) for true in found}) == len(found)
    sketch.check()
    if style == "points":
        assert (raster.labels > 0).sum() == len(found)
        assert (raster.labels == 0).sum() == min(n, (labels == 0).sum())


@given(LABELS, st.floats(0.5, 100), st.floats(0.5, 100), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_masks_tell_the_truth_on_the_asked_share_and_are_nested(
    labels: npt.NDArray[np.int32], p: float, q: float, seed: int
) -> None:
    few, many = (simulate_mask(labels, percent, seed=seed).rasterize().labels for percent in sorted((p, q)))
    assert (few >= 0).sum() == round(labels.size * min(p, q) / 100)
    assert (many >= 0)[few >= 0].all()
    np.testing.assert_array_equal(many[few >= 0] > 0, labels[few >= 0] > 0)
    pairs = np.unique(np.stack([many[many > 0], labels[many > 0]]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@pytest.mark.parametrize("percent", [5, 50])
def test_masks_are_white_noise_behind_a_gaussian_of_ten_pixels(percent: float) -> None:
    """The oracle filters in the frequency domain; the standard deviation is that of the paper, in px."""
    shape, sigma = (160, 200), 10.0
    noise = np.random.default_rng(3).standard_normal(shape)
    y, x = (np.fft.fftfreq(side) for side in shape)
    transfer = np.exp(-2 * (np.pi * sigma) ** 2 * (y[:, None] ** 2 + x**2))
    field = np.fft.ifft2(np.fft.fft2(noise) * transfer).real
    expected = field > np.quantile(field, 1 - percent / 100)
    kept = simulate_mask(np.ones(shape, np.int32), percent, seed=3).rasterize().labels >= 0
    assert (kept & expected).sum() > 0.99 * (kept | expected).sum()


def test_the_same_seed_draws_the_same_sketch_and_another_seed_another() -> None:
    labels = blobs((64, 64), 9, 4)
    hashes = [simulate_strokes(labels, n_objects=4, seed=seed).sha256 for seed in (5, 5, 6)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert simulate_mask(labels, 10, seed=5).sha256 == simulate_mask(labels, 10, seed=5).sha256


def test_styles_paint_all_half_and_little_of_the_outlined_objects() -> None:
    y, x = np.indices((80, 80))
    labels = ((y - 40) ** 2 + (x - 40) ** 2 < 400).astype(np.int32)
    shares = {
        style: (simulate_strokes(labels, seed=1, style=style).rasterize().labels > 0).sum() / labels.sum()
        for style in ("fill", "half", "scribble")
    }
    assert shares["fill"] > 0.97
    assert 0.4 < shares["half"] < 0.6
    assert 0 < shares["scribble"] < 0.35


def test_a_person_can_train_from_it() -> None:
    labels = blobs((120, 120), 20, 2)
    sketch = simulate_strokes(labels, n_objects=10, seed=0)
    sketch.check()
    summary = sketch.summary()
    assert summary.objects >= 10
    assert summary.pixels["background"] > 300
    assert summary.pixels["boundary"] > 100


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        simulate_strokes(np.zeros((9, 9), np.int32))
    with pytest.raises(InputError, match="did you mean 'fill'"):
        simulate_strokes(np.ones((9, 9), np.int32), style="fil")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'points'"):
        simulate_interior(np.ones((9, 9), np.int32), style="point")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2-D integer"):
        simulate_mask(np.ones((9, 9), np.float32), 10)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="percent 0"):
        simulate_mask(np.ones((9, 9), np.int32), 0)
