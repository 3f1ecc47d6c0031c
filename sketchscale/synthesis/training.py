"""Train a synthesis in the loop of training.frame.

The batch of step t, a SceneBatch of crops and layouts, is a function of (images, points, configuration, t).
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
    """Outputs of the running means of both networks for some scenes, on the CPU.

    Attributes:
        scenes: drawn layouts and real crops.
        painted: images of the layouts. read: maps predicted from these images.
        found: maps predicted from the real crops. repainted: images of these maps.
    """

    step: int
    scenes: SceneBatch
    painted: torch.Tensor
    read: torch.Tensor
    found: torch.Tensor
    repainted: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisHooks:
    """Callbacks, called by the first process only.

    Attributes:
        on_step: called after every step.
        on_sample: called every `sheet_every` steps, and at the end.
        interrupted: called before every step; returns whether the caller wants to stop, in addition to signals.
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
        run_folder: path or address for state and log, used by the first process. A file named `stop` in it finishes
            training early.
        scale: percentiles of each image that became -1 and 1; stored with the synthesis.
        resume: continue from the state in `run_folder`, if there is one.

    Returns:
        The running means of both networks, not saved yet.

    Raises:
        InputError: see Scenes; there are fewer than 10 points in all.
        ResumeError: the state was made with another configuration.
        TaskError: the loss is not finite.
        SetupError: the device is not available.
        KeyboardInterrupt: training was interrupted; the state was saved.
    """
    scenes, device = make_scenes(images, config), find_device(config.device)
    with join_world(device) as world, torch_threads(config.threads):
        run = _Run(scenes, config, run_folder, Gan(config, device, world), hooks or SynthesisHooks())
        run.run(resume=resume)
        return run.finish(scale)


def make_scenes(images: Sequence[PointedSource], config: GanConfig) -> Scenes:
    """Return the source of batches; raise InputError if images or points do not fit, see Scenes."""
    c = config
    return Scenes(images, crop=c.crop, prior=c.prior, generator=c.generator, given=c.given, seed=c.seed)


class _Run(Frame[SceneBatch]):
    """One `train_synthesis` call."""

    config: GanConfig
    free = (*Frame.free, "sheet_every")

    def __init__(self, scenes: Scenes, config: GanConfig, folder: str, gan: Gan, hooks: SynthesisHooks) -> None:
        super().__init__(config, folder, gan.device, gan.world)
        self.scenes, self.gan, self.hooks = scenes, gan, hooks
        digest = hashlib.sha256()  # of sizes, points, and pixels in a corner of the chosen channels, in order
        for image in scenes.images:
            digest.update(json.dumps([image.shape, image.channels]).encode())
            digest.update(image.points.tobytes())
            corner = Box((0, 0), (_CORNER, _CORNER)).clip(image.shape)
            digest.update(np.ascontiguousarray(image.window(corner)).tobytes())
        self.images_sha256 = digest.hexdigest()
        self.on_step, self.interrupted, self.show_every = hooks.on_step, hooks.interrupted, config.sheet_every

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"images": self.images_sha256}

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
        g, f = self.gan.ema()
        with torch.no_grad():
            painted = g(on_device.maps, on_device.noise)
            read, found = maps_of(f(painted)), maps_of(f(on_device.image))
            repainted = g(found, on_device.noise)
        painted, read, found, repainted = (value.float().cpu() for value in (painted, read, found, repainted))
        self.hooks.on_sample(
            Sample(step=self.step, scenes=scenes, painted=painted, read=read, found=found, repainted=repainted)
        )

    def finish(self, scale: tuple[float, float]) -> Synthesis:
        c, (g, f) = self.config, self.gan.ema()
        config = SynthesisConfig(
            generator=c.generator, mask_widths=c.mask_widths, prior=c.prior, low=scale[0], high=scale[1], crop=c.crop
        )
        provenance = {
            **self.provenance(),
            "images": len(self.scenes.images),
            "objects": sum(len(image.points) for image in self.scenes.images),
            "images_sha256": self.images_sha256,
            "curve": self.log.curve()["loss"],
        }
        return Synthesis(
            config=config, generator=g.cpu(), masker=f.cpu(), points=self.scenes.model, provenance=provenance
        )
