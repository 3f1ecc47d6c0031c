"""A trained model beside the one that it started from: it must not forget, nor become worse without a word.

Strokes on one image make a model better there, and let it forget others. The mean of the weights before and after keeps
both (Wortsman et al. 2022, Robust fine-tuning of zero-shot models): on images unlike the drawn one AP 0.5 stays where
it was, where the trained weights alone lose .04 (benchmarks/results/start.txt). So the mean is the model, unless the
trained weights are clearly better on the annotation, as on a kind of image that the start does not know.

Afterwards both are compared on held-out annotation, where there is some: validation images, or objects held out. Else
on the strokes themselves, which flatter the trained model.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from sketchscale.networks.adapt import adapt_weights
from sketchscale.networks.checkpoint import Model
from sketchscale.training.patches import AnnotatedImage
from sketchscale.workflow.train.calibrate import Joining, score_annotation

__all__ = ["Comparison", "compare_with_start", "kept_halfway"]

_WORSE, _CLEARLY = 0.01, 0.05


def kept_halfway(
    model: Model,
    start: Model | None,
    held_out: Sequence[AnnotatedImage],
    trained: Sequence[AnnotatedImage],
    *,
    until: float | None = None,
) -> Model:
    """Return the mean of a trained model and its start, with its rule, unless the trained one is clearly better.

    Args:
        model: calibrated. start: None for random weights, which nothing is kept of.
        held_out: annotation that was not trained on: any difference in AP 0.5 counts. With fewer than 5 objects
            `trained` is used, and only a difference of .05 counts, as it flatters the trained weights.
        until: the time (`time.monotonic`) at which to end; None for no limit.
    """
    if start is None or start.target is not model.target or start.config.logit or start.config.flow_scale != 1:
        return model
    before, after = adapt_weights(start, model.config.network), model.network.state_dict()
    network = copy.deepcopy(model.network)
    network.load_state_dict({k: (v + before[k]) / 2 if v.is_floating_point() else v for k, v in after.items()})
    rule = {name: getattr(start.config, name) for name in ("threshold", *(f.name for f in fields(Joining)))}
    smallest = min(start.config.min_size, model.config.min_size)
    mean = replace(model, network=network, config=replace(model.config, **rule, min_size=smallest))
    for images, least in ((held_out, 0.0), (trained, _CLEARLY)):
        half = None if until is None else (time.monotonic() + until) / 2
        alone, kept = score_annotation(model, images, until=half), score_annotation(mean, images, until=until)
        if alone is not None and kept is not None:
            record = {"alone": round(alone, 4), "mean": round(kept, 4)}
            chosen = model if alone > kept + least else mean
            return replace(chosen, provenance={**model.provenance, "mean_with_start": record})
    return model


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
