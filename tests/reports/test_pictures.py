from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from sketchscale.annotations.sketch import RasterSketch
from sketchscale.errors import InputError
from sketchscale.reports.pictures import (
    PALETTE,
    choose_crops,
    flattened,
    make_picture,
    make_sketch_picture,
    outline_layer,
    outlines,
    sketch_layer,
    to_rgb,
)

LABELS = arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3))


@given(LABELS)
@settings(max_examples=40, deadline=None)
def test_outlines_are_object_pixels_beside_another_label(labels: npt.NDArray[np.int32]) -> None:
    found = outlines(labels)
    for y, x in np.ndindex(*labels.shape):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        near = [labels[p] for p in around if 0 <= p[0] < labels.shape[0] and 0 <= p[1] < labels.shape[1]]
        assert found[y, x] == (labels[y, x] > 0 and any(k != labels[y, x] for k in near))


def test_outlines_have_the_colour_of_the_class_and_grey_without_one() -> None:
    labels = np.array([[1, 0, 2, 0, 3]])
    layer = outline_layer(labels, {1: 0, 2: 1})
    shown = ["#" + "".join(f"{v:02x}" for v in layer[0, x, :3]) for x in (0, 2, 4)]
    assert shown == [PALETTE[0], PALETTE[1], PALETTE[-1]]
    assert layer[0, :, 3].tolist() == [255, 0, 255, 0, 255]


def test_contrast_maps_the_given_range_to_black_and_full() -> None:
    grey = to_rgb(np.array([[[10, 20, 30, 40]]], np.uint16), [(20, 30)])
    assert grey[0, :, 0].tolist() == [0, 0, 255, 255]
    colour = to_rgb(np.full((3, 1, 1), 50, np.uint8), [(0, 100), (0, 50), (50, 50)])
    assert colour[0, 0].tolist() == [127, 255, 0]
    many = to_rgb(np.full((2, 1, 1), 255, np.uint8), [(0, 255)] * 2)
    assert many.shape == (1, 1, 3)
    with pytest.raises(InputError, match="2 ranges"):
        to_rgb(np.zeros((1, 2, 2)), [(0, 1)] * 2)


@pytest.mark.parametrize(("shape", "width"), [((30, 40), 160), ((300, 401), 100), ((1, 5), 20), ((50, 3), 12)])
def test_both_layers_have_the_size_that_is_stated(shape: tuple[int, int], width: int) -> None:
    labels = np.zeros(shape, np.int32)
    labels[:, shape[1] // 2 :] = 70_000
    picture = make_picture(np.full((*shape, 3), 90, np.uint8), labels, width=width)
    assert picture.layer is not None
    for data in (picture.image, picture.layer):
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (picture.width, picture.height)
    assert picture.width <= width
    with Image.open(io.BytesIO(picture.layer)) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert set(np.unique(alpha)) <= {0, 255}
    assert alpha.any()


def test_crops_lie_inside_apart_and_repeat_with_the_seed() -> None:
    centroids = np.random.default_rng(0).uniform(0, 500, (80, 2))
    boxes = choose_crops(centroids, (500, 600), size=100, n=6, seed=3)
    assert len(boxes) == 6
    assert all(b.shape == (100, 100) and b.clip((500, 600)) == b for b in boxes)
    assert not any(a.intersect(b).size for i, a in enumerate(boxes) for b in boxes[:i])
    assert boxes == choose_crops(centroids, (500, 600), size=100, n=6, seed=3)
    assert choose_crops(np.zeros((0, 2)), (50, 60)) == ()
    assert choose_crops(np.array([[5.0, 5.0]]), (20, 30), size=100)[0].shape == (20, 30)


def test_a_sketch_layer_shows_its_three_classes_and_nothing_else() -> None:
    raster = RasterSketch(labels=np.array([[-1, 0, 4, -1]], np.int32), boundary=np.array([[False, False, False, True]]))
    layer = sketch_layer(raster)
    assert layer[0, :, 3].tolist() == [0, 130, 130, 255]
    assert len(np.unique(layer[0, :, :3], axis=0)) == 4


def test_a_flattened_picture_shows_the_layer_over_the_image() -> None:
    raster = RasterSketch(labels=np.full((4, 6), -1, np.int32), boundary=np.zeros((4, 6), bool))
    raster.boundary[1, 2] = True
    picture = make_sketch_picture(np.zeros((4, 6, 3), np.uint8), raster, width=24)
    with Image.open(io.BytesIO(flattened(picture))) as image:
        drawn = np.asarray(image)[..., 1] > 200
    assert drawn.shape == (16, 24)
    expected = np.zeros((16, 24), bool)
    expected[4:8, 8:12] = True
    np.testing.assert_array_equal(drawn, expected)
