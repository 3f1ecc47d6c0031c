"""What happens to patches before a network: context, normalisation, mask; and to those of training: moves, noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sketchscale.errors import InputError, UnknownNameError
from sketchscale.objects.classifiers import AugmentOptions, PatchOptions
from sketchscale.objects.classifiers.augmentation import AUGMENTS, augmented
from sketchscale.objects.classifiers.preparation import NORMALIZATIONS, prepare_patches
from tests.oracles.classifiers import near_mask


def drawn(shape, seed):
    """Patches of one object each, whose mask may be empty."""
    rng = np.random.default_rng(seed)
    patches = rng.normal(2, 1, shape).astype(np.float32)
    patches[:, -1] = rng.random(patches[:, -1].shape) < 0.1
    return patches


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(3, 2, 7, 7), (2, 3, 5, 5, 5)]), st.floats(0, 4), st.integers(0, 2**16))
def test_context_keeps_what_is_near_the_object_and_nothing_else(shape, distance, seed):
    patches = drawn(shape, seed)
    kept = prepare_patches(patches, PatchOptions(context=distance))
    for patch, found in zip(patches, kept, strict=True):
        near = near_mask(patch[-1] > 0, distance)
        np.testing.assert_array_equal(found[:-1], np.where(near, patch[:-1], 0))
        np.testing.assert_array_equal(found[-1], patch[-1])


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(NORMALIZATIONS)), st.integers(0, 3), st.booleans(), st.booleans(), st.integers(0, 2**16))
def test_preparation_depends_on_the_patch_alone_and_commutes_with_turns(name, turns, mask, near, seed):
    patches = drawn((4, 3, 6, 6), seed)
    options = PatchOptions(normalization=name, mask=mask, context=1.5 if near else None)
    whole = prepare_patches(patches, options)
    assert (whole.dtype, whole.shape) == (np.float32, (4, 3 if mask else 2, 6, 6))
    np.testing.assert_array_equal(prepare_patches(patches[2:3], options), whole[2:3])
    turned = prepare_patches(np.rot90(patches, turns, axes=(2, 3)), options)
    np.testing.assert_array_equal(turned, np.rot90(whole, turns, axes=(2, 3)))


def test_patches_are_normalised_over_all_their_channels():
    patches = drawn((2, 3, 4, 4), 0)
    patches[1, :-1] = 5
    found = prepare_patches(patches, PatchOptions(normalization="min-max"))
    assert (found[0, :-1].min(), found[0, :-1].max()) == (0, 1)
    assert (found[1, :-1] == 0).all()
    ratio = found[0, :-1] * np.ptp(patches[0, :-1]) + patches[0, :-1].min()
    np.testing.assert_allclose(ratio, patches[0, :-1], rtol=1e-4, atol=1e-5)
    assert (prepare_patches(patches, PatchOptions(normalization="max"))[:, :-1].max(axis=(1, 2, 3)) == 1).all()


def test_unknown_ways_are_refused():
    with pytest.raises(UnknownNameError, match="known: max, min-max, none, plane"):
        PatchOptions(normalization="zscore")
    with pytest.raises(InputError, match="a context of -1 px"):
        PatchOptions(context=-1)
    with pytest.raises(InputError, match="augmentation rotate 2"):
        AugmentOptions(rotate=2)


def moves_of(patch):
    """All turns and flips of one patch."""
    turned = [np.rot90(patch, k, axes=(-2, -1)) for k in range(4)]
    flat = [each[..., ::-1] for each in turned] + turned
    return flat if patch.ndim == 3 else flat + [each[:, ::-1] for each in flat]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(12, 2, 4, 4), (12, 2, 3, 4, 4)]), st.integers(0, 2**16))
def test_moved_patches_are_turned_or_mirrored_and_nothing_else(shape, seed):
    patches = drawn(shape, seed)
    moved = augmented(torch.from_numpy(patches), AugmentOptions(), np.random.default_rng(seed), 1).numpy()
    for before, after in zip(patches, moved, strict=True):
        assert any(np.array_equal(after, each) for each in moves_of(before))


def test_all_moves_occur_and_none_when_turned_off():
    patch = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    many = torch.from_numpy(np.repeat(patch, 400, axis=0))
    moved = augmented(many, AugmentOptions(), np.random.default_rng(0), 1).numpy()
    assert len(np.unique(moved.reshape(400, -1), axis=0)) == 8
    still = augmented(many, AugmentOptions(rotate=0, flip=0), np.random.default_rng(0), 1)
    assert torch.equal(still, many)


@pytest.mark.parametrize(
    ("name", "square", "cube"), [("none", 1, 1), ("flips", 4, 8), ("rotations", 4, 4), ("turns", 8, 16)]
)
def test_the_named_changes_draw_these_moves_alike_often(name, square, cube):
    for shape, count in (((1, 1, 4, 4), square), ((1, 1, 4, 4, 4), cube)):
        patch = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        many = torch.from_numpy(np.repeat(patch, 1600, axis=0))
        moved = augmented(many, AUGMENTS[name], np.random.default_rng(0), 1).numpy()
        found, often = np.unique(moved.reshape(1600, -1), axis=0, return_counts=True)
        assert len(found) == count
        assert often.min() > 0.6 * 1600 / count
        expected = {each.tobytes() for each in moves_of(patch[0])}
        assert {each.tobytes() for each in found.reshape(-1, *shape[1:])} <= expected
        half = np.rot90(patch[0], 2, axes=(-2, -1))
        assert any(np.array_equal(each, half) for each in moved) == (name != "none")


def test_all_changes_move_patches_and_change_intensities():
    patches = torch.from_numpy(drawn((60, 3, 9, 9), 3))
    changed = augmented(patches, AUGMENTS["all"], np.random.default_rng(1), 2)
    masks = {each.tobytes() for mask in patches[:, 2:].numpy() for each in moves_of(mask)}
    assert {mask.tobytes() for mask in changed[:, 2:].numpy()} <= masks
    assert torch.isin(changed[:, :2], patches[:, :2]).float().mean() < 0.01


@pytest.mark.parametrize("options", [{"brightness": 0.2}, {"noise": 0.1}, {"blur": 1.5}])
def test_intensities_change_and_masks_do_not(options):
    patches = torch.from_numpy(drawn((5, 3, 9, 9), 3))
    changed = augmented(patches, AugmentOptions(rotate=0, flip=0, **options), np.random.default_rng(1), 2)
    assert torch.equal(changed[:, 2], patches[:, 2])
    assert not torch.isclose(changed[:, :2], patches[:, :2]).all()
    assert (changed[:, :2] - patches[:, :2]).abs().mean() < 2


def test_a_blur_keeps_constant_patches():
    patches = torch.full((2, 2, 6, 6), 3.0)
    blurred = augmented(patches, AugmentOptions(blur=2), np.random.default_rng(0), 2)
    torch.testing.assert_close(blurred, patches)
