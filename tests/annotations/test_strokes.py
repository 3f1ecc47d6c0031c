"""Boundary strokes of any width: bounds beside a slow twin and beside the truth, of drawn shapes and of real masks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.io import imread

from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.annotations.simulate_outlines import Brush
from sketchscale.annotations.strokes import centre_line, stroke_reach
from sketchscale.annotations.targets import BEYOND, targets_from_sketch
from sketchscale.errors import InputError
from sketchscale.training.patches import MARGIN, patch_targets
from tests.oracles import targets as oracle

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
BRUSHES = [
    None,
    Brush(jitter_px=1),
    Brush(jitter_px=1, gaps=0.2),
    Brush(radius_px=1, jitter_px=1),
    Brush(radius_px=1.5, jitter_px=1, gaps=0.2),
    Brush(radius_px=2, jitter_px=1),
    Brush(radius_px=3, jitter_px=1, gaps=0.2),
    Brush(radius_px=5, jitter_px=1),
]


def ellipses(seed: int, size: int = 200) -> Labels:
    """Ellipses of radius 7 to 22 px, a part of them touching."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((size, size))
    labels = np.zeros((size, size), np.int32)
    for k in range(1, 15):
        turn, (a, b), (cy, cx) = rng.uniform(0, np.pi), rng.uniform(7, 22, 2), rng.uniform(10, size - 10, 2)
        u, v = (y - cy) * np.cos(turn) + (x - cx) * np.sin(turn), (x - cx) * np.cos(turn) - (y - cy) * np.sin(turn)
        labels[((u / a) ** 2 + (v / b) ** 2 < 1) & (labels == 0)] = k
    return labels


def check_bounds(truth: Labels, brush: Brush | None, seed: int) -> tuple[float, float]:
    """Refuse a violated bound; the share of two-sided interior, and that with both bounds near the truth."""
    raster = simulate_strokes(truth, n_objects=20, seed=seed, brush=brush).rasterize()
    got = targets_from_sketch(raster.labels, raster.boundary)
    signed = targets_from_sketch(truth).signed
    assert (got.lower <= signed + 1e-4)[got.bounded].all()
    assert (got.upper >= signed - 1e-4)[got.bounded].all()
    np.testing.assert_array_equal(got.signed[got.signed_known], signed[got.signed_known])
    most = (0.5 if brush is None else brush.radius_px) + 0.5 + 1
    lower, upper = (np.where(got.bounded, b, got.signed) for b in (got.lower, got.upper))
    near = (got.bounded | got.known) & (signed - lower <= most + 1e-4) & (upper - signed <= most + 1e-4)
    assert (signed - lower <= most + 1e-4)[got.two_sided].all()
    if not got.inside.any():  # a brush as wide as the objects
        return 1.0, 1.0
    return float(got.two_sided.sum() / got.inside.sum()), float((near & got.inside).sum() / got.inside.sum())


@given(seeds)
@quick
def test_reach_and_centre_line_are_those_of_disc_after_disc(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 26)), int(rng.integers(1, 26)))
    drawn = oracle.brushed(rng, oracle.random_truth(rng, shape))
    reach, line = stroke_reach(drawn)
    np.testing.assert_allclose(reach, oracle.reach(drawn), rtol=1e-6)
    np.testing.assert_array_equal(line, centre_line(drawn))
    assert not (line & ~drawn).any()


@pytest.mark.parametrize("brush", BRUSHES, ids=str)
def test_no_bound_is_violated_beside_drawn_outlines(brush: Brush | None) -> None:
    found = [check_bounds(ellipses(seed), brush, seed) for seed in range(4)]
    two_sided, near = np.mean(found, axis=0)
    gaps = brush is not None and brush.gaps > 0
    assert two_sided > (0.8 if gaps else 0.97)
    assert near > (0.7 if gaps or (brush and brush.radius_px > 3) else 0.8)


@pytest.mark.parametrize("kind", ["dsb2018_fluo", "dsb2018_he", "usiigaci_phase", "omnipose_samples"])
def test_no_bound_is_violated_beside_outlines_of_real_masks(kind: str, shared_data: Path) -> None:
    with (shared_data / kind / "manifest.csv").open(newline="") as stream:
        names = [row["mask"] for row in csv.DictReader(stream) if row["mask"]][:2]
    for seed, name in enumerate(names):
        truth = imread(shared_data / kind / name).astype(np.int32)[:256, :256].copy()
        for brush in BRUSHES[seed::2]:
            two_sided, _ = check_bounds(truth, brush, seed)
            assert two_sided > 0.8, (name, brush)


def line_of(width: int, beyond: int) -> tuple[Labels, Mask]:
    """Object 1, a stroke from column 12 on, and something beyond it."""
    labels = np.full((41, 48), beyond, np.int32)
    labels[:, :12] = 1
    drawn = np.zeros(labels.shape, bool)
    drawn[:, 12 : 12 + width] = True
    return np.where(drawn, -1, labels).astype(np.int32), drawn


@pytest.mark.parametrize("width", [1, 2, 3, 7])
@pytest.mark.parametrize("beyond", [0, 2, -1], ids=["outline", "interface", "nothing known"])
def test_bounds_are_tight_whatever_is_beyond_a_stroke(width: int, beyond: int) -> None:
    labels, drawn = line_of(width, beyond)
    got = targets_from_sketch(labels, drawn)
    at = np.s_[20, 7]
    assert got.lower[at] == 4.5
    assert got.two_sided[at]
    far = 4.5 + width
    if beyond == 0:
        assert got.upper[at] == far
    else:
        assert far <= got.upper[at] <= far + 0.7
    middle = np.s_[20, 12 + width // 2]
    assert -got.lower[middle] == got.upper[middle] <= max(width / 2, 1) + 0.9
    if beyond == 0:
        assert (got.lower[20, 30], got.upper[20, 30]) == (-18.5, -(18.5 - width))


def test_a_closed_outline_bounds_its_object_and_an_interface_between_two_objects_bounds_both() -> None:
    y, x = np.indices((61, 61))
    away = np.hypot(y - 30, x - 30)
    truth = np.where(away < 20, np.where(x < 30, 1, 2), 0).astype(np.int32)
    ring, wall = np.abs(away - 20) <= 3, (np.abs(x - 29.5) <= 2) & (away < 20)
    labels = np.where(ring | wall, -1, truth).astype(np.int32)
    signed = targets_from_sketch(truth).signed
    for drawn, shown in ((ring, np.where(ring, -1, (away < 20).astype(np.int32))), (ring | wall, labels)):
        got = targets_from_sketch(shown.astype(np.int32), drawn)
        alone = targets_from_sketch((away < 20).astype(np.int32)).signed
        true = alone if drawn is ring else signed
        assert ((got.lower <= true) & (true <= got.upper))[got.bounded].all()
        assert got.two_sided[away < 16].sum() > 0.9 * (shown[away < 16] > 0).sum()
    assert got.upper[30, 25] < 5 + 4
    assert not got.known[labels > 0].any()


def test_what_is_no_plug_says_nothing() -> None:
    """A bump at the side of a stroke, a pixel left out in it, and the neck where two strokes touch."""
    drawn = np.zeros((60, 60), bool)
    drawn[20:27, 3:57] = True
    plain, _ = stroke_reach(drawn)
    bump, hole, neck = drawn.copy(), drawn.copy(), drawn.copy()
    bump[27:29, 30] = True
    hole[22, 30] = False
    neck[34:41, 3:57] = neck[27:34, 30:32] = True
    for changed in (bump, hole, neck):
        reach, _ = stroke_reach(changed)
        assert (reach[23, 10:50] >= plain[23, 10:50].min() - 1e-6).all()
    assert stroke_reach(neck)[0][30, 30] > 6


def test_strokes_that_are_cut_say_nothing_where_the_rest_may_be_hidden() -> None:
    truth = np.zeros((90, 90), np.int32)
    truth[:, 45:] = 1
    drawn = np.zeros(truth.shape, bool)
    drawn[:, 41:50] = True
    labels = np.where(drawn, -1, truth).astype(np.int32)
    signed = targets_from_sketch(truth).signed
    for left in range(30, 52):  # the crop's border moves across the stroke
        codes = np.where(drawn, -2, labels)[10:80, left : left + 36].astype(np.int32)
        got = patch_targets(codes, 2, -5.0)
        true = signed[12:78, left + 2 : left + 34]
        assert ((got.lower <= true) & (true <= got.upper))[got.bounded].all()
    image = np.full((90, 90), BEYOND, np.int32)
    image[:, :46] = np.where(drawn, -2, labels)[:, :46]
    got = patch_targets(image, MARGIN, -5.0)
    assert not (got.bounded & ~got.inside).any()  # half of the stroke lies beyond the image


def test_the_centre_line_of_thin_lines_is_all_of_them_and_of_a_brush_its_middle() -> None:
    drawn = np.zeros((1100, 40), bool)  # more than one tile
    drawn[:, 5] = drawn[:, 10:12] = drawn[:, 20:29] = True
    line = centre_line(drawn)
    assert line[:, 5].all()
    assert line[:, 10:12].all()
    assert line[20:-20, 24].all()
    assert not line[20:-20, 20:24].any()
    assert not line[20:-20, 25:29].any()


def test_a_hand_draws_within_its_jitter_and_leaves_gaps_out() -> None:
    truth = ellipses(3)
    cracks = np.array(oracle.cracks(truth)[0])
    lengths = []
    for gaps in (0.0, 0.4):
        sketch = simulate_strokes(truth, seed=1, brush=Brush(radius_px=2, jitter_px=1, gaps=gaps))
        outlines = [mark for mark in sketch.marks if getattr(mark, "label", "") == "boundary"]
        points = 2 * np.concatenate([mark.points for mark in outlines]) + 1  # type: ignore[union-attr]
        away = np.sqrt(((points[:, None] - cracks) ** 2).sum(axis=-1)).min(axis=1) / 2
        assert away.max() <= 1.2  # cracks are their middles here
        assert away.mean() > 0.2
        lengths.append(len(points))
    assert 0.5 < lengths[1] / lengths[0] < 0.9


@pytest.mark.parametrize("fields", [{"radius_px": 0.2}, {"jitter_px": -1}, {"jitter_px": 9}, {"gaps": 1}])
def test_an_impossible_brush_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"a brush of radius .*; expected: .*; to fix: "):
        Brush(**fields)


def test_interiors_of_simulated_strokes_are_right_at_every_width() -> None:
    for seed, brush in enumerate(BRUSHES):
        truth = ellipses(seed, 120)
        raster = simulate_strokes(truth, seed=seed, brush=brush).rasterize()
        assert not truth[raster.labels == 0].any()
        for k in range(1, raster.labels.max() + 1):
            assert len(np.unique(truth[raster.labels == k])) == 1
        if brush is not None:
            edge = np.zeros(truth.shape, bool)
            edge[1:] |= truth[1:] != truth[:-1]
            edge[:, 1:] |= truth[:, 1:] != truth[:, :-1]
            away = ndimage.distance_transform_edt(~edge)
            assert away[raster.boundary].max() <= brush.radius_px + 2.5
