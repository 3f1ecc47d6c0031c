"""Grad-CAM of one patch, written from the paper's equations with a gradient by plain backward differentiation."""

from __future__ import annotations

import numpy as np
import torch

from sketchscale.objects.classifiers import Classifier
from sketchscale.objects.classifiers.base import create_network
from sketchscale.objects.classifiers.preparation import prepare_patches


def slow_grad_cam(classifier: Classifier, patch: np.ndarray, chosen: int) -> np.ndarray:
    """(s, s) heat map of a light network's patch (C, s, s): its layers are walked one by one."""
    network = create_network(classifier.config, classifier.weights)
    layers = list(network.cnn_layers)  # type: ignore[arg-type]
    last = max(i for i, layer in enumerate(layers) if isinstance(layer, torch.nn.Conv2d))
    values = torch.from_numpy(prepare_patches(patch[None], classifier.config.patches))
    for layer in layers[: last + 1]:
        values = layer(values)
    maps = values.detach().clone().requires_grad_(True)
    after = maps
    for layer in layers[last + 1 :]:
        after = layer(after)
    network.fc(after.mean(dim=(2, 3)))[0, chosen].backward()
    heat = np.zeros(maps.shape[2:])
    for k in range(maps.shape[1]):
        heat += float(maps.grad[0, k].mean()) * maps.detach()[0, k].numpy()
    heat = np.maximum(heat, 0)
    large = enlarged(heat, patch.shape[-1])
    return large / large.max() if large.max() > 0 else large


def enlarged(heat: np.ndarray, side: int) -> np.ndarray:
    """Bilinear between pixel centres; outside the outermost centres as at the border."""
    rows, columns = (np.clip((np.arange(side) + 0.5) * n / side - 0.5, 0, n - 1) for n in heat.shape)
    along = np.stack([np.interp(columns, np.arange(heat.shape[1]), row) for row in heat])
    return np.stack([np.interp(rows, np.arange(heat.shape[0]), column) for column in along.T], axis=1)
