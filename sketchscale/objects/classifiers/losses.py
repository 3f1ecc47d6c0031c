"""CLASS_LOSSES of logits against classes, the choices of SVETLANA.

All but `cross-entropy` compare the softmax of the logits with one-hot targets. The loss of a batch is the mean over its
examples, weighted by their class.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

__all__ = ["CLASS_LOSSES", "class_loss"]

_Difference = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _of_probabilities(difference: _Difference) -> _Difference:
    return lambda logits, hot: difference(torch.softmax(logits, dim=1), hot).mean(dim=1)


CLASS_LOSSES: dict[str, _Difference] = {
    "cross-entropy": lambda logits, hot: -(hot * functional.log_softmax(logits, dim=1)).sum(dim=1),
    "binary-cross-entropy": _of_probabilities(
        lambda found, hot: functional.binary_cross_entropy(found, hot, reduction="none")
    ),
    "smooth-l1": _of_probabilities(lambda found, hot: functional.smooth_l1_loss(found, hot, reduction="none")),
    "l1": _of_probabilities(lambda found, hot: (found - hot).abs()),
    "mse": _of_probabilities(lambda found, hot: (found - hot).square()),
}
"""Name to (n, L) logits and one-hot targets -> (n,) loss of each example."""


def class_loss(name: str, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch.

    Args:
        name: in CLASS_LOSSES.
        logits: (n, L).
        targets: (n,) classes, 0 ... L - 1.
        weights: (L,) of the classes.

    >>> class_loss("cross-entropy", torch.zeros(1, 2), torch.tensor([1]), torch.ones(2))
    tensor(0.6931)
    """
    hot = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
    weight = weights[targets]
    return (CLASS_LOSSES[name](logits, hot) * weight).sum() / weight.sum()
