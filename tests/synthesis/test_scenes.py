from __future__ import annotations

import numpy as np
import pytest
import torch

from sketchscale.errors import InputError
from sketchscale.synthesis.layouts import LayoutPrior
from sketchscale.synthesis.networks import GeneratorConfig
from sketchscale.synthesis.scenes import PointedImage, Scenes


def pointed(seed: int = 0, shape: tuple[int, int] = (90, 110), channels: int = 3) -> PointedImage:
    """Bright single pixels on black, one for each point."""
    points = np.stack(np.mgrid[4 : shape[0] : 17, 5 : shape[1] : 19], -1).reshape(-1, 2).astype(float)
    image = np.full((channels, *shape), -1, np.float32)
    image[:, points[:, 0].astype(int), points[:, 1].astype(int)] = 1
    return PointedImage(image=image, points=points, name=f"image {seed}")


PRIOR = LayoutPrior(diameter=10)
BLACK = np.zeros((1, 70, 70), np.float32)


def test_crops_carry_their_points_however_they_are_turned():
    scenes = Scenes([pointed(), pointed(1)], crop=64, prior=PRIOR)
    for step in range(6):
        batch = scenes.batch(step, range(4))
        assert torch.equal(batch.image[:, 0] > 0, batch.image_points)
        assert batch.image_points.any()


def test_points_of_layouts_lie_inside_and_maps_are_maps():
    scenes = Scenes([pointed()], crop=64, prior=PRIOR, generator=GeneratorConfig(noise=3))
    for step in range(6):
        batch = scenes.batch(step, range(4))
        assert (batch.maps[:, 2][batch.map_points] == 1).all()
        assert batch.map_points.any()
        assert batch.maps[:, :2].abs().max() <= 1
        assert set(batch.maps[:, 2].unique().tolist()) <= {0.0, 1.0}
        assert batch.noise.shape == (4, 3)


def test_local_noise_changes_nothing_else_of_a_batch():
    plain, local = (
        Scenes([pointed()], crop=64, prior=PRIOR, generator=GeneratorConfig(local_noise=n)).batch(3, range(2))
        for n in (0, 2)
    )
    assert local.noise.shape == (2, 3, 64, 64)
    assert torch.equal(local.noise[:, 0, 5, 6], plain.noise[:, 0])
    for name in ("image", "image_points", "maps", "map_points"):
        assert torch.equal(getattr(plain, name), getattr(local, name))


def test_a_batch_depends_on_seed_step_and_place_alone():
    one, two = (Scenes([pointed()], crop=64, prior=PRIOR, seed=4) for _ in range(2))
    one.batch(0, range(4))
    whole, part = one.batch(7, range(4)), two.batch(7, (2, 3))
    for name in whole.__dataclass_fields__:
        assert torch.equal(getattr(whole, name)[2:], getattr(part, name))
    other = Scenes([pointed()], crop=64, prior=PRIOR, seed=5).batch(7, range(4))
    assert not torch.equal(other.maps, whole.maps)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no image"),
        (
            [pointed(), pointed(1, channels=1)],
            "image 1 has 1 channels, image 0 3; .* to fix: choose them with --channel",
        ),
        ([pointed(shape=(40, 200))], "image 0 is 40 x 200 px; expected: at least 64 px"),
        (
            [PointedImage(image=np.zeros((1, 70, 70), np.float32), points=np.full((12, 2), 99.0))],
            "image: 12 of 12 points",
        ),
        ([PointedImage(image=np.zeros((1, 70, 70), np.float32), points=np.ones((1, 2)))], "1 point in all"),
    ],
)
def test_images_that_do_not_fit_are_one_line(images, message):
    with pytest.raises(InputError, match=message):
        Scenes(images, crop=64, prior=PRIOR)


def test_points_between_pixels_do_not_meet_when_they_are_mirrored():
    image = pointed()
    inner = image.points[image.points.max(1) < 80]
    between = PointedImage(image=image.image, points=np.concatenate([inner, inner + 0.5]))
    scenes = Scenes([between], crop=64, prior=PRIOR, given=1.0)
    for step in range(8):
        assert scenes.batch(step, range(4)).map_points.any()
