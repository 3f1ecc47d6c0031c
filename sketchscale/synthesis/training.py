"""The training of a synthesis: step, log, show, save, resume, as training.loop does it for one network.

    step t ─ crops and layouts(seed, t), drawn ahead ─ Gan.learn ─▶ every so often: log, sample sheet, save

What it guarantees:
  * the batch of step t is a function of (images, points, configuration, t), and the saved state holds all that is
    carried from step to step: interrupted and resumed training ends with the weights of uninterrupted training, to the
    bit, on the same device and number of threads;
  * an interrupt (Ctrl-C, SIGTERM) is acted on between two steps, after the state was saved;
  * a loss that is not a number ends training with the last good state and the offending batch on disk.

The run folder holds what training.state says; the batch's arrays are those of SceneBatch.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

import numpy as np
import torch

from sketchscale import __version__
from sketchscale.errors import TaskError
from sketchscale.geometry import Box
from sketchscale.io.blobs import put_blob
from sketchscale.io.store import join_address
from sketchscale.synthesis.gan import Gan, GanConfig, NotFiniteError
from sketchscale.synthesis.losses import maps_of
from sketchscale.synthesis.model import Synthesis, SynthesisConfig
from sketchscale.synthesis.scenes import PointedSource, SceneBatch, Scenes
from sketchscale.training.config import Step, find_device
from sketchscale.training.distributed import World, join_world
from sketchscale.training.interrupts import SecondInterrupt, noted_interrupts
from sketchscale.training.loop import torch_threads
from sketchscale.training.prefetch import Prefetcher, choose_workers
from sketchscale.training.state import BAD_BATCH, Log, StopFile, check_same, read_state, write_state

__all__ = ["Sample", "SynthesisHooks", "make_scenes", "train_synthesis"]

_SAMPLES, _CORNER = 4, 64
_STOP_EVERY_S = 3.0
_FREE = ("device", "threads", "sheet_every", "save_every_s")
"""What may differ when training goes on: it changes no result, or only the last digits."""
_FREE_AFTER_FAILURE = ("rate", "precision")
_ENDS = ("", "steps", "stop file", "interrupt")
"""Why training ends; the later of two wins."""


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
        run = _Run(scenes, config, run_folder, Gan(config, device, world))
        run.hooks = hooks or SynthesisHooks()
        run.prepare(resume)
        run.optimise()
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


class _Run:
    """The state of one `train_synthesis` call."""

    def __init__(self, scenes: Scenes, config: GanConfig, folder: str, gan: Gan) -> None:
        self.scenes, self.config, self.folder, self.gan = scenes, config, folder, gan
        self.world: World = gan.world
        self.share = self.world.share(config.batch)
        self.step, self.elapsed_s, self.stopped = 0, 0.0, "steps"
        self.log, self.stop_file = Log(folder), StopFile(folder, _STOP_EVERY_S)
        self.hooks, self.taught = SynthesisHooks(), _sha256(scenes.images)

    def prepare(self, resume: bool) -> None:
        """Everything that can refuse, before the first file is written."""
        found = self.world.first_does(lambda: read_state(self.folder) if resume else None)
        if found is not None:
            tensors, about = found
            free = (*_FREE, *(_FREE_AFTER_FAILURE if about.get("failed") else ()))
            check_same(about["config"], self._identity(), free)
            self.gan.take(tensors)
            self.step, self.elapsed_s = about["step"], about["elapsed_s"]
        self.world.first_does(lambda: self.log.start(self.step))

    def _identity(self) -> dict[str, Any]:
        """What resumed training must have in common."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self.config)))
        return {k: v for k, v in values.items() if k not in _FREE} | {"images": self.taught}

    def optimise(self) -> None:
        """Step until it ends; the state is saved however it does, but by a second interrupt within a step."""
        self.began = time.monotonic() - self.elapsed_s
        self.saved = time.monotonic()
        workers = choose_workers(None, self.gan.device)
        try:
            with Prefetcher(self._draw, range(self.step, self.config.steps), workers=workers) as self.batches:
                self._loop()
        except SecondInterrupt:
            raise
        except KeyboardInterrupt:
            self.save()
            raise
        finally:
            self.log.close()

    def _draw(self, step: int) -> SceneBatch:
        return self.scenes.batch(step, self.share)

    def _loop(self) -> None:
        with noted_interrupts() as interrupted:
            while not self._ended(interrupted() or self.hooks.interrupted()):
                self._advance()
                self._save_now_and_then()
        if self.stopped == "interrupt":
            raise KeyboardInterrupt
        self._show(last=True)
        self.save()

    def _ended(self, interrupted: bool) -> bool:
        """Decided by all processes together."""
        reasons = (self.step >= self.config.steps, self.world.first and self.stop_file.is_there(), interrupted)
        own = max((i for i, reason in enumerate(reasons, start=1) if reason), default=0)
        end = int(self.world.largest([own])[0])
        if end:
            self.stopped = _ENDS[end]
            if self.world.first:
                self.stop_file.remove()
        return bool(end)

    def _advance(self) -> None:
        batch = self.batches.take().to(self.gan.device)
        try:
            terms = self.gan.learn(batch, self.step)
        except NotFiniteError as error:
            self._fail(error, batch)
        self.elapsed_s = time.monotonic() - self.began
        rate = self.config.rate_at(self.step)
        self.step += 1
        if self.world.first:
            line = Step(
                step=self.step,
                loss=self.config.total(terms),
                rate=rate,
                elapsed_s=self.elapsed_s,
                progress=self.step / self.config.steps,
                terms=terms,
            )
            self.log.add(line)
            self.hooks.on_step(line)
        self._show()

    def _fail(self, error: NotFiniteError, batch: SceneBatch) -> NoReturn:
        """No weight was changed by the step, and so it is saved."""
        if self.world.first:
            _write_batch(self.folder, batch, self.step + 1)
        self.save(failed=True)
        raise TaskError(
            f"step {self.step + 1}: {error}; expected: numbers; the batch is in {join_address(self.folder, BAD_BATCH)},"
            f" the weights before it are kept; to fix: go on with --resume and a smaller --rate (now "
            f"{self.config.rate:g})"
        ) from error

    def _show(self, last: bool = False) -> None:
        every = self.config.sheet_every
        if self.world.first and every and self.step and (self.step % every == 0) != last:
            self.hooks.on_sample(self._sample())

    def _sample(self) -> Sample:
        scenes = self.scenes.batch(self.config.steps, range(_SAMPLES))
        on_device = scenes.to(self.gan.device)
        g, f = self.gan.still()
        with torch.no_grad():
            painted = g(on_device.maps, on_device.noise)
            read, found = maps_of(f(painted)), maps_of(f(on_device.image))
            repainted = g(found, on_device.noise)
        made = (value.float().cpu() for value in (painted, read, found, repainted))
        painted, read, found, repainted = made
        return Sample(step=self.step, scenes=scenes, painted=painted, read=read, found=found, repainted=repainted)

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self.saved > self.config.save_every_s:
            self.save()
            self.saved = time.monotonic()

    def save(self, *, failed: bool = False) -> None:
        """The log, then the state that counts on it."""
        if not self.world.first:
            return
        about = {"step": self.step, "elapsed_s": self.elapsed_s, "failed": failed, "config": self._identity()}
        self.log.sync()
        write_state(self.folder, self.gan.tensors(), about)

    def finish(self, scale: tuple[float, float]) -> Synthesis:
        c, (g, f) = self.config, self.gan.still()
        config = SynthesisConfig(
            generator=c.generator, mask_widths=c.mask_widths, prior=c.prior, low=scale[0], high=scale[1], crop=c.crop
        )
        return Synthesis(
            config=config, generator=g.cpu(), masker=f.cpu(), points=self.scenes.model, provenance=self._provenance()
        )

    def _provenance(self) -> dict[str, Any]:
        return {
            "sketchscale": __version__,
            "torch": str(torch.__version__),
            "training": json.loads(json.dumps(asdict(self.config))),
            "images": len(self.scenes.images),
            "objects": sum(len(image.points) for image in self.scenes.images),
            "images_sha256": self.taught,
            "processes": self.world.size,
            "steps": self.step,
            "seconds": round(self.elapsed_s, 1),
            "ended_by": self.stopped,
            "curve": self.log.curve()["loss"],
        }


def _sha256(images: Sequence[PointedSource]) -> str:
    """Of the images' sizes, points, and pixels in a corner of the chosen channels, in order."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(json.dumps([image.shape, image.channels]).encode())
        digest.update(image.points.tobytes())
        digest.update(np.ascontiguousarray(image.window(Box((0, 0), (_CORNER, _CORNER)).clip(image.shape))).tobytes())
    return digest.hexdigest()


def _write_batch(folder: str, batch: SceneBatch, step: int) -> None:
    arrays = {name: getattr(batch, name).cpu().numpy() for name in batch.__dataclass_fields__}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, step=np.asarray(step), **arrays)
    put_blob(folder, BAD_BATCH, buffer.getvalue())
