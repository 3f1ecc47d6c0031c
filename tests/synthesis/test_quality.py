"""Quality measures say what is wrong with a synthesis that is known to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from sketchscale.annotations.hover_maps import maps_from_labels
from sketchscale.errors import InputError
from sketchscale.synthesis.contrast import contrast_order, labels_of_points, order_kept, real_order
from sketchscale.synthesis.features import colour_features, cut_crops, halves, texture_features
from sketchscale.synthesis.layouts import LayoutPrior, draw_layout
from sketchscale.synthesis.model import Synthesis
from sketchscale.synthesis.networks import Generator, GeneratorConfig
from sketchscale.synthesis.pairs import draw_pair, paint
from sketchscale.synthesis.quality import consistency, diversity, fidelity, read_maps
from sketchscale.synthesis.scenes import PointedImage
from tests.synthesis.tiny import tiny_synthesis

Image = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint32]

PRIOR = LayoutPrior(diameter=12)
SMALL = GeneratorConfig(channels=2, width=2, hidden=4)


def grid(side: int, step: int = 16, seed: int = 0) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*2 * [np.arange(step / 2, side, step)], indexing="ij"), -1).reshape(-1, 2)
    return np.clip(places + rng.integers(-2, 3, places.shape), 0, side - 1)


def tiny() -> Synthesis:
    return tiny_synthesis(channels=2)


class Painter(Generator):
    """Paints m itself: objects at one intensity in each channel, background at another, with or without noise."""

    def __init__(self, inside: tuple[float, float], outside: tuple[float, float], noisy: float = 0.0) -> None:
        super().__init__(SMALL)
        self.inside, self.outside = (torch.tensor(v)[None, :, None, None] for v in (inside, outside))
        self.noisy = noisy

    def forward(self, maps: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        m = maps[:, 2:]
        return m * self.inside + (1 - m) * self.outside + self.noisy * noise[..., None, None].clamp(-1, 1)


class Reader(nn.Module):
    """Reads m back from what a Painter with objects at 0.5 and background at -0.5 painted; h and v are 0."""

    stride = 1

    def __init__(self, wrong: bool = False) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(-40.0 if wrong else 40.0), requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        m = self.factor * image[:, :1]
        return torch.cat([torch.zeros_like(m), torch.zeros_like(m), m], 1)


def painted_by(painter: Painter, masker: nn.Module | None = None) -> Synthesis:
    return replace(tiny(), generator=painter.eval(), masker=masker or Reader())


def layouts(n: int = 3, side: int = 96) -> list[Labels]:
    return [draw_layout(grid(side, seed=k), (side, side), PRIOR, seed=k) for k in range(n)]


def real(n: int = 4, side: int = 160, change: Callable[[Image], Image] = lambda image: image) -> list[PointedImage]:
    """Bright objects in channel 0, dark ones in channel 1, with grain; in [-1, 1]."""
    found = []
    for k in range(n):
        points = grid(side, seed=k)
        m = (draw_layout(points, (side, side), PRIOR, seed=k) > 0).astype(np.float32)
        grain = np.random.default_rng(k).normal(0, 0.1, (2, side, side)).astype(np.float32)
        image = np.clip(np.stack([m - 0.5, 0.5 - m]) + grain, -1, 1)
        found.append(PointedImage(image=change(image), points=points, name=f"image {k}"))
    return found


def shown(images: list[PointedImage]) -> list[Image]:
    return [(image.image + 1) / 2 for image in images]


# --- features


def test_features_of_one_channel_do_not_depend_on_the_others() -> None:
    crop = np.random.default_rng(0).random((3, 16, 16), np.float32)
    together = texture_features([crop])[0].reshape(3, -1)
    for channel in range(3):
        np.testing.assert_allclose(together[channel], texture_features([crop[channel : channel + 1]])[0], atol=1e-5)


def test_colour_features_are_the_moments_of_the_channels() -> None:
    crop = np.random.default_rng(0).random((3, 8, 8), np.float32)
    flat = crop.reshape(3, -1)
    shared = np.corrcoef(flat)
    wanted = [*flat.mean(1), *flat.std(1), shared[0, 1], shared[0, 2], shared[1, 2]]
    np.testing.assert_allclose(colour_features([crop])[0], wanted, rtol=1e-5)
    assert np.isfinite(colour_features([np.ones((3, 8, 8), np.float32)])).all()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_halves_share_no_pixel(n: int) -> None:
    images = [PointedImage(image=np.zeros((1, 40, 90), np.float32), points=np.zeros((0, 2))) for _ in range(n)]
    seen = [np.zeros((40, 90), int) for _ in images]
    for part in halves(images, 32):
        assert part
        for area in part:
            where = next(i for i, image in enumerate(images) if image is area.image)
            seen[where][area.box.slices] += 1
    assert all((s == 1).all() for s in seen)


def test_crops_lie_in_their_areas() -> None:
    place = np.arange(40 * 90, dtype=np.float32).reshape(1, 40, 90)
    image = PointedImage(image=place * 2 - 1, points=np.zeros((0, 2)))
    first, second = halves([image], 32)
    for part, low, high in ((first, 0, 45), (second, 45, 90)):
        crops = cut_crops(part, 50, 32, (0, 1))
        columns = np.concatenate([crop.ravel() for crop in crops]) % 90
        assert len(crops) == 50
        assert columns.min() == low
        assert columns.max() == high - 1


# --- fidelity


def test_real_images_are_as_near_as_the_floor_and_inverted_ones_far_away() -> None:
    images = real()
    same = fidelity(images, shown(real(6)[4:]), crops=24, crop=64)
    inverted = fidelity(images, shown(real(6, change=lambda image: -image)[4:]), crops=24, crop=64)
    for near, far in ((same.texture, inverted.texture), (same.colour, inverted.colour)):
        assert near.frechet < 3 * near.frechet_floor
        assert far.frechet > 3 * far.frechet_floor
        assert far.kernel > 10 * abs(near.kernel)
        assert (near.frechet_floor, near.kernel_floor) == (far.frechet_floor, far.kernel_floor)
    assert same.crops == 12
    assert same.texture.features == 480


def test_fidelity_is_the_same_for_the_same_seed() -> None:
    images, made = real(2), shown(real(3)[2:])
    assert fidelity(images, made, crops=8, crop=32) == fidelity(images, made, crops=8, crop=32)
    assert fidelity(images, made, crops=8, crop=32) != fidelity(images, made, crops=8, crop=32, seed=1)


@pytest.mark.parametrize(
    ("images", "made", "crops", "crop", "said"),
    [
        (2, 1, 6, 32, "6 crops of 32 px"),
        (2, 1, 8, 36, "multiple of 8"),
        (2, 0, 8, 32, "0 generated images"),
        (2, 1, 8, 200, "0 generated images|1 generated images"),
        (0, 1, 8, 32, "no image"),
        (1, 1, 8, 96, "several images, or one of 192 px"),
    ],
)
def test_what_cannot_be_compared_is_refused(images: int, made: int, crops: int, crop: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fidelity(real(images), shown(real(made)), crops=crops, crop=crop)


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match="channels 2, 3"):
        fidelity(real(2), [np.zeros((3, 96, 96), np.float32)], crops=8, crop=32)


# --- diversity


def test_a_generator_that_ignores_noise_has_no_diversity() -> None:
    found = diversity(painted_by(Painter((0.5, 0.5), (-0.5, -0.5))), layouts(), range(3))
    assert found.pixels == found.features == 0
    assert found.layouts > 0


def test_diversity_is_what_noise_adds() -> None:
    synthesis = painted_by(Painter((0.5, 0.5), (-0.5, -0.5), noisy=0.2))
    found = diversity(synthesis, layouts(), (3, 4))
    noises = [np.random.default_rng(seed).standard_normal(1).clip(-1, 1)[0] for seed in (3, 4)]
    assert found.pixels == pytest.approx(0.2 * abs(noises[0] - noises[1]) / 2, rel=1e-4)
    assert found.features > 0


def test_diversity_of_a_random_generator_is_a_number() -> None:
    found = diversity(tiny(), layouts(2, 64), (0, 1))
    assert 0 <= found.pixels < 1
    assert np.isfinite(found.features)


@pytest.mark.parametrize(("n", "seeds"), [(1, (0, 1)), (2, (0,))])
def test_diversity_of_one_image_is_refused(n: int, seeds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least 2 of each"):
        diversity(tiny(), layouts(n, 64), seeds)


# --- consistency


def test_a_cycle_that_returns_the_foreground_has_a_dice_of_one() -> None:
    found = consistency(painted_by(Painter((0.5, 0.5), (-0.5, -0.5))), layouts())
    assert found.dice == found.iou == 1
    # h and v of 0 everywhere: as wrong as they are large
    inside = np.concatenate([maps_from_labels(labels)[:, labels > 0] for labels in layouts()], 1)
    assert found.h_error == pytest.approx(np.abs(inside[0]).mean(), rel=1e-5)
    assert found.v_error == pytest.approx(np.abs(inside[1]).mean(), rel=1e-5)
    # objects that touch are read as one, those that stand alone are found
    assert found.f1 < found.f1_exact
    assert found.f1_exact > 0.8
    assert found.aji < found.aji_exact


def test_a_cycle_that_reads_background_as_foreground_is_inconsistent() -> None:
    found = consistency(painted_by(Painter((0.5, 0.5), (-0.5, -0.5)), Reader(wrong=True)), layouts())
    assert found.dice == found.iou == 0
    assert found.f1 < 0.2


def test_exact_maps_part_objects_that_touch() -> None:
    labels = np.zeros((64, 64), np.uint32)
    labels[8:22, 8:22], labels[8:22, 22:36], labels[22:36, 8:22] = 1, 2, 3
    assert consistency(tiny(), [labels]).f1_exact == 1


def test_layouts_without_an_object_are_refused() -> None:
    with pytest.raises(InputError, match="without an object"):
        consistency(tiny(), [np.zeros((32, 32), np.uint32)])


@pytest.mark.parametrize("shape", [(40, 56), (33, 47), (1, 1)])
def test_maps_are_read_from_images_of_any_size(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((2, *shape), np.float32)
    maps = read_maps(tiny(), image)
    assert maps.shape == (3, *shape)
    assert (np.abs(maps) <= 1).all()
    assert (maps[2] >= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (20, 70)])
def test_layouts_of_any_size_are_painted(shape: tuple[int, int]) -> None:
    image = paint(tiny(), np.ones(shape, np.uint32), np.zeros(1, np.float32))
    assert image.shape == (2, *shape)
    assert np.isfinite(image).all()


class MapPainter(Generator):
    """Paints h and v themselves."""

    def __init__(self) -> None:
        super().__init__(SMALL)

    def forward(self, maps: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return maps[:, :2]


@pytest.mark.parametrize("shape", [(64, 96), (70, 101), (20, 33)])
def test_objects_are_painted_by_their_own_maps_whatever_is_mirrored_behind_them(shape: tuple[int, int]) -> None:
    labels = draw_layout(grid(max(shape))[(grid(max(shape)) < shape).all(1)], shape, PRIOR)
    seen = paint(replace(tiny(), generator=MapPainter()), labels, np.zeros(1, np.float32))
    np.testing.assert_allclose(2 * seen - 1, maps_from_labels(labels)[:2], atol=1e-6)


def test_maps_of_whole_strides_are_what_the_network_says() -> None:
    synthesis, image = tiny(), np.random.default_rng(0).random((2, 32, 32), np.float32)
    out = synthesis.masker(torch.from_numpy(image * 2 - 1)[None])[0].numpy()
    np.testing.assert_allclose(read_maps(synthesis, image)[2], 1 / (1 + np.exp(-out[2])), atol=1e-6)


# --- order of bright and dark


def made_pairs(painter: Painter, n: int = 6) -> tuple[list[Image], list[Labels]]:
    synthesis = painted_by(painter)
    pairs = [draw_pair(synthesis, (96, 96), seed=(0, k)) for k in range(n)]
    return [pair.image for pair in pairs], [pair.labels for pair in pairs]


@pytest.mark.parametrize(
    ("painter", "kept"),
    [
        (Painter((0.4, -0.4), (-0.2, 0.2)), True),
        (Painter((-0.2, 0.2), (0.4, -0.4)), False),
        (Painter((0.4, 0.2), (-0.2, -0.4)), False),
        (Painter((0.4, 0.0), (-0.2, 0.0)), True),
        (Painter((0.1, 0.1), (0.1, 0.1), noisy=0.5), None),
    ],
    ids=["kept", "inverted", "one channel inverted", "one channel flat", "no contrast"],
)
def test_a_painter_that_inverts_is_caught(painter: Painter, kept: bool | None) -> None:
    at_points = real_order(real())
    assert [order.sign for order in at_points] == [1, -1]
    assert order_kept(at_points, contrast_order(*made_pairs(painter))) is kept


def test_order_says_means_and_images() -> None:
    order = contrast_order(*made_pairs(Painter((0.4, -0.4), (-0.2, 0.2))))[0]
    assert order.objects == pytest.approx(0.7)
    assert order.background == pytest.approx(0.4)
    assert (order.brighter, order.darker, order.images) == (6, 0, 6)


def test_grain_without_objects_is_undecided() -> None:
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(100):
        images = list(rng.normal(0.5, 0.1, (3, 1, 48, 48)).astype(np.float32))
        squares = [labels_of_points(rng.integers(2, 46, (12, 2)).astype(float), (48, 48)) for _ in images]
        wrong += contrast_order(images, squares)[0].sign != 0
    assert wrong <= 4


def test_images_that_disagree_decide_nothing_however_many_objects_they_have() -> None:
    labels = labels_of_points(grid(96), (96, 96))
    bright = (labels > 0)[None].astype(np.float32)
    order = contrast_order([bright, bright, 1 - bright], [labels] * 3)[0]
    assert order.sign == 0
    assert (order.brighter, order.darker) == (2, 1)


def test_images_without_objects_or_background_do_not_count() -> None:
    full, empty = np.ones((8, 8), np.uint32), np.zeros((8, 8), np.uint32)
    order = contrast_order([np.ones((1, 8, 8), np.float32)] * 2, [full, empty])[0]
    assert (order.count, order.images, order.sign) == (0, 0, 0)


def test_parts_of_one_image_count_as_one() -> None:
    labels = labels_of_points(grid(96), (96, 96))
    bright = (labels > 0)[None].astype(np.float32)
    images = [bright, bright, bright, 1 - bright]
    alone, joined = contrast_order(images, [labels] * 4)[0], contrast_order(images, [labels] * 4, [0, 0, 0, 1])[0]
    assert (alone.images, joined.images) == (4, 2)
    assert (joined.brighter, joined.darker) == (1, 1)
    assert joined.error > alone.error


def test_real_images_are_looked_at_in_windows_that_hold_every_point_once() -> None:
    images = real(2, 100)
    parts, whole = real_order(images, side=40), real_order(images, side=100)
    assert parts[0].count == whole[0].count == sum(len(i.points) for i in images)
    assert parts[0].images == 2
    # squares are cut where windows meet
    assert parts[0].objects == pytest.approx(whole[0].objects, abs=0.03)
    few = real_order(images, side=40, windows=4)
    assert 0 < few[0].count < parts[0].count
    assert few == real_order(images, side=40, windows=4) != real_order(images, side=40, windows=4, seed=1)


def test_as_many_label_images_as_images_are_asked_for() -> None:
    with pytest.raises(InputError, match="1 images, 0 label images"):
        contrast_order([np.ones((1, 8, 8), np.float32)], [])
    with pytest.raises(InputError, match="0 images"):
        contrast_order([], [])
