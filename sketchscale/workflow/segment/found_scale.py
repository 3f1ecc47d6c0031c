"""Find the scale of an image: that at which its objects have the diameter that the model knows.

    --rescale, --diameter ────────────────────────────────────▶ what the user says
    pixel size known of the image and of the model ───────────▶ their ratio
    else a first pass over a few windows at five scales:
        objects found at x 1/8, 1/4, 1/2, 1, 2 ─▶ the best scale, see `_cost` ─▶ corrected twice by the size of
        what is found there ─▶ rounded to 2^(n/8)

A network that was trained at one scale sees objects of half and of double the size, too: there it finds the same
objects, twice as large at twice the scale. Far from it, objects fall apart into texture or melt together: their flow is
short, and their size follows the network and not the image. Only models that were trained with a scale
(`ModelConfig.finds_scale`) look for one. What was found is recorded, and resumed runs keep it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.config import SegmentOptions
from sketchscale.geometry import Box
from sketchscale.inference.backend import Recipe, TorchBackend
from sketchscale.inference.plan import predict_array
from sketchscale.inference.resample import resampled_box
from sketchscale.inference.views import views_of
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate
from sketchscale.io.runs.ledger import stored_fingerprint
from sketchscale.networks.checkpoint import Model
from sketchscale.training.scale import rounded_scale, typical_diameter

__all__ = ["ReadBox", "find_scale", "kept_scale", "with_scale"]

ReadBox = Callable[[Box], npt.NDArray[Any]]
"""Pixels (c, y, x) of a box of the image."""

_SIDE = 320
"""Side of a window, px of the network."""

_WINDOWS, _LOOKS = 3, 3
"""Windows of the first pass, chosen among _LOOKS x _LOOKS places by their contrast."""

_SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)
"""Each is twice the one before."""
_LEAST_OBJECTS, _WORSE = 3, 0.1
_SHORT = 0.7
"""Flow below this length is short; a trained network's is about 1 inside objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the windows showed at a scale: objects, their typical diameter in px of the network, share of short flow."""

    scale: float
    objects: int
    diameter: float
    short: float


def with_scale(
    options: SegmentOptions,
    model: Model,
    shape: Sequence[int],
    read: ReadBox,
    *,
    pixel_um: float | None = None,
    kept: Callable[[], float | None] = lambda: None,
) -> SegmentOptions:
    """Return the options with `rescale` set, for a model that finds the scale of an image; else as they are.

    Args:
        shape: of the plane, (y, x); a volume keeps scale 1.
        read: reads windows of it.
        pixel_um: size of the image's pixels, where it is known.
        kept: returns the scale of the run to resume, or None.
    """
    config, given = model.config, options.rescale is not None or options.diameter is not None
    if given or not config.finds_scale or len(shape) != 2 or config.diameter <= 0:
        return options
    if (known := kept()) is not None:
        return replace(options, rescale=known)
    if pixel_um and config.pixel_um:
        return replace(options, rescale=min(20.0, max(0.05, pixel_um / config.pixel_um)))
    return replace(options, rescale=find_scale(model, shape, read))


def kept_scale(store: str, run: str, *, resume: bool) -> float | None:
    """Return the scale in the record of a run over a plane; None where none is resumed."""
    fingerprint: Any = stored_fingerprint(store, run) if resume else None
    try:
        return float(json.loads(fingerprint["grid"])[1])
    except (KeyError, TypeError, ValueError, IndexError):
        return None  # no run, a volume's, or one of another version, which is refused when it is opened


def find_scale(model: Model, shape: Sequence[int], read: ReadBox) -> float:
    """Return network px per image px at which the objects of an image have the model's diameter; 1 if none is found.

    Args:
        shape: of the image, (y, x).
        read: reads windows of it.
    """
    centres = _centres(shape, read)
    wanted = model.config.diameter
    seen = [_seen(model, shape, read, centres, scale) for scale in _SCALES]
    costs = [_cost(one, seen[max(0, i - 1) : i + 2], wanted) for i, one in enumerate(seen)]
    best = seen[costs.index(min(costs))]
    for _ in range(2):
        if not best.objects or abs(math.log2(best.diameter / wanted)) < 1 / 16:
            break
        scale = min(4.0, max(0.05, best.scale * wanted / best.diameter))
        again = _seen(model, shape, read, centres, scale)
        if again.objects < max(_LEAST_OBJECTS, best.objects / 2) or again.short > best.short + _WORSE:
            break
        best = again
    return rounded_scale(best.scale) if best.objects else 1.0


def _cost(seen: _Seen, near: Sequence[_Seen], wanted: float) -> float:
    """Return how badly a scale fits.

    Three things count alike: flow that is short in all of the objects, a size that is wrong by a factor of 4, and a
    size that does not follow the scale towards either neighbour.

    Args:
        near: what was seen at half, at the same and at the double scale, as far as it was.
    """
    if not seen.objects:
        return math.inf
    slopes = [
        math.log(other.diameter / seen.diameter) / math.log(other.scale / seen.scale)
        for other in near
        if other.objects and other.scale != seen.scale
    ]
    follows = min(1.0, max([0.0, *slopes]))
    few = 1.0 if seen.objects < _LEAST_OBJECTS else 0.0
    return seen.short + 0.5 * abs(math.log2(seen.diameter / wanted)) + (1 - follows) + few


def _centres(shape: Sequence[int], read: ReadBox) -> list[tuple[int, ...]]:
    """Return the middles of the windows with most contrast, among evenly spread ones."""
    places = [[round((2 * i + 1) * n / (2 * _LOOKS)) for i in range(_LOOKS)] if n > _SIDE else [n // 2] for n in shape]
    centres = [(y, x) for y in places[0] for x in places[1]]
    contrast = [float(np.std(read(_window(shape, centre, 1.0)))) for centre in centres]
    order = sorted(range(len(centres)), key=lambda i: (-contrast[i], i))
    return [centres[i] for i in order[:_WINDOWS]]


def _window(shape: Sequence[int], centre: Sequence[int], scale: float) -> Box:
    """Return the box of the image that fills a window of the network at a scale, moved inside the image."""
    sides = [min(n, max(1, round(_SIDE / scale))) for n in shape]
    starts = [min(max(0, c - side // 2), n - side) for c, side, n in zip(centre, sides, shape, strict=True)]
    return Box(tuple(starts), tuple(a + side for a, side in zip(starts, sides, strict=True)))


def _seen(model: Model, shape: Sequence[int], read: ReadBox, centres: Sequence[tuple[int, ...]], scale: float) -> _Seen:
    boxes = {_window(shape, centre, scale) for centre in centres}
    pixels = [read(box).astype(np.float32) for box in sorted(boxes)]
    joined = [np.concatenate([p[c].ravel() for p in pixels]) for c in range(len(pixels[0]))]
    ranges = [np.percentile(values, (model.config.low, model.config.high)) for values in joined]
    areas, short = [np.zeros(0, np.int64)], []
    for window in pixels:
        fields, labels = _outlined(model, window, [(float(a), float(max(b, a + 1e-6))) for a, b in ranges], scale)
        areas.append(np.bincount(labels.ravel())[1:])
        short.append(np.hypot(fields[0], fields[1])[labels > 0] < _SHORT)
    found, lengths = np.concatenate(areas), np.concatenate(short)
    if not found.size:
        return _Seen(scale=scale, objects=0, diameter=0.0, short=1.0)
    return _Seen(scale=scale, objects=found.size, diameter=typical_diameter(found), short=float(np.mean(lengths)))


def _outlined(
    model: Model, pixels: npt.NDArray[np.float32], ranges: Sequence[tuple[float, float]], scale: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32]]:
    """Return fields and labels of a window on the network's grid."""
    scaled = resampled_box(pixels, scale)
    backend = TorchBackend(model=model, recipe=Recipe())
    fields = predict_array(scaled, backend, views_of(scaled.shape[1:], model, short=True), ranges).astype(np.float32)
    config = model.config
    rule = IntegrationConfig(threshold=config.threshold, min_size=config.min_size, prominence=config.prominence)
    return fields, integrate(fields, rule)
