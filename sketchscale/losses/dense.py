"""The loss of full masks: plain means over all pixels.

    5 <|v - v*|^2>_X  +  0.08 <(d - d*)^2>_X

It is the sketch loss of an annotation that leaves nothing open, and the control that sketches are compared with: its
patches count every pixel as annotated, also the outermost ones of a crop (see training.patches).
"""

from __future__ import annotations

import torch

from sketchscale.losses.base import BatchTargets, LossConfig, Term, combined, full_precision, pixel_weights

__all__ = ["dense"]


def dense(prediction: torch.Tensor, targets: BatchTargets, config: LossConfig) -> torch.Tensor:
    """Return the mean squared errors of flow and distance over all pixels; the masks of the targets are not used.

    Args:
        prediction: (n, 3, y, x), flow y, flow x, distance, or (n, 4, z, y, x), flow z first; any float type,
            computed in float32 at least.

    Source: the journal's eq. 15 with D = X, without its inequality.
    """
    values, axes = full_precision(prediction), prediction.ndim - 2
    flow_error = ((values[:, :axes] - targets.flow) ** 2).sum(dim=1)
    everywhere = torch.ones_like(targets.inside)
    pixels = pixel_weights(targets, config)
    return combined(
        [
            Term.mean(config.flow, flow_error, everywhere, pixels),
            Term.mean(config.distance, (values[:, axes] - targets.distance) ** 2, everywhere, pixels),
        ]
    )
