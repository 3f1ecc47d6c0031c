"""The loss of a training, settled once by the process that starts it: no configuration or provenance says "auto"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sketchscale.config import TrainOptions
from sketchscale.training.checks import choose_loss
from sketchscale.training.patches import AnnotatedImage
from sketchscale.training.state import kept_setting

__all__ = ["settle_loss"]


def settle_loss(
    options: TrainOptions, images: Sequence[AnnotatedImage], say: Callable[[str], None], *, resume: bool
) -> TrainOptions:
    """The options with a loss in the place of "auto": that of a training that goes on, else what suits the annotation.

    Args:
        say: called with the choice and its reason, where there was one to make.
    """
    if options.loss != "auto":
        return options
    if (kept := kept_setting(options.out, "loss", "name", resume=resume)) is not None:
        return replace(options, loss=kept)
    name, why = choose_loss(images)
    say(why)
    return replace(options, loss=name)
