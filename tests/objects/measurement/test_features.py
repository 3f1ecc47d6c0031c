"""Features: scikit-image's on the whole image, and the same bytes at any cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import tile_cover
from sketchscale.objects.measurement.features import FEATURES, MeasureConfig, channel_names, feature_table
from sketchscale.objects.measurement.partials import Partial, combine_partials, image_coding, partial_objects
from tests.oracles.features import object_features


def blobs(shape, count, seed):
    """Random touching discs with holes and gaps in the ids; small enough to draw."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    labels = np.zeros(shape, np.uint32)
    for label in rng.choice(5 * count, count, replace=False) + 1:
        cy, cx, r = rng.uniform(0, shape[0]), rng.uniform(0, shape[1]), rng.uniform(0.6, 6)
        d = (y - cy) ** 2 + rng.uniform(0.3, 1) * (x - cx) ** 2
        labels[(d < r * r) & (d >= (r / 4) ** 2)] = label
    return labels


def measure(labels, image, config, blocks=None):
    """The table from blocks of a given size, in a shuffled order."""
    padded = np.pad(labels, 1)
    parts = []
    for tile in tile_cover(labels.shape, blocks or labels.shape):
        (y0, x0), (y1, x1) = tile.write.start, tile.write.stop
        bottom, right = int(y1 == labels.shape[0]), int(x1 == labels.shape[1])
        read = padded[y0 : y1 + 1 + bottom, x0 : x1 + 1 + right]
        parts.append(partial_objects(read, image[(slice(None), *tile.write.slices)], (y0, x0), config.coding))
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


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 12),
    st.integers(0, 2**16),
    st.sampled_from(("uint8", "int16", "uint16", "float32", "uint32")),
)
def test_features_are_scikit_images_on_the_whole_image(height, width, count, seed, dtype):
    labels = blobs((height, width), count, seed)
    image = noise(dtype, (2, height, width), seed)
    spacing = (0.5, 0.8)
    table = measure(labels, image, config_of(labels, image, spacing=spacing)).to_pylist()
    truth = object_features(labels, image, spacing)
    assert [row["label"] for row in table] == [row["label"] for row in truth]
    for ours, theirs in zip(table, truth, strict=True):
        size = max(1.0, theirs["axis_major"])
        if theirs["axis_major"] - theirs["axis_minor"] > 1e-6 * size:
            turn = (ours["orientation"] - theirs.pop("orientation") + np.pi / 2) % np.pi
            assert turn == pytest.approx(np.pi / 2, abs=1e-6)
        theirs.pop("orientation", None)
        scale = max(abs(image.astype(float)).max(), 1.0)
        for name, value in theirs.items():
            slack = 1e-9 * scale * (theirs["area"] if "sum" in name else 1) if "intensity" in name else 1e-6
            assert ours[name] == pytest.approx(value, rel=1e-9, abs=slack), name


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.integers(1, 31), st.integers(1, 31)),
    st.integers(0, 9),
    st.integers(0, 2**16),
    st.sampled_from(("uint8", "uint16", "float32", "float64", "int32", "uint64")),
)
def test_any_blocks_give_the_bytes_of_the_whole(shape, blocks, count, seed, dtype):
    labels = blobs(shape, count, seed)
    image = noise(dtype, (2, *shape), seed)
    config = config_of(labels, image, spacing=(0.3, 0.3), tile_stride=(7, 5))
    assert measure(labels, image, config, blocks).equals(measure(labels, image, config))


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 4)))
def test_flips_and_transposes_move_positions_and_nothing_else(labels):
    image = labels[None].astype(np.uint16) * 3
    config = config_of(labels, image)
    here = measure(labels, image, config).to_pydict()
    flipped = measure(labels[::-1], image[:, ::-1], config).to_pydict()
    turned = measure(labels.T, image.transpose(0, 2, 1), config_of(labels.T, image.transpose(0, 2, 1))).to_pydict()
    for name in ("label", "area", "euler_number", "perimeter", "touches_edge", "intensity_mean_c0", "extent"):
        assert flipped[name] == here[name] == turned[name], name
    np.testing.assert_allclose(flipped["y"], labels.shape[0] - 1 - np.array(here["y"]))
    assert (turned["y"], turned["box_x_stop"]) == (here["x"], here["box_y_stop"])
    np.testing.assert_allclose(turned["axis_minor"], here["axis_minor"], atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**16), st.permutations(range(1, 6)))
def test_renamed_ids_only_reorder_the_rows(seed, names):
    labels = blobs((20, 20), 5, seed)
    ids = np.unique(labels[labels > 0])
    table = np.zeros(labels.max() + 1, np.uint32)
    table[ids] = np.array(names[: len(ids)]) * 7
    image = noise("uint8", (1, 20, 20), seed)
    config = config_of(labels, image)
    here = measure(labels, image, config).to_pydict()
    there = measure(table[labels], image, config).to_pydict()
    order = np.argsort(table[here.pop("label")]) if len(ids) else []
    for name, values in here.items():
        assert [values[i] for i in order] == there[name], name


def test_no_object_gives_a_table_with_all_columns_and_no_row():
    labels, image = np.zeros((4, 5), np.uint32), np.zeros((1, 4, 5), np.uint8)
    table = measure(labels, image, config_of(labels, image, spacing=(1.0, 1.0), tile_stride=(2, 2)))
    assert table.num_rows == 0
    assert len(table.column_names) == 1 + sum(feature.part is None for feature in FEATURES.values())


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
            exact = {"area": k, "y": sy, "x": sx, "yy": yy, "xx": xx, "yx": yx}
            sums = np.array([[v] for v in (*exact.values(), 0, 0, 0)], np.int64)
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
    config = MeasureConfig(shape=(20, 20), tile_stride=(8, 8))
    table = measure(labels, np.zeros((0, 20, 20), np.uint8), config).to_pydict()
    assert table["touches_edge"] == [True, False, False]
    assert table["crosses_tile_seam"] == [False, False, True]


def test_columns_follow_what_is_known():
    labels = np.ones((3, 3), np.uint32)
    bare = measure(labels, np.zeros((0, 3, 3), np.uint8), MeasureConfig(shape=(3, 3))).column_names
    assert not [name for name in bare if name.endswith(("_um", "_um2")) or "intensity" in name or "seam" in name]
    square = MeasureConfig(shape=(3, 3), spacing=(2.0, 2.0), features=("perimeter_um", "area_um2"))
    oblong = MeasureConfig(shape=(3, 3), spacing=(2.0, 1.0), features=("perimeter_um",))
    image = np.zeros((0, 3, 3), np.uint8)
    assert measure(labels, image, square).column("area_um2").to_pylist() == [36.0]
    assert measure(labels, image, square).column("perimeter_um")[0].as_py() > 0
    assert measure(labels, image, oblong).column("perimeter_um").to_pylist() == [None]


def test_ids_past_32_bits_are_measured():
    labels = np.full((2, 2), 2**40, np.uint64)
    assert measure(labels, np.zeros((0, 2, 2), np.uint8), MeasureConfig(shape=(2, 2)))["label"].to_pylist() == [2**40]


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
    with pytest.raises(InputError, match="two positive numbers"):
        MeasureConfig(shape=(2, 2), spacing=(0.0, 1.0))
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
