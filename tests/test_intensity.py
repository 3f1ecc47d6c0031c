"""Streamed percentiles equal numpy's, for any type, any cut and any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine.base import Plan
from sketchscale.errors import InputError
from sketchscale.geometry import whole
from sketchscale.intensity import array_ranges, channel_ranges, normalize, plan_histogram
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, write_box
from sketchscale.io.ome_zarr.planes import PixelsRef

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f2", "f4", "f8"]


def random_values(seed: int, dtype: str) -> npt.NDArray[Any]:
    """(c, y, x), not constant, with ties, both signs and large magnitudes where the type has them."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 3)), int(rng.integers(1, 20)), int(rng.integers(2, 20)))
    if dtype[0] == "f":
        values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4)).astype(dtype)
    else:
        info = np.iinfo(dtype)
        spread = int(rng.choice([3, 100, min(2**31, int(info.max))]))
        values = rng.integers(max(int(info.min), -spread), min(int(info.max), spread), shape).astype(dtype)
    values[:, 0, 0], values[:, 0, 1] = 1, 0
    return values


def numpy_range(channel: npt.NDArray[Any], low: float, high: float) -> tuple[float, float]:
    a, b = np.percentile(channel.astype(np.float64), (low, high))
    return (float(a), float(b)) if a < b else (float(channel.min()), float(channel.max()))


def plane_of(values: npt.NDArray[Any], name: str) -> PixelsRef:
    c, y, x = values.shape
    ref = ArrayRef(store="memory://intensity", path=name)
    create_array(ref, shape=values.shape, chunks=values.shape, dtype=values.dtype)
    write_box(ref, whole(values.shape), values)
    return PixelsRef(
        array=ref,
        axes="cyx",
        index=(),
        shape=(y, x),
        channels=tuple(f"c{i}" for i in range(c)),
        dtype=str(values.dtype),
        spacing=(1.0, 1.0),
        unit="pixel",
        chunks=(y, x),
    )


def run(plan: Plan[Any]) -> Sequence[Any]:
    return [plan.fn(task, plan.config) for task in plan.tasks]


@pytest.mark.parametrize("dtype", TYPES)
@given(seed=st.integers(0, 2**32 - 1), low=st.floats(0, 49), high=st.floats(50, 100))
@settings(max_examples=15, deadline=None)
def test_ranges_are_numpys_percentiles(dtype: str, seed: int, low: float, high: float) -> None:
    values = random_values(seed, dtype)
    got = array_ranges(values, low=low, high=high)
    assert got == tuple(numpy_range(channel, low, high) for channel in values)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_blocks_of_any_size_give_what_the_whole_gives(dtype: str, seed: int) -> None:
    values = random_values(seed, dtype)
    plane = plane_of(values, dtype)
    rng = np.random.default_rng(seed)
    block = [int(rng.integers(1, n + 2)) for n in plane.shape]
    chosen = [int(c) for c in rng.permutation(values.shape[0])]
    got = channel_ranges(run, plane, block, chosen, low=1, high=99.8)
    assert got == array_ranges(values[chosen], low=1, high=99.8)


def test_short_types_take_one_pass_and_floats_two() -> None:
    for dtype, passes in (("u1", 1), ("u2", 1), ("f4", 2)):
        stages: list[str] = []

        def noted(plan: Plan[Any], stages: list[str] = stages) -> Sequence[Any]:
            stages.append(plan.stage)
            return run(plan)

        channel_ranges(noted, plane_of(random_values(1, dtype), "p" + dtype), (7, 7), low=1, high=99)
        assert len(stages) == len(set(stages)) == passes


def test_a_plan_declares_its_memory() -> None:
    plan = plan_histogram(plane_of(random_values(1, "u2"), "m"), (64, 64))
    assert plan.task_bytes > 0


def test_not_a_number_is_refused_with_its_count_and_place() -> None:
    values = np.ones((1, 8, 8), np.float32)
    values[0, 0, 0] = 0
    values[0, 5, 5], values[0, 7, 7] = np.nan, np.inf
    with pytest.raises(InputError, match=r"has 2 NaN or Inf pixels, the first in box \[4:8, 4:8\]"):
        channel_ranges(run, plane_of(values, "nan"), (4, 4), low=1, high=99)
    with pytest.raises(InputError, match="has 2 NaN"):
        array_ranges(values, low=1, high=99)


def test_a_constant_channel_is_refused_by_name() -> None:
    values = np.zeros((2, 4, 4), np.uint8)
    values[0, 0, 0] = 1
    with pytest.raises(InputError, match=r"channel 'c1' of .* is constant"):
        channel_ranges(run, plane_of(values, "flat"), (4, 4), low=1, high=99)


def test_few_bright_pixels_on_flat_ground_still_have_a_range() -> None:
    values = np.full((1, 100, 100), 7, np.uint8)
    values[0, 3, 3] = 200
    assert array_ranges(values, low=1, high=99.8) == ((7.0, 200.0),)


def test_an_empty_plane_is_refused() -> None:
    with pytest.raises(InputError, match="no pixels"):
        array_ranges(np.zeros((1, 0, 5), np.uint8), low=1, high=99)


@pytest.mark.parametrize("dtype", TYPES)
def test_scaling_is_float32_and_pixel_by_pixel(dtype: str) -> None:
    values = random_values(4, dtype)
    ranges = array_ranges(values, low=1, high=99)
    got = normalize(values, ranges)
    assert got.dtype == np.float32
    for channel, (low, high), scaled in zip(values, ranges, got, strict=True):
        exact = (channel.astype(np.float64) - low) / (high - low)
        np.testing.assert_allclose(scaled, exact, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(normalize(values[:, :, 1:], ranges), got[:, :, 1:])


def test_a_large_offset_does_not_eat_the_signal() -> None:
    values = np.array([[[2**30, 2**30 + 1, 2**30 + 2]]], np.uint32)
    np.testing.assert_array_equal(normalize(values, [(2.0**30, 2.0**30 + 2)]), [[[0, 0.5, 1]]])


def test_another_number_of_ranges_than_channels_is_refused() -> None:
    with pytest.raises(InputError, match="2 channels and 1 ranges"):
        normalize(np.zeros((2, 3, 3), np.uint8), [(0.0, 1.0)])
