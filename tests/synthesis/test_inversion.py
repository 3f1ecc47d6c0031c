"""No colour inversion: what the points lie on is painted as what the points lie on, dark or bright."""

from __future__ import annotations

import numpy as np
import pytest

from sketchscale.synthesis.contrast import contrast_order, order_kept, real_order
from sketchscale.synthesis.gan import GanConfig
from sketchscale.synthesis.layouts import LayoutPrior, draw_layout
from sketchscale.synthesis.networks import GeneratorConfig
from sketchscale.synthesis.pairs import draw_pair
from sketchscale.synthesis.scenes import PointedImage
from sketchscale.synthesis.training import train_synthesis

pytestmark = pytest.mark.slow

PRIOR = LayoutPrior(diameter=14, spread=0.3)
SMALL = GanConfig(
    generator=GeneratorConfig(channels=1, width=2, hidden=8),
    critic_width=8,
    mask_widths=(8, 16),
    prior=PRIOR,
    steps=140,
    batch=1,
    crop=64,
    rate=2e-3,
    ema=0.9,
    threads=1,
    sheet_every=0,
)


def stained(dark: bool, seed: int) -> PointedImage:
    """Objects on a noisy ground; the ground is the larger part, so nothing but the points says which is which."""
    rng = np.random.default_rng(seed)
    points = np.stack(np.mgrid[10:120:18, 10:120:18], -1).reshape(-1, 2) + rng.integers(-4, 5, (49, 2))
    inside = draw_layout(points.astype(float), (128, 128), PRIOR, seed=seed) > 0
    image = np.where(inside == dark, -0.6, 0.6) + rng.normal(0, 0.1, inside.shape)
    return PointedImage(image=np.clip(image, -1, 1).astype(np.float32)[None], points=points.astype(float))


@pytest.mark.parametrize("dark", [True, False], ids=["dark objects", "bright objects"])
def test_objects_are_painted_as_what_the_points_lie_on(dark, tmp_path):
    real = [stained(dark, seed) for seed in range(3)]
    made = train_synthesis(real, SMALL, run_folder=str(tmp_path))
    pairs = [draw_pair(made, (96, 96), seed=(7, i)) for i in range(6)]
    means = [(p.image[0][p.labels > 0].mean(), p.image[0][p.labels == 0].mean()) for p in pairs]
    assert all((inside < outside) == dark and abs(inside - outside) > 0.2 for inside, outside in means), means
    painted = contrast_order([p.image for p in pairs], [p.labels for p in pairs])
    assert order_kept(real_order(real, side=128), painted)
