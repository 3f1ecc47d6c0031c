"""Classes of all objects: their patches, the same bytes at any block, what a person said, the class image."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.errors import InputError
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from sketchscale.objects import classes
from sketchscale.objects.class_image import plan_class_image, plan_class_mask, put_class_lookup
from sketchscale.objects.classes import assign_objects, collect_classes, plan_classify, with_classes
from sketchscale.objects.classifiers import Classifier, ClassifierConfig, LightNet, PatchOptions, train_classifier
from sketchscale.objects.measurement.features import MeasureConfig
from sketchscale.objects.patches import cut_patches, estimate_side, object_windows, read_patches
from tests.objects.measurement.test_features import blobs, measure, noise
from tests.objects.measurement.test_plan import plane_of, stored

_NAMES = itertools.count()
RANGES = ((0.0, 255.0), (10.0, 200.0))


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def table_of(labels):
    return measure(
        labels, np.zeros((0, *labels.shape), np.uint8), MeasureConfig(shape=labels.shape, features=("area",))
    )


def untrained(side=8, classes=("a", "b", "c"), seed=0, mirror=False):
    """A classifier with random weights."""
    torch.manual_seed(seed)
    weights = {name: value.numpy().copy() for name, value in LightNet(3, len(classes)).state_dict().items()}
    config = ClassifierConfig(
        channels=("c0", "c1"), classes=classes, side=side, ranges=RANGES, patches=PatchOptions(mirror=mirror)
    )
    return Classifier(config=config, weights=weights)


def classified(labels, image, classifier, block, chunks=(16, 16), engine="serial", examples=None, table=None):
    table = table_of(labels) if table is None else table
    store = f"memory://classes-{next(_NAMES)}"
    plan = plan_classify(stored(labels, chunks), plane_of(image, chunks), classifier, store=store, block=block)
    assign_objects(plan, table)
    with_engine = open_engine(engine, 2)
    run_plan(plan, with_engine)
    with_engine.close()
    return collect_classes(plan, table, examples)


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(4, 13), st.integers(0, 2**16))
def test_patches_are_zero_padded_windows_with_the_mask_of_one_object(shape, side, seed):
    labels, image = blobs(shape, 5, seed), noise("uint8", (2, *shape), seed)
    windows = object_windows(table_of(labels), side)
    patches = cut_patches(labels, image, (0, 0), windows, RANGES)
    wide_labels, wide = np.pad(labels, side), np.pad(image, ((0, 0), (side, side), (side, side)))
    inside = np.pad(np.ones(shape, bool), side)
    for patch, label in zip(patches, windows.label, strict=True):
        center = np.floor(np.argwhere(labels == label).mean(axis=0)).astype(int)
        y, x = (slice(c - side // 2 + side, c - side // 2 + 2 * side) for c in center)
        for c, (low, high) in enumerate(RANGES):
            expected = (wide[c, y, x].astype(np.float32) - np.float32(low)) / np.float32(high - low)
            np.testing.assert_allclose(patch[c], np.where(inside[y, x], expected, 0), rtol=1e-6)
        np.testing.assert_array_equal(patch[-1], wide_labels[y, x] == label)


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(5, 41), st.integers(5, 41)),
    st.integers(0, 12),
    st.integers(4, 12),
    st.integers(0, 2**16),
)
def test_probabilities_do_not_depend_on_the_block(shape, block, count, side, seed):
    labels, image = blobs(shape, count, seed), noise("uint8", (2, *shape), seed)
    whole = classified(labels, image, untrained(side), shape)
    assert classified(labels, image, untrained(side), block).equals(whole)


@pytest.mark.parametrize("mirror", [False, True])
def test_patches_at_the_border_are_those_that_the_classifier_was_trained_on(mirror):
    labels, image = blobs((20, 20), 9, 1), noise("uint8", (2, 20, 20), 1)
    classifier = untrained(12, mirror=mirror)
    windows = object_windows(table_of(labels), 12)
    patches = cut_patches(labels, image, (0, 0), windows, RANGES, mirror=mirror)
    found = classified(labels, image, classifier, (20, 20)).column("class_prob").to_numpy()
    np.testing.assert_array_equal(found, classifier.predict([patches], None).max(axis=1).astype(found.dtype))


def test_engines_and_renamed_ids_give_the_same_classes():
    labels, image = blobs((60, 60), 20, 1), noise("uint8", (2, 60, 60), 1)
    here = classified(labels, image, untrained(), (32, 32))
    assert classified(labels, image, untrained(), (16, 64), engine="threads").equals(here)
    renamed = classified(labels * np.uint32(3), image, untrained(), (32, 32))
    assert renamed.column("class_prob").equals(here.column("class_prob"))


def test_stored_patches_are_those_of_the_arrays():
    labels, image = blobs((60, 60), 20, 3), noise("uint8", (2, 60, 60), 3)
    windows = object_windows(table_of(labels), 12)
    some = windows.take(np.arange(0, len(windows.label), 3))
    read = read_patches(stored(labels, (16, 16)), plane_of(image, (16, 16)), some, RANGES)
    np.testing.assert_array_equal(read, cut_patches(labels, image, (0, 0), some, RANGES))


def test_each_chunk_of_the_image_is_read_once_a_block(monkeypatch):
    labels, image = blobs((64, 64), 30, 4), noise("uint8", (2, 64, 64), 4)
    reads = []
    original = classes.read_plane
    monkeypatch.setattr(classes, "read_plane", lambda plane, box: reads.append(box) or original(plane, box))
    classified(labels, image, untrained(), (32, 32))
    assert len(reads) == len(set(reads)) <= 4


def test_an_object_larger_than_its_patch_is_flagged():
    labels = np.zeros((40, 40), np.uint32)
    labels[2:30, 10:12], labels[5:8, 20:24] = 1, 2
    table = classified(labels, noise("uint8", (2, 40, 40), 0), untrained(8), (20, 20))
    assert table.column("patch_cropped").to_pylist() == [True, False]


def test_what_a_person_said_wins_and_is_marked():
    labels, image = blobs((40, 40), 10, 5), noise("uint8", (2, 40, 40), 5)
    ids = np.unique(labels[labels > 0]).tolist()
    free = classified(labels, image, untrained(), (20, 20)).to_pylist()
    table = classified(labels, image, untrained(), (20, 20), examples={ids[0]: "b", ids[1]: "new"}).to_pylist()
    assert [row["class"] for row in table[:2]] == ["b", "new"]
    assert [(row["class_source"], row["in_training"]) for row in table[1:3]] == [("user", True), ("model", False)]
    assert table[1]["class_prob"] is None
    assert (table[0]["class_prob"] == free[0]["class_prob"]) == (free[0]["class"] == "b")
    assert table[2:] == free[2:]


def test_no_object_gives_a_table_with_class_columns():
    labels = np.zeros((10, 10), np.uint32)
    table = classified(labels, noise("uint8", (2, 10, 10), 0), untrained(), (5, 5))
    assert (table.num_rows, table.column("class").type) == (0, pyarrow.string())


def test_other_channels_than_those_of_training_are_refused():
    labels, image = blobs((20, 20), 3, 0), noise("uint8", (1, 20, 20), 0)
    with pytest.raises(InputError, match="image channels c0; expected: those of the classifier: c0, c1"):
        classified(labels, image, untrained(), (20, 20))


def test_the_estimated_side_is_1_4_of_the_largest_box_within_limits():
    labels = np.zeros((300, 300), np.uint32)
    labels[0:20, 0:10], labels[30:32, 0:280] = 1, 2
    table = table_of(labels)
    assert estimate_side(table, [1]) == 28
    assert estimate_side(table, [1, 2]) == 200
    assert estimate_side(table, []) == 12


def ranks(labels, step):
    """The same objects with other ids: `step` apart."""
    return labels.astype(np.uint64) * np.uint64(step)


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([1, 7, 10**9]),
    st.sampled_from([(16, 8), (40, 40)]),
    st.integers(0, 2**16),
)
def test_class_image_and_masks_are_those_of_a_loop_whatever_the_ids(shape, step, block, seed):
    labels = ranks(blobs(shape, 8, seed), step)
    ids = np.random.default_rng(seed).permutation(np.unique(labels[labels > 0]))
    names = [("a", "b", "unlisted", None)[i % 4] for i in range(len(ids))]
    table = pyarrow.table({"label": ids, "class": pyarrow.array(names, pyarrow.string())})
    store = f"memory://class-image-{next(_NAMES)}"
    image, mask = ArrayRef(store=store, path="image"), ArrayRef(store=store, path="mask")
    create_array(image, shape=shape, chunks=(8, 8), dtype="uint8")
    create_array(mask, shape=shape, chunks=(8, 8), dtype="uint64")
    key = put_class_lookup(store, "lookup", table, ["a", "b"])
    source = stored(labels, (7, 7))
    run_plan(plan_class_image(source, image, store=store, key=key, block=block), open_engine("serial"))
    run_plan(plan_class_mask(source, mask, code=2, store=store, key=key, block=block), open_engine("serial"))
    expected, kept = np.zeros(shape, np.uint8), np.zeros(shape, np.uint64)
    for label, name in zip(ids.tolist(), names, strict=True):
        expected[labels == label] = {"a": 1, "b": 2}.get(name, 0)
        kept[labels == label] = label if name == "b" else 0
    np.testing.assert_array_equal(open_array(image)[...], expected)
    np.testing.assert_array_equal(open_array(mask)[...], kept)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([3, 10**6]), st.tuples(st.integers(9, 41), st.integers(9, 41)), st.integers(0, 2**16))
def test_renumbered_labels_change_ids_and_nothing_else(step, block, seed):
    labels, image = blobs((40, 40), 9, seed), noise("uint8", (2, 40, 40), seed)
    here = classified(labels, image, untrained(), (40, 40))
    there = classified(labels * np.uint32(step), image, untrained(), block)
    assert there.drop_columns(["label"]).equals(here.drop_columns(["label"]))


def slow_columns(label, names, probabilities, said):
    """Class columns, one object after the other."""
    for k, row in zip(label, probabilities, strict=True):
        best = max(range(len(names)), key=lambda i: row[i])
        own = said.get(k, names[best])
        yield own, row[names.index(own)] if own in names else None, "user" if k in said else "model", k in said


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**16))
def test_class_columns_are_those_of_a_loop(n, seed):
    rng = np.random.default_rng(seed)
    label, names = rng.permutation(50)[:n], ("a", "b", "c")
    probabilities = rng.integers(0, 4, (n, 3)).astype(np.float32)  # with ties: the first class wins
    said = {int(k): ("b", "new")[i % 2] for i, k in enumerate(label[::3])}
    found = classes._class_columns(label, names, probabilities, said)
    assert list(zip(*(c.to_pylist() for c in found.values()), strict=True)) == list(
        slow_columns(label.tolist(), names, probabilities.tolist(), said)
    )


def test_rows_that_pass_by_in_batches_get_the_columns_of_the_whole_table():
    labels, image = blobs((60, 60), 20, 1), noise("uint8", (2, 60, 60), 1)
    table = table_of(labels)
    whole = classified(labels, image, untrained(), (32, 32))
    narrow = classified(labels, image, untrained(), (32, 32)).select(
        ["label", *(name for name in whole.column_names if name not in table.column_names)]
    )
    again = pyarrow.Table.from_batches(list(with_classes(whole.to_batches(max_chunksize=3), narrow)))
    assert again.equals(whole.combine_chunks())
    with pytest.raises(InputError, match="classify again"):
        list(with_classes(table.slice(1).to_batches(), narrow))


def test_rows_keep_the_order_of_their_table():
    labels, image = blobs((40, 40), 10, 1), noise("uint8", (2, 40, 40), 1)
    table = table_of(labels)
    turned = np.random.default_rng(0).permutation(table.num_rows)
    expected = classified(labels, image, untrained(), (16, 16)).take(turned)
    found = classified(labels, image, untrained(), (16, 16), table=table.take(turned))
    assert found.combine_chunks().equals(expected.combine_chunks())


def forest(rows, names, features):
    return train_classifier(
        None, rows, names, kind="random-forest", channels=("c0", "c1"), ranges=(), features=features
    )


def test_a_forest_reads_rows_of_the_table_and_no_pixel(monkeypatch):
    labels, image = blobs((60, 60), 20, 2), noise("uint8", (2, 60, 60), 2)
    table = table_of(labels)
    area = table.column("area").to_numpy().astype(np.float64)[:, None]
    names = ["large" if a > np.median(area) else "small" for a in area[:, 0]]
    trained = forest(area, names, ("area",))
    monkeypatch.setattr(classes, "read_plane", None)
    monkeypatch.setattr(classes, "read_labels", None)
    found = classified(labels, image, trained, (60, 60))
    assert found.column("class").to_pylist() == names
    assert not any(found.column("patch_cropped").to_pylist())
    assert classified(labels, image, trained, (13, 29)).equals(found)
    with pytest.raises(InputError, match="without column area"):
        classified(labels, image, trained, (60, 60), table=table.drop_columns(["area"]))


def test_a_table_without_boxes_and_labels_of_another_shape_are_refused_in_one_line():
    labels, image = blobs((30, 30), 5, 0), noise("uint8", (2, 30, 30), 0)
    with pytest.raises(InputError, match="without box_y_start") as caught:
        classified(labels, image, untrained(), (30, 30), table=table_of(labels).drop_columns(["box_y_start"]))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="one shape"):
        classified(labels[:20], image, untrained(), (30, 30))
    with pytest.raises(InputError, match="of type float32"):
        classified(labels.astype(np.float32), image, untrained(), (30, 30), table=table_of(labels))
