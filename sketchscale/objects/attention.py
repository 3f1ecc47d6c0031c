"""Grad-CAM heat maps: one per patch, for the class that the network chose.

    patch ─▶ ... ─▶ last convolution A (K maps) ─▶ ... ─▶ logit of a class
                        │                                  │
                        └── weight of each map: mean over the map of d logit / d A
    heat = positive part of the weighted sum of the maps, enlarged to the patch, its largest value 1

A map depends on its patch alone: batches have the same shape as in prediction and run on one thread.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sketchscale.errors import InputError
from sketchscale.objects.classifiers import Classifier
from sketchscale.objects.classifiers.base import channels_last, create_network, one_thread
from sketchscale.objects.classifiers.preparation import prepare_patches

__all__ = ["check_attention", "grad_cam"]


def check_attention(classifier: Classifier) -> None:
    """Refuse classifiers without heat maps: forests, and networks for volumes.

    Raises:
        InputError: the classifier is of such a kind; the message names it.
    """
    if not classifier.needs_patches or classifier.config.dim != 2:
        raise InputError.of(
            found=f"a classifier of kind {classifier.config.kind!r} in {classifier.config.dim}-D",
            expected="a network on 2-D patches",
            fix="leave out --attention",
        )


def grad_cam(
    classifier: Classifier, patches: npt.NDArray[np.float32], classes: npt.NDArray[np.integer]
) -> npt.NDArray[np.float32]:
    """Return heat maps of patches.

    Args:
        patches: (n, C, s, s) of `cut_patches`.
        classes: (n,) index of the class whose logit is explained.

    Returns:
        (n, s, s) from 0 to 1; all 0 where nothing supports the class.

    Raises:
        InputError: see `check_attention`.

    Source: Grad-CAM (Selvaraju et al. 2017), equations 1 and 2.
    """
    check_attention(classifier)
    network = create_network(classifier.config, classifier.weights)
    shape = classifier.batch_shape()
    maps = [np.zeros((0, *shape[2:]), np.float32)]
    with one_thread(), torch.enable_grad():
        for first in range(0, len(patches), shape[0]):
            some = patches[first : first + shape[0]]
            padded, chosen = np.zeros(shape, np.float32), np.zeros(shape[0], np.int64)
            padded[: len(some)], chosen[: len(some)] = some, classes[first : first + shape[0]]
            seen = channels_last(prepare_patches(padded, classifier.config.patches))
            heat = _heat(network, seen, torch.from_numpy(chosen))
            maps.append(_scaled(heat, (shape[2], shape[3]))[: len(some)])
    return np.concatenate(maps)


def _heat(network: nn.Module, patches: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Return (n, h, w): the maps of the last convolution, weighted by their effect on the logit, without negatives."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_(True))
        return kept[0]

    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    handle = last.register_forward_hook(keep)
    try:
        logits = network(patches)
    finally:
        handle.remove()
    # A patch's logit depends on its own maps alone, so the gradient of the sum holds that of each.
    (slope,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept[0])
    weights = slope.mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * kept[0].detach()).sum(dim=1))


def _scaled(heat: torch.Tensor, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Return the maps at the size of the patch, bilinear between pixel centres; the largest value of each becomes 1."""
    large = nn.functional.interpolate(heat[:, None], size=shape, mode="bilinear", align_corners=False)[:, 0]
    top = large.amax(dim=(1, 2), keepdim=True)
    scaled: npt.NDArray[np.float32] = (large / torch.where(top > 0, top, torch.ones_like(top))).numpy()
    return scaled
