"""Objects of volumes: the same table for any blocks, and that of scikit-image."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import tile_cover
from sketchscale.objects.measurement.partials import combine_partials
from sketchscale.objects.measurement.solid_features import (
    SOLID_FEATURES,
    choose_solid_features,
    crossing_areas,
    solid_table,
)
from sketchscale.objects.measurement.solids import SOLID_INTENSITIES, SolidConfig, empty_solids, partial_solids
from tests.oracles.solids import solid_features


def clumps(shape, count, seed):
    """Boxes and balls over one another: objects that touch, have holes, lie in pieces or at the faces."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint32)
    places = np.indices(shape)
    for label in range(1, count + 1):
        center, radius = [rng.uniform(0, n) for n in shape], rng.uniform(0.5, 5)
        offset = np.stack([p - c for p, c in zip(places, center, strict=True)])
        norm = np.abs(offset).max(axis=0) if rng.random() < 0.5 else np.sqrt((offset**2).sum(axis=0))
        labels[norm <= radius] = label if rng.random() < 0.8 else 0
    labels[rng.random(shape) < 0.05] = 0
    return labels


def noise(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(3, 100, shape).astype(dtype)
    return rng.integers(0, min(np.iinfo(dtype).max, 2**62), shape).astype(dtype)


def config_of(labels, image, spacing=None):
    return SolidConfig(
        shape=labels.shape,
        channels=tuple(f"c{i}" for i in range(len(image))),
        dtype=str(image.dtype),
        ranges=tuple((float(c.min()), float(c.max())) for c in image),
        spacing=spacing,
    )


def measure(labels, image, config, block=None):
    """The table, by way of blocks."""
    parts = [empty_solids(len(image))]
    padded = np.pad(labels, 1)
    for tile in reversed(tile_cover(labels.shape, block or labels.shape)):
        # padded by one: the halo in front starts at the same index, and zeros behind only where the volume ends
        ends = zip(tile.write.start, tile.write.stop, labels.shape, strict=True)
        window = tuple(slice(a, b + 1 + (b == n)) for a, b, n in ends)
        pixels = image[(slice(None), *tile.write.slices)]
        parts.append(partial_solids(padded[window], pixels, tile.write.start, config))
    return solid_table(combine_partials(parts), config)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 14)] * 3),
    st.tuples(*[st.integers(1, 15)] * 3),
    st.integers(0, 9),
    st.integers(0, 2**16),
    st.sampled_from(("uint8", "uint16", "float32", "uint64")),
)
def test_any_blocks_give_the_bytes_of_the_whole(shape, block, count, seed, dtype):
    labels, image = clumps(shape, count, seed), noise(dtype, (2, *shape), seed)
    config = config_of(labels, image, spacing=(1.5, 0.3, 0.4))
    assert measure(labels, image, config, block).equals(measure(labels, image, config))


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(3, 14)] * 3), st.integers(1, 7), st.integers(0, 2**16))
def test_every_column_is_that_of_scikit_image(shape, count, seed):
    labels, image = clumps(shape, count, seed), noise("uint16", (2, *shape), seed)
    spacing = (2.0, 0.5, 0.7)
    table = measure(labels, image, config_of(labels, image, spacing)).to_pydict()
    expected = solid_features(labels, image, spacing)
    assert table.pop("label") == [row["label"] for row in expected]
    assert "touches_edge" in table
    del table["touches_edge"]
    for name, values in table.items():
        # scikit-image has the surface to as many digits as random directions give
        accuracy = 0.01 if name.startswith("surface") else 1e-7
        atol = 1e-5 if name.startswith("axis") else 1e-9
        np.testing.assert_allclose(values, [row[name] for row in expected], rtol=accuracy, atol=atol, err_msg=name)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.permutations(range(3)), st.tuples(*[st.sampled_from((1, -1))] * 3))
def test_flips_and_transposes_move_positions_and_nothing_else(seed, order, signs):
    labels = clumps((9, 11, 13), 5, seed)
    image = noise("uint16", (1, *labels.shape), seed)
    here = measure(labels, image, config_of(labels, image)).to_pydict()
    flip = tuple(slice(None, None, s) for s in signs)
    moved, pixels = labels[flip].transpose(order), image[0][flip].transpose(order)[None]
    there = measure(moved, pixels, config_of(moved, pixels)).to_pydict()
    for name in ("label", "volume", "euler_number", "touches_edge", "intensity_std_c0", "extent"):
        assert there[name] == here[name], name
    np.testing.assert_allclose(there["surface"], here["surface"])
    np.testing.assert_allclose(there["axis_middle"], here["axis_middle"], atol=1e-5)
    for new, old in enumerate(order):
        at = np.array(here["zyx"[old]])
        np.testing.assert_allclose(there["zyx"[new]], at if signs[old] > 0 else labels.shape[old] - 1 - at)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.permutations(range(1, 6)))
def test_renamed_ids_only_reorder_the_rows(seed, names):
    labels = clumps((8, 9, 10), 5, seed)
    ids = np.unique(labels[labels > 0])
    table = np.zeros(labels.max() + 1, np.uint64)
    table[ids] = np.array(names[: len(ids)]) * 2**33
    image = noise("uint8", (1, *labels.shape), seed)
    config = config_of(labels, image, spacing=(3.0, 1.0, 1.0))
    here = measure(labels, image, config).to_pydict()
    there = measure(table[labels], image, config).to_pydict()
    order = np.argsort(table[here.pop("label")]) if len(ids) else []
    for name, values in here.items():
        assert [values[i] for i in order] == there[name], name


def ball(radius, spacing):
    """One ball of so many um."""
    sizes = [2 * int(radius / s) + 5 for s in spacing]
    places = [(np.arange(n) - n // 2) * s for n, s in zip(sizes, spacing, strict=True)]
    z, y, x = np.meshgrid(*places, indexing="ij")
    return (z**2 + y**2 + x**2 <= radius**2).astype(np.uint32)


@pytest.mark.parametrize(
    ("spacing", "error"), [((1.0, 1.0, 1.0), 0.01), ((0.5, 0.5, 0.5), 0.01), ((2.0, 1.0, 1.0), 0.03)]
)
def test_a_ball_has_the_surface_volume_and_axes_of_a_ball(spacing, error):
    labels = ball(20.0, spacing)
    config = SolidConfig(shape=labels.shape, spacing=spacing)
    (row,) = measure(labels, np.zeros((0, *labels.shape), np.uint8), config).to_pylist()
    assert row["surface_um2"] == pytest.approx(4 * np.pi * 400, rel=error)
    assert row["volume_um3"] == pytest.approx(4 / 3 * np.pi * 8000, rel=0.01)
    for name in ("axis_major_um", "axis_middle_um", "axis_minor_um", "equivalent_diameter_um"):
        assert row[name] == pytest.approx(40, rel=0.01), name
    assert row["euler_number"] == 1


def test_holes_tunnels_and_pieces_are_told_by_the_euler_number():
    solid = np.ones((5, 5, 5), np.uint32)
    hollow, ring = solid.copy(), solid.copy()
    hollow[2, 2, 2], ring[:, 2, 2] = 0, 0
    corners = np.zeros((5, 5, 5), np.uint32)
    corners[1, 1, 1] = corners[2, 2, 2] = corners[4, 4, 1] = 1
    found = [
        measure(one, np.zeros((0, 5, 5, 5), np.uint8), SolidConfig(shape=(5, 5, 5)))["euler_number"][0].as_py()
        for one in (solid, hollow, ring, corners)
    ]
    assert found == [1, 2, 0, 2]


def test_shares_of_the_directions_make_a_sphere_for_any_spacing():
    """A plane of area A is crossed A / lines times: the factors of all lines of a cube's face sum to what is known."""
    for spacing in ((1.0, 1.0, 1.0), (5.0, 0.2, 0.2), (100.0, 1.0, 1.0)):
        areas = np.array(crossing_areas(spacing))
        lengths = [np.linalg.norm([s * (a in line) for s, a in zip(spacing, "zyx", strict=True)]) for line in
                   ("z", "y", "x", "zy", "zx", "yx", "zyx")]  # fmt: skip
        numbers = np.array([1, 1, 1, 2, 2, 2, 4])
        assert (areas * lengths * numbers).sum() == pytest.approx(2 * np.prod(spacing))


def test_no_object_gives_a_table_with_all_columns_and_no_row():
    labels, image = np.zeros((4, 5, 6), np.uint32), np.zeros((1, 4, 5, 6), np.uint8)
    table = measure(labels, image, config_of(labels, image, spacing=(1.0, 1.0, 1.0)))
    assert table.num_rows == 0
    assert table.column_names == ["label", *SOLID_FEATURES, *(f"{name}_c0" for name in SOLID_INTENSITIES)]


def test_objects_at_a_face_are_flagged():
    for axis, end in itertools.product(range(3), (0, -1)):
        labels = np.zeros((4, 5, 6), np.uint32)
        labels[2, 2, 2] = 1
        labels[tuple(end if a == axis else 2 for a in range(3))] = 2
        table = measure(labels, np.zeros((0, 4, 5, 6), np.uint8), SolidConfig(shape=(4, 5, 6)))
        assert table["touches_edge"].to_pylist() == [False, True]


def test_unknown_spacing_leaves_the_columns_in_um_out():
    labels = np.ones((2, 2, 2), np.uint32)
    names = measure(labels, np.zeros((0, 2, 2, 2), np.uint8), SolidConfig(shape=(2, 2, 2))).column_names
    assert not [name for name in names if "_um" in name]


def test_only_what_was_chosen_is_reported_and_the_position_always():
    labels, image = np.ones((2, 2, 2), np.uint32), np.ones((1, 2, 2, 2), np.uint8)
    config = config_of(labels, image)
    names = choose_solid_features(["surface", "intensity"], without=["intensity_std"])
    columns = measure(labels, image, replace(config, features=names)).column_names
    assert columns[:5] == ["label", "z", "y", "x", "volume"]
    assert columns[-6:] == ["box_x_stop", "surface", *(f"intensity_{k}_c0" for k in ("mean", "min", "max", "sum"))]
    assert measure(labels, image, replace(config, features=choose_solid_features(None))).equals(
        measure(labels, image, config)
    )
    with pytest.raises(UnknownNameError, match="did you mean 'surface'"):
        choose_solid_features(["surfce"])
    with pytest.raises(UnknownNameError, match="feature of a volume 'texture'"):
        choose_solid_features(None, without=["texture"])


def test_a_configuration_that_cannot_work_is_refused():
    with pytest.raises(InputError, match="three positive numbers"):
        SolidConfig(shape=(2, 2, 2), spacing=(0.0, 1.0, 1.0))
    with pytest.raises(InputError, match="0 intensity ranges for 1 channels of float32"):
        SolidConfig(shape=(2, 2, 2), channels=("a",), dtype="float32")
