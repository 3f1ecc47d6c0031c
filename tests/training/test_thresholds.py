"""Labels with drawn lines, as thresholds and calibration see them."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sketchscale.geometry import Box
from sketchscale.training.patches import TrainingImage
from sketchscale.training.thresholds import labels_with_lines


def test_lines_of_a_window_are_those_of_the_whole_image() -> None:
    rng = np.random.default_rng(0)
    boundary = ndimage.binary_dilation(rng.random((300, 420)) > 0.999, iterations=5)
    labels = np.where(rng.random(boundary.shape) > 0.5, 1, -1).astype(np.int32)
    image = TrainingImage(image=np.zeros((1, *labels.shape), np.float32), labels=labels, boundary=boundary)
    expected = labels_with_lines(image)
    assert (expected[boundary] == 0).any()
    assert (expected[boundary] == -1).any()
    for box in (Box((0, 0), (60, 80)), Box((140, 200), (190, 300)), Box((250, 400), (300, 420))):
        np.testing.assert_array_equal(labels_with_lines(image, box), expected[box.slices])
