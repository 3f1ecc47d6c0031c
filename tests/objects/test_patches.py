"""Windows of objects, in planes and volumes: what a patch holds, whatever else is read with it."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from sketchscale.io.ome_zarr.planes import PixelsRef
from sketchscale.objects import patches as under_test
from sketchscale.objects.patches import cut_patches, estimate_side, object_windows, read_patches
from tests.oracles.patches import padded_patches

_NAMES = itertools.count()


def table_of(labels):
    """Label, centroid and box of every object, by looking at each."""
    rows = []
    for label in np.unique(labels[labels > 0]).tolist():
        places = np.argwhere(labels == label)
        row = {"label": label}
        for axis, column in zip("zyx"[3 - labels.ndim :], places.T, strict=True):
            row |= {axis: column.mean(), f"box_{axis}_start": column.min(), f"box_{axis}_stop": column.max() + 1}
        rows.append(row)
    names = ["label", *(n for a in "zyx"[3 - labels.ndim :] for n in (a, f"box_{a}_start", f"box_{a}_stop"))]
    return pyarrow.table(
        {name: np.array([row[name] for row in rows], float if len(name) == 1 else int) for name in names}
    )


def boxes_drawn(shape, count, seed):
    """Labels of small boxes, some over others and some cut by the edge."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    for label in range(1, count + 1):
        corner = [int(rng.integers(0, n)) for n in shape]
        labels[tuple(slice(c, c + int(rng.integers(1, 6))) for c in corner)] = label
    return labels


def stored(values, chunks):
    ref = ArrayRef(store=f"memory://patches-{next(_NAMES)}", path="a")
    create_array(ref, shape=values.shape, chunks=chunks, dtype=values.dtype)
    open_array(ref, read_only=False)[...] = values
    return ref


def image_of(image, chunk):
    """An image (c, [z,] y, x) in memory, as a plane or a volume."""
    n = image.ndim - 1
    return PixelsRef(
        array=stored(image, (1, *(chunk,) * n)),
        axes="czyx" if n == 3 else "cyx",
        index=(),
        shape=image.shape[1:],
        channels=tuple(f"c{i}" for i in range(len(image))),
        dtype=str(image.dtype),
        spacing=(1.0,) * n,
        unit="pixel",
        chunks=(chunk,) * n,
    )


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.tuples(*[st.integers(1, 30)] * 2), st.tuples(*[st.integers(1, 14)] * 3)),
    st.integers(1, 11),
    st.integers(0, 9),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_patches_read_in_parts_are_those_of_the_padded_image(shape, side, count, reach, mirror, seed):
    labels = boxes_drawn(shape, count, seed)
    image = np.random.default_rng(seed).integers(0, 255, (2, *shape)).astype(np.uint8)
    ranges = ((0.0, 255.0), (10.0, 200.0))
    windows = object_windows(table_of(labels), side)
    expected, cropped = padded_patches(labels, image, side, ranges, mirror)
    whole = cut_patches(labels, image, (0,) * len(shape), windows, ranges, mirror=mirror)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(under_test, "_REACH", {2: reach, 3: reach})
        parts = read_patches(stored(labels, (5,) * len(shape)), image_of(image, 7), windows, ranges, mirror=mirror)
    np.testing.assert_array_equal(whole, expected)
    np.testing.assert_array_equal(parts, expected)
    assert windows.cropped.tolist() == cropped


def test_a_ball_in_a_volume_gets_a_cube_of_voxels():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[3:6, 3:6, 3:6] = 4
    windows = object_windows(table_of(labels), 5)
    assert (windows.shape, windows.corner.tolist(), windows.cropped.tolist()) == ((5, 5, 5), [[2, 2, 2]], [False])
    (patch,) = cut_patches(labels, labels[None], (0, 0, 0), windows, [(0.0, 4.0)])
    assert patch.shape == (2, 5, 5, 5)
    np.testing.assert_array_equal(patch[0], patch[1])
    assert patch[1].sum() == 27


def test_an_object_that_is_long_along_z_alone_makes_the_cube_large_and_is_cropped_by_a_small_one():
    labels = np.zeros((30, 9, 9), np.uint8)
    labels[2:22, 4, 4] = 1
    table = table_of(labels)
    assert estimate_side(table, [1]) == 28
    assert object_windows(table, 9).cropped.tolist() == [True]
    flat = np.zeros((9, 30), np.uint8)
    flat[4, 2:22] = 1
    assert estimate_side(table_of(flat), [1]) == 28


def test_estimated_sides_have_a_limit_that_is_lower_in_volumes():
    flat, deep = np.ones((1, 300), np.uint8), np.ones((1, 1, 300), np.uint8)
    assert (estimate_side(table_of(flat), [1]), estimate_side(table_of(deep), [1])) == (200, 64)
    assert estimate_side(table_of(flat), []) == 12


def test_windows_need_the_columns_of_every_axis():
    table = table_of(boxes_drawn((9, 9, 9), 3, 0))
    with pytest.raises(InputError, match="without box_z_stop"):
        object_windows(table.drop_columns(["box_z_stop"]), 5)
    with pytest.raises(InputError, match="patches of 0 px"):
        object_windows(table, 0)


def test_objects_of_a_volume_are_not_cut_from_a_plane():
    labels = boxes_drawn((9, 9, 9), 3, 0)
    plane = image_of(np.zeros((1, 9, 9), np.uint8), 9)
    with pytest.raises(InputError, match="3 coordinates in an image of"):
        read_patches(stored(labels[0], (9, 9)), plane, object_windows(table_of(labels), 5), [(0.0, 1.0)])
