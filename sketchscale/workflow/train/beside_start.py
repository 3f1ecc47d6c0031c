"""Compare a trained model with the one that it started from: it must not become worse without a word.

Strokes on one image can make a model forget others. Held-out annotation shows it, where there is some: validation
images, or objects held out. Else both are compared on the strokes themselves, which flatter the trained model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sketchscale.networks.checkpoint import Model
from sketchscale.training.patches import AnnotatedImage
from sketchscale.workflow.train.calibrate import score_annotation

__all__ = ["Comparison", "compare_with_start"]

_WORSE = 0.01


@dataclass(frozen=True, slots=True)
class Comparison:
    """Average precisions at 0.5 of the trained model and of its start.

    Attributes:
        held_out: whether the annotation was not trained on.
    """

    trained: float
    start: float
    held_out: bool

    @property
    def line(self) -> str:
        """Both, for people."""
        where = "held-out annotation" if self.held_out else "the annotation that it learned from"
        return f"AP 0.5 on {where}: {self.trained:.3f}, of the untouched start {self.start:.3f}"

    @property
    def warning(self) -> str:
        """That the start was better; empty where it was not.

        >>> Comparison(0.8, 0.7, True).warning
        ''
        """
        if self.trained >= self.start - _WORSE:
            return ""
        return (
            f"worse than the model that it started from ({self.line}); expected: better; to fix: use that model, draw "
            f"on more images, or more of --rehearse"
        )


def compare_with_start(
    model: Model,
    start: Model | None,
    held_out: Sequence[AnnotatedImage],
    trained: Sequence[AnnotatedImage],
    *,
    until: float | None = None,
) -> Comparison | None:
    """Return how a trained model and its start do on annotation; None without a start that reads such images.

    Args:
        held_out: annotation that was not trained on; where it has fewer than 5 objects, `trained` is used.
        until: the time (`time.monotonic`) at which to end; None for no limit.
    """
    images = [*held_out, *trained]
    if start is None or start.target.rule != "flow" or not images:
        return None
    most = start.config.network.channels
    if (
        not most - start.config.absent_channels <= images[0].channels <= most
        or start.config.network.dim != model.config.network.dim
    ):
        return None
    for annotated in (held_out, trained):
        half = None if until is None else (time.monotonic() + until) / 2
        ours, theirs = score_annotation(model, annotated, until=half), score_annotation(start, annotated, until=until)
        if ours is not None and theirs is not None:
            return Comparison(ours, theirs, annotated is held_out)
    return None
