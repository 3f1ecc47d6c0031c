"""Features: scikit-image's on the whole image, and the same bytes at any cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import tile_cover
from sketchscale.objects.measurement.blocks import partial_objects
from sketchscale.objects.measurement.features import (
    FEATURES,
    MeasureConfig,
    channel_names,
    choose_features,
    feature_table,
)
from sketchscale.objects.measurement.partials import Partial, combine_partials, empty_partial, image_coding, sum_names
from sketchscale.objects.measurement.totals import crossing_areas
from tests.oracles.features import object_features

AXES = pytest.mark.parametrize("axes", [2, 3])
NO_IMAGE = np.zeros((0, 1, 1), np.uint8)


def shapes(axes=(2, 3), least=1, most=(30, 12)):
    """Shapes of planes and of smaller volumes."""
    of = {d: st.tuples(*[st.integers(least, most[d - 2])] * d) for d in axes}
    return st.sampled_from(axes).flatmap(of.get)


def blobs(shape, count, seed):
    """Random touching balls with holes and gaps in the ids; small enough to draw."""
    rng = np.random.default_rng(seed)
    places = np.indices(shape)
    labels = np.zeros(shape, np.uint32)
    for label in rng.choice(5 * count, count, replace=False) + 1:
        center, r = [rng.uniform(0, n) for n in shape], rng.uniform(0.6, 6)
        squares = [(p - c) ** 2 for p, c in zip(places, center, strict=True)]
        d = sum(squares[:-1]) + rng.uniform(0.3, 1) * squares[-1]
        labels[(d < r * r) & (d >= (r / 4) ** 2)] = label
    return labels


def ragged(shape, count, seed):
    """As `blobs`, with objects that lie in pieces."""
    labels = blobs(shape, count, seed)
    labels[np.random.default_rng(seed).random(shape) < 0.05] = 0
    return labels


def measure(labels, image, config, blocks=None):
    """The table from blocks of a given size, in a shuffled order."""
    padded = np.pad(labels, 1)
    parts = [empty_partial(len(image), labels.ndim)]
    for tile in tile_cover(labels.shape, blocks or labels.shape):
        # padded by one: the halo in front starts at the same index, and zeros behind only where the image ends
        ends = zip(tile.write.start, tile.write.stop, labels.shape, strict=True)
        read = padded[tuple(slice(a, b + 1 + (b == n)) for a, b, n in ends)]
        pixels = image[(slice(None), *tile.write.slices)] if len(image) else np.zeros((0, *tile.write.shape), np.uint8)
        parts.append(partial_objects(read, pixels, tile.write.start, config.coding))
    np.random.default_rng(0).shuffle(parts)
    return feature_table(combine_partials(parts), config)


def config_of(labels, image, **options):
    ranges = tuple((float(c.min()), float(c.max())) for c in image) if image.size else ()
    names = tuple(f"c{i}" for i in range(len(image)))
    return MeasureConfig(shape=labels.shape, channels=names, dtype=str(image.dtype), ranges=ranges, **options)


def noise(dtype, shape, seed):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.normal(size=shape) * 1e3).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


@settings(max_examples=50, deadline=None)
@given(
    shapes(most=(40, 14)),
    st.integers(0, 12),
    st.integers(0, 2**16),
    st.sampled_from(("uint8", "int16", "uint16", "float32", "uint32")),
)
def test_features_are_scikit_images_on_the_whole_image(shape, count, seed, dtype):
    labels = ragged(shape, count, seed)
    image = noise(dtype, (2, *shape), seed)
    spacing = (2.0, 0.5, 0.8)[-len(shape) :]
    table = measure(labels, image, config_of(labels, image, spacing=spacing)).to_pylist()
    truth = object_features(labels, image, spacing)
    assert [row["label"] for row in table] == [row["label"] for row in truth]
    for ours, theirs in zip(table, truth, strict=True):
        assert set(ours) - set(theirs) <= {"touches_edge", "perimeter_um"}
        size = max(1.0, theirs["axis_major"])
        if theirs["axis_major"] - theirs["axis_minor"] > 1e-6 * size and "orientation" in theirs:
            turn = (ours["orientation"] - theirs.pop("orientation") + np.pi / 2) % np.pi
            assert turn == pytest.approx(np.pi / 2, abs=1e-6)
        theirs.pop("orientation", None)
        scale = max(abs(image.astype(float)).max(), 1.0)
        pixels = theirs["area"] if len(shape) == 2 else theirs["volume"]
        for name, value in theirs.items():
            slack = 1e-9 * scale * (pixels if "sum" in name else 1) if "intensity" in name else 1e-6
            slack = 1e-5 if name.startswith("axis") else slack
            # the truth has the surface to as many digits as random directions give
            accuracy = 0.01 if name.startswith("surface") else 1e-9
            assert ours[name] == pytest.approx(value, rel=accuracy, abs=slack), name


@settings(max_examples=60, deadline=None)
@given(
    shapes(),
    st.tuples(*[st.integers(1, 31)] * 3),
    st.integers(0, 9),
    st.integers(0, 2**16),
    st.sampled_from(("uint8", "uint16", "float32", "float64", "int32", "uint64")),
)
def test_any_blocks_give_the_bytes_of_the_whole(shape, blocks, count, seed, dtype):
    labels = ragged(shape, count, seed)
    image = noise(dtype, (2, *shape), seed)
    config = config_of(labels, image, spacing=(1.5, 0.3, 0.3)[-len(shape) :], tile_stride=(3, 7, 5)[-len(shape) :])
    assert measure(labels, image, config, blocks[: len(shape)]).equals(measure(labels, image, config))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 9), st.integers(0, 2**16))
def test_a_plane_is_a_volume_of_one_section(height, width, count, seed):
    labels, image = ragged((height, width), count, seed), noise("uint8", (1, height, width), seed)
    plane = measure(labels, image, config_of(labels, image, tile_stride=(5, 7)))
    volume = measure(labels[None], image[:, None], config_of(labels[None], image[:, None], tile_stride=(9, 5, 7)))
    same = set(plane.column_names) & set(volume.column_names) - {"axis_major", "axis_minor", "equivalent_diameter"}
    assert {"y", "euler_number", "extent", "crosses_tile_seam", "intensity_std_c0"} <= same
    assert (
        plane.select(sorted(same))
        .drop_columns(["touches_edge"])
        .equals(volume.select(sorted(same)).drop_columns(["touches_edge"]))
    )
    assert plane["area"].equals(volume["volume"])


@settings(max_examples=40, deadline=None)
@given(
    shapes(most=(9, 9)), st.integers(0, 2**16), st.permutations(range(3)), st.tuples(*[st.sampled_from((1, -1))] * 3)
)
def test_flips_and_transposes_move_positions_and_nothing_else(shape, seed, order, signs):
    axes, order = "zyx"[-len(shape) :], [axis for axis in order if axis < len(shape)]
    labels = np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint32)
    image = labels[None].astype(np.uint16) * 3
    here = measure(labels, image, config_of(labels, image)).to_pydict()
    flip = tuple(slice(None, None, s) for s in signs[: len(shape)])
    moved, pixels = labels[flip].transpose(order), image[0][flip].transpose(order)[None]
    there = measure(moved, pixels, config_of(moved, pixels)).to_pydict()
    exact = {"label", "area", "volume", "euler_number", "perimeter", "touches_edge", "intensity_mean_c0", "extent"}
    for name in exact & set(here):
        assert there[name] == here[name], name
    for name in {"surface", "axis_major", "axis_middle", "axis_minor"} & set(here):
        np.testing.assert_allclose(there[name], here[name], atol=1e-5)
    for new, old in enumerate(order):
        at = np.array(here[axes[old]])
        np.testing.assert_allclose(there[axes[new]], at if signs[old] > 0 else shape[old] - 1 - at)


@settings(max_examples=30, deadline=None)
@given(shapes(least=4, most=(20, 10)), st.integers(0, 2**16), st.permutations(range(1, 6)))
def test_renamed_ids_only_reorder_the_rows(shape, seed, names):
    labels = blobs(shape, 5, seed)
    ids = np.unique(labels[labels > 0])
    table = np.zeros(labels.max() + 1, np.uint64)
    table[ids] = np.array(names[: len(ids)]) * 2**33
    image = noise("uint8", (1, *shape), seed)
    config = config_of(labels, image, spacing=(3.0, 1.0, 1.0)[-len(shape) :])
    here = measure(labels, image, config).to_pydict()
    there = measure(table[labels], image, config).to_pydict()
    order = np.argsort(table[here.pop("label")]) if len(ids) else []
    for name, values in here.items():
        assert [values[i] for i in order] == there[name], name


@AXES
def test_no_object_gives_a_table_with_all_columns_and_no_row(axes):
    labels, image = np.zeros((4, 5, 6)[:axes], np.uint32), np.zeros((1, *(4, 5, 6)[:axes]), np.uint8)
    table = measure(labels, image, config_of(labels, image, spacing=(1.0,) * axes, tile_stride=(2,) * axes))
    assert table.num_rows == 0
    expected = [f for f in FEATURES.values() if f.part is None and axes in f.axes]
    assert len(table.column_names) == 1 + len(expected)


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
    (row,) = measure(labels, NO_IMAGE, MeasureConfig(shape=labels.shape, spacing=spacing)).to_pylist()
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
    config = MeasureConfig(shape=(5, 5, 5))
    found = [measure(one, NO_IMAGE, config)["euler_number"][0].as_py() for one in (solid, hollow, ring, corners)]
    assert found == [1, 2, 0, 2]


def test_shares_of_the_directions_make_a_sphere_for_any_spacing():
    """A plane of area A is crossed A / lines times: the factors of all lines of a cube's face sum to what is known."""
    for spacing in ((1.0, 1.0, 1.0), (5.0, 0.2, 0.2), (100.0, 1.0, 1.0)):
        areas = np.array(crossing_areas(spacing))
        lengths = [np.linalg.norm([s * (a in line) for s, a in zip(spacing, "zyx", strict=True)]) for line in
                   ("z", "y", "x", "zy", "zx", "yx", "zyx")]  # fmt: skip
        numbers = np.array([1, 1, 1, 2, 2, 2, 4])
        assert (areas * lengths * numbers).sum() == pytest.approx(2 * np.prod(spacing))


def test_sums_of_an_object_of_a_100_000_px_image_do_not_overflow():
    """Partials of 100 x 100 blocks of 1000 px, all full, as one object: yy is past 2^63 on the way, variance is not."""
    side, edge = 100_000, 1000
    one = partial_objects(
        np.pad(np.ones((edge, edge), np.uint32), ((1, 0), (1, 0)), constant_values=1),
        np.full((1, edge, edge), 65535, np.uint16),
        (0, 0),
        image_coding("uint16", [(0, 65535)]),
    )
    starts = range(0, side, edge)
    k, s, q = edge * edge, edge * (edge - 1) // 2, (edge - 1) * edge * (2 * edge - 1) // 6
    parts = []
    for y in starts:
        for x in starts:
            sy, sx = edge * s + k * y, edge * s + k * x
            yy, xx = edge * q + 2 * y * edge * s + k * y * y, edge * q + 2 * x * edge * s + k * x * x
            yx = s * s + (x + y) * edge * s + k * y * x
            exact = {"size": k, "y": sy, "x": sx, "yy": yy, "xx": xx, "yx": yx}
            sums = np.array([[exact.get(name, 0)] for name in sum_names(2)], np.int64)
            box = np.array([[y], [x]])
            parts.append(
                Partial(
                    label=one.label, sums=sums, starts=box, stops=box + edge,
                    codes=one.codes, lows=one.lows, highs=one.highs,
                )
            )  # fmt: skip
    config = MeasureConfig(shape=(side, side), channels=("a",), dtype="uint16")
    row = feature_table(combine_partials(parts), config).to_pylist()[0]
    assert row["area"] == side * side
    assert row["y"] == row["x"] == (side - 1) / 2
    assert row["axis_major"] == pytest.approx(4 * np.sqrt((side**2 - 1) / 12), rel=1e-12)
    assert (row["intensity_mean_a"], row["intensity_std_a"]) == (65535, 0)
    assert row["intensity_sum_a"] == 65535 * side * side


def test_edge_and_seam_flags_follow_the_box():
    labels = np.zeros((20, 20), np.uint32)
    labels[0:2, 5:7], labels[6:8, 2:4], labels[7:10, 12:14] = 1, 2, 3
    table = measure(labels, NO_IMAGE, MeasureConfig(shape=(20, 20), tile_stride=(8, 8))).to_pydict()
    assert table["touches_edge"] == [True, False, False]
    assert table["crosses_tile_seam"] == [False, False, True]


@AXES
def test_objects_at_an_edge_are_flagged(axes):
    for axis, end in itertools.product(range(axes), (0, -1)):
        labels = np.zeros((4, 5, 6)[:axes], np.uint32)
        labels[(2,) * axes] = 1
        labels[tuple(end if a == axis else 2 for a in range(axes))] = 2
        assert measure(labels, NO_IMAGE, MeasureConfig(shape=labels.shape))["touches_edge"].to_pylist() == [False, True]


@AXES
def test_columns_follow_what_is_known(axes):
    labels = np.ones((3,) * axes, np.uint32)
    bare = measure(labels, NO_IMAGE, MeasureConfig(shape=labels.shape)).column_names
    assert not [name for name in bare if "_um" in name or "intensity" in name or "seam" in name]


def test_the_perimeter_in_um_is_known_for_square_pixels():
    labels = np.ones((3, 3), np.uint32)
    square = MeasureConfig(shape=(3, 3), spacing=(2.0, 2.0), features=("perimeter_um", "area_um2"))
    oblong = MeasureConfig(shape=(3, 3), spacing=(2.0, 1.0), features=("perimeter_um",))
    assert measure(labels, NO_IMAGE, square).column("area_um2").to_pylist() == [36.0]
    assert measure(labels, NO_IMAGE, square).column("perimeter_um")[0].as_py() > 0
    assert measure(labels, NO_IMAGE, oblong).column("perimeter_um").to_pylist() == [None]


def test_only_what_objects_of_so_many_axes_have_can_be_chosen():
    names = choose_features(["surface", "intensity"], without=["intensity_std", "intensity_p05"], axes=3)
    assert names[:4] == ("z", "y", "x", "volume")
    assert names[9:13] == ("box_x_stop", "surface", "intensity_mean", "intensity_min")
    with pytest.raises(UnknownNameError, match="did you mean 'surface'"):
        choose_features(["surfce"], axes=3)
    with pytest.raises(UnknownNameError, match="feature of a volume 'perimeter'"):
        choose_features(None, without=["perimeter"], axes=3)
    with pytest.raises(UnknownNameError, match="feature 'volume'"):
        choose_features(["volume"])


def test_ids_past_32_bits_are_measured():
    labels = np.full((2, 2), 2**40, np.uint64)
    assert measure(labels, NO_IMAGE, MeasureConfig(shape=(2, 2)))["label"].to_pylist() == [2**40]


def test_values_that_cannot_be_added_exactly_are_refused():
    labels, image = np.ones((2, 2), np.uint32), np.array([[[0.0, 1.0], [np.nan, 1.0]]])
    config = MeasureConfig(shape=(2, 2), channels=("a",), dtype="float64", ranges=((0.0, 1.0),))
    with pytest.raises(InputError, match="not finite or outside the range"):
        measure(labels, image, config)
    with pytest.raises(InputError, match="not finite or outside the range"):
        measure(labels, np.nan_to_num(image) + 5, config)


def test_a_configuration_that_cannot_work_is_refused():
    with pytest.raises(InputError, match="0 intensity ranges for 1 channels of float32"):
        MeasureConfig(shape=(2, 2), channels=("a",), dtype="float32")
    with pytest.raises(InputError, match="finite numbers"):
        _ = MeasureConfig(shape=(2, 2), channels=("a",), dtype="float32", ranges=((np.nan, 1.0),)).coding
    with pytest.raises(InputError, match="2 positive numbers"):
        MeasureConfig(shape=(2, 2), spacing=(0.0, 1.0))
    with pytest.raises(InputError, match="3 positive numbers"):
        MeasureConfig(shape=(2, 2, 2), tile_stride=(1, 1))
    with pytest.raises(UnknownNameError, match="did you mean 'area'"):
        MeasureConfig(shape=(2, 2), features=("aera",))


def test_channel_names_make_distinct_columns():
    assert channel_names(["DAPI", "dapi", "Cy5 (em. 660)"]) == ("dapi", "dapi_1", "cy5_em_660")


def test_ids_that_the_table_does_not_hold_are_refused():
    labels, image, coding = np.zeros((3, 3), np.uint64), np.zeros((0, 1, 1), np.uint8), image_coding("uint8", ())
    labels[1, 1] = 2**63 - 1
    largest = feature_table(partial_objects(labels, image, (0, 0), coding), MeasureConfig(shape=(1, 1)))
    assert largest["label"].to_pylist() == [2**63 - 1]
    labels[1, 1] = 2**63
    with pytest.raises(InputError, match="label 9223372036854775808; expected: ids below"):
        partial_objects(labels, image, (0, 0), coding)
