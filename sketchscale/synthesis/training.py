"""The training of a synthesis, in the frame of training.frame.

The batch of step t is a function of (images, points, configuration, t): crops and layouts, the arrays of a SceneBatch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

from sketchscale.geometry import Box
from sketchscale.networks.precision import torch_threads
from sketchscale.synthesis.gan import Gan, GanConfig
from sketchscale.synthesis.losses import maps_of
from sketchscale.synthesis.model import Synthesis, SynthesisConfig
from sketchscale.synthesis.scenes import PointedSource, SceneBatch, Scenes
from sketchscale.training.config import Step, find_device
from sketchscale.training.distributed import join_world
from sketchscale.training.frame import Frame

__all__ = ["Sample", "SynthesisHooks", "make_scenes", "train_synthesis"]

_SAMPLES, _CORNER = 4, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the running means of both networks make of some scenes, all of them on the CPU.

    Attributes:
        scenes: drawn layouts and real crops.
        painted: images of the layouts. read: maps read back in them.
        found: maps read in the real crops. repainted: images of these maps.
    """

    step: int
    scenes: SceneBatch
    painted: torch.Tensor
    read: torch.Tensor
    found: torch.Tensor
    repainted: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisHooks:
    """What a caller is told and asked, by the first process alone.

    Attributes:
        on_step: after every step.
        on_sample: every `sheet_every` steps, and at the end.
        interrupted: asked before every step; an interrupt that came by another way than a signal.
    """

    on_step: Callable[[Step], None] = lambda step: None
    on_sample: Callable[[Sample], None] = lambda sample: None
    interrupted: Callable[[], bool] = lambda: False


def train_synthesis(
    images: Sequence[PointedSource],
    config: GanConfig,
    *,
    run_folder: str,
    scale: tuple[float, float] = (1.0, 99.8),
    hooks: SynthesisHooks | None = None,
    resume: bool = False,
) -> Synthesis:
    """Train on images with centre points.

    Args:
        images: of the generator's channels, each at least as large as a crop.
        run_folder: path or address for state and log; only the first process uses it. A file named `stop` in it ends
            training as if it were done.
        scale: percentiles of each image that became -1 and 1; kept with the synthesis.
        resume: go on from the state in `run_folder`; without one, start.

    Returns:
        The running means of both networks, not saved yet.

    Raises:
        InputError: see Scenes; fewer than 10 points in all.
        ResumeError: the state was made with another configuration.
        TaskError: the loss is not a number.
        SetupError: the device is not there.
        KeyboardInterrupt: an interrupt came, and the state was saved.
    """
    scenes, device = make_scenes(images, config), find_device(config.device)
    with join_world(device) as world, torch_threads(config.threads):
        run = _Run(scenes, config, run_folder, Gan(config, device, world), hooks or SynthesisHooks())
        run.run(resume=resume)
        return run.finish(scale)


def make_scenes(images: Sequence[PointedSource], config: GanConfig) -> Scenes:
    """What a training draws its batches from.

    Raises:
        InputError: images or points do not fit; see Scenes.
    """
    return Scenes(
        images,
        crop=config.crop,
        prior=config.prior,
        noise=config.generator.noise,
        given=config.given,
        seed=config.seed,
    )


class _Run(Frame[SceneBatch]):
    """One `train_synthesis` call."""

    config: GanConfig
    free = (*Frame.free, "sheet_every")

    def __init__(self, scenes: Scenes, config: GanConfig, folder: str, gan: Gan, hooks: SynthesisHooks) -> None:
        super().__init__(config, folder, gan.device, gan.world)
        self.scenes, self.gan, self.hooks, self.taught = scenes, gan, hooks, _sha256(scenes.images)
        self.on_step, self.interrupted, self.show_every = hooks.on_step, hooks.interrupted, config.sheet_every

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"images": self.taught}

    def draw(self, step: int) -> SceneBatch:
        return self.scenes.batch(step, self.share)

    def learn(self, batch: SceneBatch) -> dict[str, Any]:
        terms = self.gan.learn(batch.to(self.device), self.step)
        return {"loss": self.config.total(terms), "rate": self.config.rate_at(self.step), "terms": terms}

    def named(self, batch: SceneBatch) -> dict[str, torch.Tensor]:
        return {f.name: getattr(batch, f.name) for f in fields(batch)}

    def tensors(self) -> dict[str, torch.Tensor]:
        return self.gan.tensors()

    def take(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        self.gan.take(tensors)

    def show(self) -> None:
        scenes = self.scenes.batch(self.config.steps, range(_SAMPLES))
        on_device = scenes.to(self.device)
        g, f = self.gan.still()
        with torch.no_grad():
            painted = g(on_device.maps, on_device.noise)
            read, found = maps_of(f(painted)), maps_of(f(on_device.image))
            repainted = g(found, on_device.noise)
        made = (value.float().cpu() for value in (painted, read, found, repainted))
        painted, read, found, repainted = made
        self.hooks.on_sample(
            Sample(step=self.step, scenes=scenes, painted=painted, read=read, found=found, repainted=repainted)
        )

    def finish(self, scale: tuple[float, float]) -> Synthesis:
        c, (g, f) = self.config, self.gan.still()
        config = SynthesisConfig(
            generator=c.generator, mask_widths=c.mask_widths, prior=c.prior, low=scale[0], high=scale[1], crop=c.crop
        )
        provenance = {
            **self.provenance(),
            "images": len(self.scenes.images),
            "objects": sum(len(image.points) for image in self.scenes.images),
            "images_sha256": self.taught,
            "curve": self.log.curve()["loss"],
        }
        return Synthesis(
            config=config, generator=g.cpu(), masker=f.cpu(), points=self.scenes.model, provenance=provenance
        )


def _sha256(images: Sequence[PointedSource]) -> str:
    """Of the images' sizes, points, and pixels in a corner of the chosen channels, in order."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(json.dumps([image.shape, image.channels]).encode())
        digest.update(image.points.tobytes())
        digest.update(np.ascontiguousarray(image.window(Box((0, 0), (_CORNER, _CORNER)).clip(image.shape))).tobytes())
    return digest.hexdigest()
