"""Slow, obvious twins of what classifiers compute."""

from __future__ import annotations

import numpy as np


def convolved(patch, kernels, bias):
    """(C, h, w) with (F, C, k, k) kernels, padding 1, pixel by pixel."""
    k = kernels.shape[-1]
    wide = np.pad(patch, ((0, 0), (1, 1), (1, 1)))
    height, width = (n - k + 1 for n in wide.shape[1:])
    out = np.zeros((len(kernels), height, width))
    for f in range(len(kernels)):
        for y in range(height):
            for x in range(width):
                out[f, y, x] = (wide[:, y : y + k, x : x + k] * kernels[f]).sum() + bias[f]
    return out


def light_probabilities(patch, weights, depth):
    """Class probabilities of a light network: convolution, ReLU, batch norm, pooling, mean, linear, softmax."""
    x = patch.astype(np.float64)
    for i in range(depth):
        x = convolved(x, weights[f"cnn_layers.{4 * i}.weight"], weights[f"cnn_layers.{4 * i}.bias"])
        x = np.maximum(x, 0)
        name = f"cnn_layers.{4 * i + 2}"
        mean, variance, scale, shift = (
            weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / np.sqrt(variance + 1e-5) * scale + shift
        height, width = x.shape[1] // 2, x.shape[2] // 2
        x = x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2).max(axis=(2, 4))
    logits = weights["fc.0.weight"] @ x.mean(axis=(1, 2)) + weights["fc.0.bias"]
    return np.exp(logits) / np.exp(logits).sum()


def near_mask(mask, distance):
    """Pixels at most so far from a pixel of the mask, compared pair by pair."""
    inside = np.argwhere(mask)
    near = np.zeros(mask.shape, bool)
    for place in np.ndindex(mask.shape):
        near[place] = any(np.sqrt(((np.array(place) - other) ** 2).sum()) <= distance for other in inside)
    return near


def tree_walk(tree, row):
    """Class shares of one row by one tree of a scikit-learn random forest, node by node."""
    node, row = 0, row.astype(np.float32)
    while tree.children_left[node] >= 0:
        x = row[tree.feature[node]]
        left = bool(tree.missing_go_to_left[node]) if np.isnan(x) else x <= tree.threshold[node]
        node = tree.children_left[node] if left else tree.children_right[node]
    return tree.value[node, 0]
