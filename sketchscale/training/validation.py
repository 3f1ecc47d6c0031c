"""Held-out annotation: which part is left out of training, and how well a network does on it.

The score is minus the training loss on a fixed set of patches of held-out annotation, without augmentation. It counts
annotated pixels only, so it works for strokes as for dense labels.

What is held out goes object by object, with the surroundings nearest to it:

    A A . . B B      objects A and B, background between; B is held out: everything annotated that is nearer to B than
    A A . | B B      to any other object belongs to it, is unknown to training, and alone is known to validation
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn

from sketchscale.errors import InputError
from sketchscale.losses import find_loss
from sketchscale.networks.targets import TARGETS
from sketchscale.training.augment import AugmentConfig
from sketchscale.training.config import TrainingConfig
from sketchscale.training.distributed import World
from sketchscale.training.patches import AnnotatedImage, PatchSource
from sketchscale.training.prefetch import Batch, draw_batch, move_batch

__all__ = ["choose_held_out", "score_held_out", "source_for"]

PLAIN = AugmentConfig(
    turn=False, scale=(1, 1), small_scale=1, plain=1, gain=(1, 1), gamma=(1, 1), offset=0, noise=0, blur=0
)
"""No augmentation."""


def choose_held_out(images: Sequence[AnnotatedImage], share: float, seed: int) -> tuple[npt.NDArray[np.bool_], ...]:
    """Return the pixels of each image, plane or volume, that are nearest to a share of its objects.

    Args:
        share: of the objects of all images, above 0 and below 1; rounded, at least one and not all.
        seed: which objects.

    Raises:
        InputError: fewer than two objects are annotated.
    """
    if not 0 < share < 1:
        raise InputError.of(found=f"hold-out {share}", expected="above 0 and below 1", fix="0.2")
    objects = [(i, int(k)) for i, image in enumerate(images) for k in np.unique(image.labels) if k > 0]
    if len(objects) < 2:
        raise InputError.of(
            found=f"{len(objects)} annotated objects to hold some out of",
            expected="at least two",
            fix="draw more, or name another image with --validate",
        )
    count = min(len(objects) - 1, max(1, round(share * len(objects))))
    chosen = np.random.default_rng((seed, 1)).permutation(len(objects))[:count]
    kept = [[objects[c][1] for c in chosen if objects[c][0] == i] for i in range(len(images))]
    masks = []
    for image, ids in zip(images, kept, strict=True):
        mask, labels = np.zeros(image.labels.shape, np.bool_), image.labels
        if ids:  # of objects equally near, scipy's choice counts
            at = ndimage.distance_transform_edt(labels <= 0, return_distances=False, return_indices=True)
            mask = np.isin(labels[tuple(at)], ids)
        masks.append(mask)
    return tuple(masks)


def source_for(images: Sequence[AnnotatedImage], config: TrainingConfig, augment: AugmentConfig) -> PatchSource:
    """Return a source of patches with the targets that the configured loss reads."""
    loss = find_loss(config.loss.name)
    return PatchSource(
        images,
        size=config.patch,
        sizes=None if config.network.dim == 2 else config.network.sizes,
        spacing=config.network.spacing,
        augment=augment,
        outside=config.outside,
        dense=loss.dense,
        signed=loss.signed,
        maps=TARGETS[loss.target].maps,
        keep_bytes=config.keep_bytes,
        channels=config.network.channels,
    )


def score_held_out(
    images: Sequence[AnnotatedImage], config: TrainingConfig, device: torch.device, world: World
) -> Callable[[nn.Module], float]:
    """Return a function that scores a network in evaluation mode on the device; larger is better.

    The patches are drawn once, from the seed: `config.held_out_patches` of them, rounded up to whole batches. Processes
    share them out.

    Raises:
        InputError: nothing is annotated in the images.
    """
    source = source_for(images, config, PLAIN)
    size = max(config.batch, world.size)
    rounds = -(-config.held_out_patches // size)
    batches = [draw_batch(source, config.seed, _NO_STEP + n, world.share(size)) for n in range(rounds)]
    return lambda network: -_mean_loss(network, batches, config, device, world)


_NO_STEP = 1 << 40
"""A step number beyond all steps, so that held-out patches have separate random streams."""


def _mean_loss(
    network: nn.Module, batches: Sequence[Batch], config: TrainingConfig, device: torch.device, world: World
) -> float:
    loss, total = find_loss(config.loss.name), torch.zeros((), device=device)
    with torch.inference_mode():
        for batch in batches:
            image, targets = move_batch(batch, device)
            total += loss(network(image), targets, config.loss).float()
        world.average([total])
    return float(total) / len(batches)
