"""Losses of generator, mask network and critics, as pure functions.

    S  maps (n, 3, y, x): h and v in [-1, 1], m in {0, 1}              X  images (n, c, y, x) in [-1, 1]
    G  maps -> image          F  image -> maps          D_X, D_S  critics

    adversarial   half of least squares: a critic's target is 1 for real and 0 for generated, the generator's is 1
    cycle image   |G(F(X)) - X|, mean
    cycle maps    F(G(S)) against S: squares of h and v, squares of their gradients inside objects, cross entropy and
                  Dice of m
    points        -log of the probability of m at the points, and nowhere else: both in F(X) and in F(G(S))

Without the points, nothing decides whether objects are bright and background dark or the other way round; with them,
foreground is where the points are.

Source: "Points to synthetic microscopy", equations of the loss; HoVer-Net for maps; LSGAN (Mao et al. 2017).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from sketchscale.losses.hover import slope_errors, square_errors
from sketchscale.networks.targets import maps_of

__all__ = ["critic_loss", "fooling_loss", "map_loss", "maps_of", "point_loss"]

_SMOOTH = 1e-3


def critic_loss(real: torch.Tensor, made: torch.Tensor) -> torch.Tensor:
    """Return the loss of a critic from its scores.

    >>> float(critic_loss(torch.ones(2), torch.zeros(2)))
    0.0
    """
    return 0.5 * ((real - 1) ** 2).mean() + 0.5 * (made**2).mean()


def fooling_loss(made: torch.Tensor) -> torch.Tensor:
    """Return the loss of the generator of images or maps from the critic's scores.

    >>> float(fooling_loss(torch.zeros(3)))
    0.5
    """
    return 0.5 * ((made - 1) ** 2).mean()


def map_loss(outputs: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return the distance of the mask network's outputs from true maps, a sum of four means.

    Args:
        outputs: (n, 3, y, x), before tanh and sigmoid. maps: S of the same shape.

    >>> bool(map_loss(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)) > 0)
    True
    """
    vh, truth, inside = torch.tanh(outputs[:, [1, 0]]), maps[:, [1, 0]], maps[:, 2:]
    squares = square_errors(vh, truth).mean()
    slope = (slope_errors(vh, truth) * inside[:, 0]).sum() / (inside.sum() + 1e-8)
    entropy = functional.binary_cross_entropy_with_logits(outputs[:, 2:], inside)
    probability = torch.sigmoid(outputs[:, 2:])
    both = (probability * inside).sum()
    dice = 1 - (2 * both + _SMOOTH) / (probability.sum() + inside.sum() + _SMOOTH)
    return squares + slope + entropy + dice


def point_loss(outputs: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the mean of -log of the foreground's probability at the points; 0 if there are none.

    Args:
        outputs: (n, 3, y, x), before the sigmoid. points: bool (n, y, x).

    The gradient is zero everywhere except at the points, and largest, near -1, where a point is taken for background.

    >>> round(float(point_loss(torch.zeros(1, 3, 2, 2), torch.ones(1, 2, 2, dtype=torch.bool))), 4)
    0.6931
    """
    if not points.any():
        return outputs.sum() * 0
    return -functional.logsigmoid(outputs[:, 2][points]).mean()
