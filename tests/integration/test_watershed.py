"""The watershed of h/v maps: as the slow twin says, the same for any block, and an object for every disc."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.engine import open_engine
from sketchscale.engine.base import Json, Plan, run_plan
from sketchscale.errors import InputError, MissingDataError, QualityError
from sketchscale.geometry import tile_cover, whole
from sketchscale.integration.merge import ObjectMap, number_objects
from sketchscale.integration.plan import BlockTask, create_scratch, plan_relabel
from sketchscale.integration.watershed.audit import audit_floods
from sketchscale.integration.watershed.config import WatershedConfig, watershed_for
from sketchscale.integration.watershed.flood import flood_block
from sketchscale.integration.watershed.merge import join_basins
from sketchscale.integration.watershed.plan import hover_labels, merge_basins, plan_flood
from sketchscale.integration.watershed.relief import relief_of, surroundings_of
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array, write_box
from sketchscale.io.stores.blobs import delete_blobs
from tests.integration.fields import disc_labels, spiral_labels
from tests.oracles import watershed as oracle

Fields = npt.NDArray[np.float16]
Labels = npt.NDArray[np.uint32]

STORE = "memory://watershed"
TARGET = ArrayRef(store=STORE, path="labels")
RULES = (
    WatershedConfig(window=5, holes=6, opening=1, min_size=3),
    WatershedConfig(window=3, holes=0, opening=0, min_size=0),
    WatershedConfig(window=7, holes=40, opening=2, edge=0.0, min_size=5, max_size=60),
    WatershedConfig(window=9, holes=3, opening=1, edge=-1.0, min_size=4),
)


def maps_of(labels: npt.NDArray[np.integer]) -> Fields:
    """v, h, m."""
    return maps_from_labels(labels)[[1, 0, 2]].astype(np.float16)


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    return np.stack([rng.uniform(-1, 1, shape), rng.uniform(-1, 1, shape), rng.uniform(0, 1.6, shape)]).astype(
        np.float16
    )


def _steps(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    """Few values, so that plateaus and ties are everywhere."""
    fields = rng.integers(-1, 2, (3, *shape)).astype(np.float16)
    fields[2] = rng.random(shape) < 0.8
    return fields


def _flat(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = np.zeros((3, *shape), np.float16)
    fields[2] = rng.random(shape) < rng.choice([0.5, 0.6, 0.95])
    return fields


def _discs(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    fields = maps_of(disc_labels(shape, 12, int(rng.integers(1 << 30)), (2, 11))).astype(np.float32)
    fields[:2] += rng.normal(0, 0.2, (2, *shape))
    fields[2] -= rng.random(shape) < 0.05
    return fields.astype(np.float16)


def _snake(shape: tuple[int, int], rng: np.random.Generator) -> Fields:
    """One piece of foreground that goes through every block, with few markers."""
    fields = np.zeros((3, *shape), np.float16)
    fields[2, ::2] = 1
    fields[2, 1::4, -1:] = fields[2, 3::4, :1] = 1
    fields[:2] = rng.choice([-0.5, 0.5], (2, *shape)) if rng.random() < 0.5 else 0
    return fields


@st.composite
def any_maps(draw: st.DrawFn, largest: int = 40) -> Fields:
    shape = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    kind = draw(st.sampled_from([_noise, _steps, _flat, _discs, _snake]))
    return kind(shape, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))


def finished_run(
    fields: Fields, config: WatershedConfig, block: tuple[int, int], engine: str = "serial"
) -> tuple[Plan[BlockTask], list[Json], ObjectMap, Labels]:
    shape = fields.shape[1:]
    source, scratch = ArrayRef(store=STORE, path="fields"), ArrayRef(store=STORE, path="scratch")
    create_array(source, shape=fields.shape, chunks=(3, *block), dtype=np.float16)[:] = fields
    create_array(TARGET, shape=shape, chunks=block, dtype=np.uint32)
    create_scratch(scratch, shape, block)
    opened = open_engine(engine, 2)
    try:
        outline = plan_flood(source, scratch, STORE, config, block=block)
        outcome = run_plan(outline, opened)
        objects = merge_basins(outline)
        run_plan(plan_relabel(outline, TARGET), opened)
    finally:
        opened.close()
    return outline, outcome, objects, np.asarray(open_array(TARGET)[:])


@settings(max_examples=60, deadline=None)
@given(fields=any_maps(26), config=st.sampled_from(RULES))
def test_labels_are_those_of_the_slow_twin(fields, config):
    np.testing.assert_array_equal(hover_labels(fields, config), oracle.hover_labels(fields, config))


BLOCKS = [(1, 1000), (7, 7), (1000, 1), (16, 5), (3, 8), (64, 64)]


def in_blocks(fields: Fields, config: WatershedConfig, block: tuple[int, int]) -> tuple[ObjectMap, Labels]:
    """Without storage: many blocks take no time."""
    shape = fields.shape[1], fields.shape[2]
    found = []
    for tile in tile_cover(shape, block):
        around = surroundings_of(tile.write, shape, config)
        relief = relief_of(fields[(slice(None), *around.read.slices)], around, config)
        found.append((tile.write, *flood_block(relief, around)))
    basins = [known for *_, known in found]
    objects, table = number_objects(basins, join_basins(basins), shape[0] * shape[1], config)
    labels, done = np.zeros(shape, np.uint32), 0
    for core, provisional, known in found:
        own = np.concatenate([np.zeros(1, np.uint32), table[done : done + known.area.size]])
        labels[core.slices] = own[provisional]
        done += known.area.size
    return objects, labels


@settings(max_examples=120, deadline=None)
@given(fields=any_maps(), config=st.sampled_from(RULES), block=st.sampled_from(BLOCKS))
def test_blocks_do_not_show(fields, config, block):
    objects, labels = in_blocks(fields, config, block)
    expected = hover_labels(fields, config)
    np.testing.assert_array_equal(labels, expected)
    check(objects, expected)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), config=st.sampled_from(RULES), block=st.sampled_from([(9, 9), (40, 7), (6, 40)]))
def test_a_block_sees_the_markers_of_the_whole_image(seed, config, block):
    """Full of holes of all lengths up to the longest that is filled, and longer ones."""
    rng = np.random.default_rng(seed)
    fields = np.zeros((3, 40, 40), np.float16)
    fields[2] = 1
    for _ in range(12):
        y, x, length = *rng.integers(1, 38, 2), rng.choice([1, config.holes, config.holes + 1])
        line = (slice(y, min(39, y + length)), x) if rng.random() < 0.5 else (y, slice(x, min(39, x + length)))
        fields[(2, *line)] = 0
    everything = surroundings_of(whole((40, 40)), (40, 40), config)
    expected = relief_of(fields, everything, config)
    for tile in tile_cover((40, 40), block):
        around = surroundings_of(tile.write, (40, 40), config)
        found = relief_of(fields[(slice(None), *around.read.slices)], around, config)
        for name in ("energy", "foreground", "marker"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[around.kept.slices])


@pytest.mark.nightly
@settings(max_examples=1000, deadline=None)
@given(fields=any_maps(90), config=st.sampled_from(RULES), block=st.sampled_from([*BLOCKS, (31, 17), (8, 45)]))
def test_blocks_do_not_show_in_larger_images(fields, config, block):
    np.testing.assert_array_equal(in_blocks(fields, config, block)[1], hover_labels(fields, config))


@settings(max_examples=8, deadline=None)
@given(fields=any_maps(), config=st.sampled_from(RULES), block=st.sampled_from([(16, 16), (40, 9), (64, 64)]))
def test_nor_do_they_in_stored_images(fields, config, block):
    *_, objects, labels = finished_run(fields, config, block)
    expected = hover_labels(fields, config)
    np.testing.assert_array_equal(labels, expected)
    check(objects, expected)


def check(objects: ObjectMap, expected: Labels) -> None:
    assert objects.area.tolist() == np.bincount(expected.ravel())[1:].tolist()
    for number, (first, box) in enumerate(zip(objects.first, objects.box, strict=True), start=1):
        y, x = np.nonzero(expected == number)
        assert first == y[0] * expected.shape[1] + x[0]
        assert box.tolist() == [y.min(), x.min(), y.max() + 1, x.max() + 1]


@settings(max_examples=6, deadline=None)
@given(fields=any_maps(48), block=st.sampled_from([(16, 16), (48, 20), (100, 100)]), seed=st.integers(0, 99))
def test_a_window_of_any_run_agrees_with_what_was_stored(fields, block, seed):
    outline, outcome, objects, _ = finished_run(fields, RULES[0], block)
    record = audit_floods(outline, outcome, objects, TARGET, windows=4, size=40, seed=seed)
    assert record.crossing == objects.crossing
    assert record.windows == 4


def damaged(change: str, labels: Labels) -> Labels:
    """The stored labels after something went wrong at a seam, x = 60."""
    wrong = labels.copy()
    if change == "split":
        wrong[:, 60:] += np.uint32(labels.max()) * (labels[:, 60:] > 0)
    elif change == "cut":
        wrong[:, 60] = 0
    elif change == "joined":
        wrong[labels == labels[labels > 0].max()] = 1
    else:
        wrong[labels == 0] = 1
    return wrong


@pytest.mark.parametrize("change", ["split", "cut", "joined", "grown"])
def test_the_audit_is_loud_on_every_kind_of_damage(change: str) -> None:
    fields = maps_of(disc_labels((120, 120), 40, seed=2, radius=(5, 9)))
    config = WatershedConfig(window=9, opening=1)
    outline, outcome, objects, labels = finished_run(fields, config, (60, 60))
    sound = audit_floods(outline, outcome, objects, TARGET, windows=8, size=120)
    assert sound.objects == 8 * objects.count
    assert (sound.farthest, sound.reach, sound.halo) == (0.0, 0, config.halo)
    write_box(TARGET, whole((120, 120)), damaged(change, labels))
    with pytest.raises(QualityError, match="seam audit"):
        audit_floods(outline, outcome, objects, TARGET, windows=8, size=120)


@pytest.mark.parametrize("engine", ["serial", "threads"])
def test_engines_agree_on_objects_over_many_blocks(engine: str) -> None:
    fields = maps_of(spiral_labels(90)).astype(np.float32)
    fields[:2] = np.random.default_rng(0).normal(0, 0.3, (2, 90, 90))
    config = WatershedConfig(window=5, opening=1, min_size=2)
    *_, objects, labels = finished_run(fields.astype(np.float16), config, (16, 16), engine)
    expected = hover_labels(fields, config)
    np.testing.assert_array_equal(labels, expected)
    assert objects.crossing > 2


def test_a_task_run_twice_and_out_of_order_changes_nothing() -> None:
    fields = _discs((50, 50), np.random.default_rng(3))
    outline, _, objects, labels = finished_run(fields, RULES[0], (20, 20))
    for task in reversed(outline.tasks):
        outline.fn(task, outline.config)
    assert merge_basins(outline).area.tolist() == objects.area.tolist()
    run_plan(plan_relabel(outline, TARGET), open_engine("serial"))
    np.testing.assert_array_equal(open_array(TARGET)[:], labels)


@pytest.mark.parametrize("radius", [4, 8, 12.5, 20])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_touching_discs_are_got_back_from_their_maps(radius: float, noise: float) -> None:
    step = round(2 * radius) - 1
    y, x = np.indices((4 * step, 4 * step))
    centres = [(step * (i + 0.5), step * (j + 0.5)) for i in range(4) for j in range(4)]
    labels = np.zeros(y.shape, np.int32)
    for k, (cy, cx) in enumerate(centres, start=1):
        labels[(np.hypot(y - cy, x - cx) < radius) & (labels == 0)] = k
    fields = maps_of(labels).astype(np.float32)
    fields[:2] += np.random.default_rng(0).normal(0, noise, (2, *labels.shape))
    found = hover_labels(fields, watershed_for(2 * radius))
    assert found.max() == 16
    for k in range(1, 17):
        mine, count = np.unique(found[labels == k], return_counts=True)
        assert count.max() >= 0.9 * count.sum()
        assert mine[count.argmax()] > 0


def test_foreground_without_a_marker_is_one_object_if_it_is_large_enough() -> None:
    fields = np.zeros((3, 30, 30), np.float16)
    fields[2, 2:4, 2:9], fields[2, 10:12, 10:12], fields[2, 12, 12] = 1, 1, 1  # thinner than the disc that opens
    labels = hover_labels(fields, WatershedConfig(opening=2, min_size=14))
    assert (labels > 0).sum() == 14
    assert labels.max() == 1
    corners = hover_labels(fields, WatershedConfig(opening=2, min_size=0))
    assert corners.max() == 3  # 4-connected


def test_a_marker_goes_over_a_hole_in_the_foreground_but_labels_do_not() -> None:
    fields = maps_of(disc_labels((24, 24), 1, seed=1, radius=(9, 10)))
    y, x = (round(float(c)) for c in np.argwhere(fields[2] > 0).mean(axis=0))
    fields[2, y, x - 1 : x + 2] = 0
    labels = hover_labels(fields, WatershedConfig(window=9))
    assert labels.max() == 1
    assert (labels[y, x - 1 : x + 2] == 0).all()
    np.testing.assert_array_equal(labels > 0, fields[2] > 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), down=st.booleans(), right=st.booleans(), swap=st.booleans())
def test_mirrored_and_turned_maps_give_mirrored_and_turned_labels(seed, down, right, swap):
    """Of maps without ties, which place alone decides."""
    fields = _discs((31, 40), np.random.default_rng(seed)).astype(np.float32)
    config = RULES[0]
    turned = fields.copy()
    if down:
        turned = turned[:, ::-1] * np.array([-1, 1, 1])[:, None, None]
    if right:
        turned = turned[:, :, ::-1] * np.array([1, -1, 1])[:, None, None]
    if swap:
        turned = turned[[1, 0, 2]].transpose(0, 2, 1)
    labels, other = hover_labels(fields, config), hover_labels(turned, config)
    back = other.T if swap else other
    back = back[:, ::-1] if right else back
    back = back[::-1] if down else back
    assert np.mean(pairs(labels) != pairs(back)) < 0.02


def pairs(labels: Labels) -> npt.NDArray[np.bool_]:
    """Which neighbours are one object."""
    return np.concatenate([(labels[1:] == labels[:-1]).ravel(), (labels[:, 1:] == labels[:, :-1]).ravel()])


@pytest.mark.parametrize("kind", ["flat", "no marker", "noise"])
def test_a_task_holds_less_than_the_plan_declares(kind: str) -> None:
    fields, rng = np.zeros((3, 512, 512), np.float16), np.random.default_rng(0)
    fields[2] = rng.random((512, 512)) if kind == "noise" else 1
    fields[:2] = 0 if kind == "flat" else rng.uniform(-1, 1, (2, 512, 512))
    config = WatershedConfig(edge=-1.0 if kind == "no marker" else 0.05)
    outline, *_ = finished_run(fields, config, (512, 512))
    tracemalloc.start()
    outline.fn(outline.tasks[0], outline.config)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < outline.task_bytes - 30_000_000  # without what codecs may take


def test_maps_that_are_absent_or_broken_are_an_error_not_background() -> None:
    create_array(ArrayRef(store=STORE, path="fields"), shape=(3, 16, 16), chunks=(3, 8, 8), dtype=np.float16)
    scratch = ArrayRef(store=STORE, path="scratch")
    create_scratch(scratch, (16, 16), (8, 8))
    outline = plan_flood(ArrayRef(store=STORE, path="fields"), scratch, STORE, RULES[0], block=(8, 8))
    with pytest.raises(MissingDataError, match="absent"):
        run_plan(outline, open_engine("serial"))
    fields = maps_of(disc_labels((40, 40), 5, seed=1))
    fields[1, 3, 3] = np.nan
    fields[2, 3, 3] = 0
    hover_labels(fields, RULES[0])
    fields[2, 3, 3] = 1
    with pytest.raises(InputError, match="not finite at 1 foreground pixels"):
        hover_labels(fields, RULES[0])
    outline, *_ = finished_run(maps_of(disc_labels((40, 40), 5, seed=1)), RULES[0], (20, 20))
    delete_blobs(STORE, "outline")
    with pytest.raises(InputError):
        merge_basins(outline)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"threshold": -2.0}, "a probability"),
        ({"threshold": 1.0}, "a probability"),
        ({"edge": 1.5}, "a share"),
        ({"window": 20}, "odd"),
        ({"window": 1}, "odd"),
        ({"holes": -1}, "0 to 1024"),
        ({"opening": 17}, "0 to 16"),
        ({"min_size": -1}, "0 or more"),
        ({"min_size": 9, "max_size": 8}, "at least min_size"),
    ],
)
def test_senseless_rules_are_refused(given: dict[str, float], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        WatershedConfig(**given)


@pytest.mark.parametrize("fields", [np.zeros((2, 4, 4), np.float16), np.zeros((3, 4, 4), np.int32), np.zeros((3, 4))])
def test_other_arrays_are_refused(fields: npt.NDArray[np.generic]) -> None:
    with pytest.raises(InputError, match=r"floats of shape \(3, y, x\)"):
        hover_labels(fields, RULES[0])


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (1, 40), (40, 1)])
def test_thin_tiny_and_empty_images_are_images(shape: tuple[int, int]) -> None:
    labels = hover_labels(np.ones((3, *shape), np.float16), WatershedConfig(min_size=0))
    assert labels.shape == shape
    assert (labels == 1).all()


@pytest.mark.parametrize(("diameter", "window", "opening"), [(0.0, 17, 2), (25.0, 17, 2), (5.0, 5, 0), (500.0, 41, 2)])
def test_the_rule_follows_the_diameter(diameter: float, window: int, opening: int) -> None:
    rule = watershed_for(diameter)
    assert (rule.window, rule.opening) == (window, opening)
