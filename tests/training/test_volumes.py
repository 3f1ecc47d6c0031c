"""Training on volumes: exact patches in every pose, learning from planes, cut and resumed to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.annotations.targets import BEYOND
from sketchscale.errors import InputError
from sketchscale.losses import loss_config
from sketchscale.networks import NetworkConfig, create_network
from sketchscale.training.augment import AUGMENTS, AugmentConfig, Pose, draw_pose, expose, mirrored_codes, sample_patch
from sketchscale.training.checks import choose_loss
from sketchscale.training.config import TrainingConfig
from sketchscale.training.loop import train
from sketchscale.training.patches import PatchSource, TrainingImage
from sketchscale.training.previews import choose_window, make_preview
from sketchscale.training.sizes import VOLUME, choose_sizes
from sketchscale.training.thresholds import predict_image
from sketchscale.training.validation import choose_held_out, source_for
from tests.training.examples import TINY, same

NETWORK = NetworkConfig(widths=(4, 8), dim=3, outputs=4, anisotropy=2.0)
DEEP = replace(TINY, network=NETWORK, loss=loss_config("eikonal"), threshold=0.0)


def balls(seed: int = 0, shape: tuple[int, int, int] = (16, 48, 48)) -> npt.NDArray[np.int32]:
    """Balls of 6 to 8 px in a volume whose sections are 2 px apart."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    z, y, x = np.indices(shape)
    for k in range(1, 9):
        centre, r = rng.uniform((3, 6, 6), np.array(shape) - (3, 6, 6)), rng.uniform(6, 8)
        ball = ((z - centre[0]) * 2) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < r * r
        labels[ball & (labels == 0)] = k
    return labels


def in_planes(seed: int = 0) -> TrainingImage:
    """Balls that are labelled in a section, a row and a column."""
    labels = balls(seed)
    noise = np.random.default_rng(seed).normal(0, 0.05, labels.shape)
    shown = np.zeros(labels.shape, np.bool_)
    shown[8] = shown[:, 24] = shown[:, :, 20] = True
    image = ((labels > 0) * 0.8 + 0.1 + noise).astype(np.float32)[None]
    return TrainingImage(image=image, labels=np.where(shown, labels, np.int32(-1)), name=f"balls {seed}")


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_a_patch_of_a_volume_is_the_volume_at_the_places_of_its_pose(seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 9, (5, 7, 9)).astype(np.int32)
    sizes, margin = (4, 6, 6), (1, 2, 2)
    centre = tuple(float(rng.integers(0, n)) + 0.5 for n in codes.shape)
    pose = draw_pose(rng, centre, 10.0, AugmentConfig())
    image, got = sample_patch(codes[None].astype(np.float32), codes, pose, sizes, margin)
    mirrored = mirrored_codes(codes, pose, sizes, margin)
    wide = np.array(sizes) + 2 * np.array(margin)
    assert got.shape == mirrored.shape == tuple(wide)
    np.testing.assert_array_equal(image[0], mirrored[1:-1, 2:-2, 2:-2])
    for place in np.ndindex(*wide):
        at = np.array(pose.centre) + np.array(pose.turn) @ (np.array(place) - (wide - 1) / 2)
        at = np.floor(at + 0.5).astype(int)
        inside = ((at >= 0) & (at < codes.shape)).all()
        assert got[place] == (codes[tuple(at)] if inside else BEYOND)
        folded = [int(np.pad(np.arange(n), 40, "reflect")[i + 40]) for i, n in zip(at, codes.shape, strict=True)]
        assert mirrored[place] == codes[tuple(folded)]


def test_poses_of_a_volume_keep_sections_together_and_scale_nothing() -> None:
    poses = [draw_pose(np.random.default_rng(i), (1.0, 2.0, 3.0), 10.0, AugmentConfig()) for i in range(200)]
    assert {pose.turn[0] for pose in poses} == {(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)}
    assert len({pose.turn for pose in poses}) == 16
    assert {pose.scale for pose in poses} == {1.0}
    still = draw_pose(np.random.default_rng(0), (1.0, 2.0, 3.0), 10.0, AUGMENTS["none"])
    assert still == Pose(centre=(1.0, 2.0, 3.0), turn=tuple(map(tuple, np.eye(3).tolist())))


def test_every_augmentation_of_intensities_takes_volumes() -> None:
    image = np.random.default_rng(0).random((2, 4, 8, 8)).astype(np.float32)
    config = AugmentConfig(tint=(0.5, 2.0), shuffle=1.0, grey=1.0, invert=1.0)
    assert expose(image, np.random.default_rng(1), config).shape == image.shape


def test_a_batch_has_patches_by_the_spacing() -> None:
    source = source_for([in_planes()], DEEP, AUGMENTS["all"])
    image, targets = source.batch(np.random.default_rng(0), 2)
    assert image.shape == (2, 1, 16, 32, 32)
    assert targets.flow.shape == (2, 3, 16, 32, 32)
    assert targets.edges.shape == (2, 1, 16, 32, 32)
    assert targets.background.any()
    assert targets.inside.any()


def test_dense_labels_of_a_volume_are_targets_everywhere() -> None:
    labels = balls()
    image = TrainingImage(image=(labels > 0).astype(np.float32)[None], labels=labels)
    source = source_for([image], replace(DEEP, loss=loss_config("dense")), AUGMENTS["turns"])
    _, targets = source.batch(np.random.default_rng(0), 3)
    assert bool((targets.known | (targets.distance > 0)).all())
    assert PatchSource([image], size=8, sizes=NETWORK.sizes, augment=AUGMENTS["none"], outside=-5.0).useful == [0]


def test_strokes_in_planes_teach_where_balls_are(tmp_path: Path) -> None:
    config = replace(DEEP, steps=60, rate=1e-2, average=0.9, network=replace(NETWORK, widths=(8, 16)))
    losses: list[float] = []
    model = train([in_planes(1)], config, run_folder=tmp_path, on_step=lambda s: losses.append(s.loss))
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    fresh, truth = in_planes(2), balls(2)
    found = predict_image(model, fresh.image)[-1] > 0
    assert (found == (truth > 0)).mean() > 0.9
    assert (found & (truth > 0)).sum() > 0.5 * (truth > 0).sum()
    assert model.config.network.anisotropy == 2.0
    assert 4 < model.config.diameter < 30


def test_interrupted_and_resumed_equals_uninterrupted_to_the_bit(tmp_path: Path) -> None:
    config = replace(DEEP, steps=4, held_out_patches=2, validate_every=2)
    held_out = [in_planes(3)]
    whole = train([in_planes()], config, run_folder=tmp_path / "whole", validation=held_out)

    def cut(step: object) -> None:
        if step.step == 2:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train([in_planes()], config, run_folder=tmp_path / "cut", validation=held_out, on_step=cut)
    resumed = train([in_planes()], config, run_folder=tmp_path / "cut", validation=held_out, resume=True)
    assert same(whole, resumed)
    assert whole.config == resumed.config


def test_a_volume_can_start_from_a_model_of_volumes_with_the_same_levels(tmp_path: Path) -> None:
    first = train([in_planes()], replace(DEEP, steps=2), run_folder=tmp_path / "first")
    again = train([in_planes(1)], replace(DEEP, steps=2), run_folder=tmp_path / "again", init=first)
    assert not same(first, again)
    other = replace(DEEP, steps=1, network=replace(NETWORK, anisotropy=1.0))
    with pytest.raises(InputError, match="a starting model with flat 1; expected: flat 0"):
        train([in_planes()], other, run_folder=tmp_path / "other", init=first)


def test_held_out_objects_of_a_volume_take_the_space_around_them() -> None:
    image = in_planes()
    (mask,) = choose_held_out([image], 0.4, seed=1)
    ids = np.unique(image.labels[image.labels > 0])
    hidden = [k for k in ids if mask[image.labels == k].all()]
    assert 0 < len(hidden) < len(ids)
    assert mask[image.labels > 0].sum() == np.isin(image.labels, hidden).sum()


def test_a_preview_of_a_volume_shows_a_section(tmp_path: Path) -> None:
    image = in_planes()
    model = train([image], replace(DEEP, steps=1), run_folder=tmp_path)
    position, box = choose_window([image])
    preview = make_preview(model, image, box, 1)
    assert position == 0
    assert preview.image.shape == (1, 48, 48)
    assert preview.distance.shape == preview.labels.shape == (48, 48)
    assert (preview.labels >= 0).all()  # section 8, the labelled one


def test_planes_choose_eikonal_and_full_labels_sketchpose() -> None:
    labels = balls()
    assert choose_loss([in_planes()])[0] == "eikonal"
    assert choose_loss([TrainingImage(image=labels[None].astype(np.float32), labels=labels)])[0] == "sketchpose"


def test_sizes_of_volumes_are_their_own() -> None:
    assert choose_sizes(2, volume=True) == choose_sizes(None, volume=True) == VOLUME
    assert choose_sizes(2, volume=True, width=16).width == 16


@pytest.mark.parametrize("ratio", [1.0, 2.0, 3.9])
def test_levels_work_section_by_section_until_pixels_are_as_large(ratio: float) -> None:
    shape = NetworkConfig(widths=(2, 4, 8), dim=3, outputs=4, anisotropy=ratio)
    network = create_network(shape, seed=1).eval()
    stride = network.stride  # type: ignore[union-attr]
    assert shape.flat == round(np.log2(ratio))
    x = torch.randn(1, 1, *(2 * n for n in shape.sizes(int(stride))))
    assert network(x).shape == (1, 4, *x.shape[2:])
    kernels = {tuple(p.shape[2:]) for name, p in network.named_parameters() if name.startswith("down.0.units")}
    assert ((1, 3, 3) in kernels) == (ratio > 1.5)


def test_what_volumes_cannot_have_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="the loss hover for volumes; expected: one of flow: sketchpose, eikonal"):
        TrainingConfig(network=NETWORK, loss=loss_config("hover"))
    with pytest.raises(InputError, match="2 dimensions with anisotropy 2; expected: 1/20 to 20 in three"):
        NetworkConfig(anisotropy=2.0)
    with pytest.raises(InputError, match=r"with 3 outputs .* expected: 4"):
        TrainingConfig(network=replace(NETWORK, outputs=3), loss=loss_config("eikonal"))
