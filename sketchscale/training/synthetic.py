"""Mix synthetic patches with real ones: scenes come from a stream, and each patch shows a scene of a fixed number.

    place k of the batch of step t     a real patch, or, with a given share, a patch of scene m B + k,
                                       m = (t + k) // REUSE, of batches of B

So every place has scenes of its own, one after another, each for REUSE steps; the patches of a batch come from
different scenes, and places take their next scenes in turn, so that work is spread evenly. Processes that share out a
batch make each scene once between them. Scenes are made where patches are drawn, ahead of the step that needs them.

What a patch shows is decided by its own random stream (seed, t, k), and a scene is a function of its number: a batch is
a function of (images, scenes, configuration, t) alone, in every process and at any time.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import fields
from functools import partial
from typing import Protocol

import numpy as np
import torch

from sketchscale.errors import InputError
from sketchscale.losses import BatchTargets
from sketchscale.training.config import TrainingConfig
from sketchscale.training.patches import AnnotatedImage, PatchSource, TrainingImage
from sketchscale.training.prefetch import Batch, draw_batch
from sketchscale.training.validation import source_for

__all__ = ["REUSE", "SceneStream", "SceneWindow", "drawing_of", "fixed_scenes"]

REUSE = 16
"""Steps for which a place of the batch keeps a scene: fewer cost more work, more repeat the same objects."""

_FIXED, _TRIES = 1 << 40, 8
"""Number of the first scene that no batch is drawn from, and how many are looked at for each that is wanted."""


class SceneStream(Protocol):
    """Annotated scenes without end; every pixel of one is annotated."""

    @property
    def channels(self) -> int:
        """The number of channels of every scene."""
        ...

    def scene(self, number: int) -> TrainingImage:
        """Return the scene of a number from 0 on; every call in any thread gives the same scene."""
        ...


def fixed_scenes(stream: SceneStream, count: int = 8) -> list[TrainingImage]:
    """Return scenes for previews and for setting a threshold where there is no annotation.

    Their numbers are beyond those of all training scenes; a stream that repeats itself may give the same ones. Empty
    ones are left out.

    Raises:
        InputError: many scenes were made, and all are empty.
    """
    scenes = (stream.scene(_FIXED + number) for number in range(_TRIES * count))
    found = list(itertools.islice((scene for scene in scenes if (scene.labels > 0).any()), count))
    if not found:
        raise InputError.of(
            found=f"no object in {_TRIES * count} synthetic scenes",
            expected="some in most of them",
            fix="a --synthetic that was trained with more points, or a larger --size of its pairs",
        )
    return found


class SceneWindow:
    """A thread-safe cache of the scenes that patches are drawn from now, each made once.

    Those of two batches are kept, and some more, as batches are drawn ahead.

    Attributes:
        stream: where they come from; None for a training without synthetic scenes.
    """

    def __init__(self, config: TrainingConfig, stream: SceneStream | None = None) -> None:
        self.stream, self._config, self._most = stream, config, 2 * config.batch + 16
        self._made: OrderedDict[int, Future[PatchSource]] = OrderedDict()
        self._lock = threading.Lock()

    @functools.cached_property
    def fixed(self) -> tuple[TrainingImage, ...]:
        """The scenes of `fixed_scenes`; none without a stream."""
        return () if self.stream is None else tuple(fixed_scenes(self.stream))

    def at(self, step: int, place: int) -> PatchSource:
        """Return the patches of the scene that a place of the batch has at a step."""
        number = (step + place) // REUSE * self._config.batch + place
        with self._lock:
            found = self._made.get(number)
            future = self._made.setdefault(number, Future())
            self._made.move_to_end(number)
            while len(self._made) > self._most:
                self._made.popitem(last=False)
        if found is None:
            self._make(number, future)
        return future.result()

    def _make(self, number: int, future: Future[PatchSource]) -> None:
        """Make a scene in the thread that asked first; others wait for it."""
        assert self.stream is not None
        try:
            future.set_result(source_for([self.stream.scene(number)], self._config, self._config.augment))
        except BaseException as error:
            future.set_exception(error)


def drawing_of(
    images: Sequence[AnnotatedImage], scenes: SceneWindow, config: TrainingConfig
) -> Callable[[int, Sequence[int]], Batch]:
    """Return the function that draws the patches `which` of a step, on the CPU; see the module.

    Raises:
        InputError: nothing is annotated in the images.
    """
    real = source_for(images, config, config.augment) if images else None
    if config.synthetic is not None:
        return partial(_mixed, real, scenes, config.synthetic.share, config.seed)
    assert real is not None
    return partial(draw_batch, real, config.seed)


def _mixed(
    real: PatchSource | None, scenes: SceneWindow, share: float, seed: int, step: int, which: Sequence[int]
) -> Batch:
    parts = []
    for k in which:
        rng = np.random.default_rng((seed, step, k))
        is_real = real is not None and rng.random() >= share
        source = real if real is not None and is_real else scenes.at(step, k)
        parts.append(source.patches([rng]))
    targets = {f.name: torch.cat([getattr(t, f.name) for _, t in parts]) for f in fields(BatchTargets)}
    return torch.cat([image for image, _ in parts]), BatchTargets(**targets)
