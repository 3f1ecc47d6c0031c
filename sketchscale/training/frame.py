"""The frame of every training: step, log, show, save, resume, interrupt; in one process or several.

    step t ─ batch(t), drawn ahead ─ learn ─ score ─▶ every so often: log, show, save
                 ▲
    refresh ─────┘  from the next step on

A subclass of `Frame` defines what a batch is, how a step learns from it, and what is carried from step to step. Where
the batch of step t is a function of t alone, it guarantees:
  * interrupted and resumed training ends with the weights of uninterrupted training, to the bit, on the same device and
    number of threads (a time limit is the exception, as clocks differ);
  * an interrupt (Ctrl-C, SIGTERM) is acted on between two steps, after the state was saved;
  * a loss that is not a number ends training with the last good state and the offending batch on disk;
  * processes that train together begin, refresh and end with the same step.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, Generic, NoReturn, TypeVar

import torch

from sketchscale import __version__
from sketchscale.errors import TaskError
from sketchscale.training.config import Step
from sketchscale.training.distributed import World
from sketchscale.training.interrupts import SecondInterrupt, noted_interrupts
from sketchscale.training.prefetch import Prefetcher, choose_workers
from sketchscale.training.state import Log, StopFile, check_same, read_state, write_bad_batch, write_state

__all__ = ["Frame", "NotANumberError"]

T = TypeVar("T")
Weights = dict[str, torch.Tensor]

_ENDS = ("", "steps", "minutes", "no better validation", "stop file", "interrupt")
"""Why training ends; the later of two wins, as an interrupt must not pass for a finished run."""


class NotANumberError(ArithmeticError):
    """The loss, or the size of its gradient, is NaN or infinite; nothing was changed by the step."""


class Frame(ABC, Generic[T]):
    """The state of one training of batches T; see the module.

    Attributes:
        share: the patches of a batch that this process draws.
        step, elapsed_s: steps and time taken so far. stopped: why training ended.
        on_step: called after every step, by the first process.
        interrupted: called before every step; returns whether an interrupt came by another way than a signal.
        minutes: a second limit beside the configuration's steps.
        workers: threads that draw ahead, see prefetch.choose_workers.
        look_every_s: seconds between calls of `refresh`, and between looks for the stop file in object storage.
        refreshes: whether `refresh` is called at all; the same for all processes.
        show_every: steps between calls of `show`, 0 for none.
        free, free_after_failure: settings that may differ when training goes on, as they change no result, or only the
            last digits; and those that may where the loss was not a number.
    """

    on_step: Callable[[Step], None]
    interrupted: Callable[[], bool]
    minutes: float | None = None
    workers: int | None = None
    look_every_s = 3.0
    refreshes = False
    show_every = 0
    free: tuple[str, ...] = ("device", "threads", "save_every_s")
    free_after_failure: tuple[str, ...] = ("rate", "precision")

    config: Any
    """A dataclass with steps, batch, rate and save_every_s."""

    def __init__(self, config: Any, folder: str, device: torch.device, world: World) -> None:
        self.config, self.folder, self.device, self.world = config, folder, device, world
        self.share = world.share(config.batch)
        self.step, self.elapsed_s, self.stopped = 0, 0.0, "steps"
        self.log = Log(folder)

    @abstractmethod
    def draw(self, step: int) -> T:
        """Return this process's share of a step's batch, on the CPU; called in any thread."""

    @abstractmethod
    def learn(self, batch: T) -> dict[str, Any]:
        """Learn from the batch of the next step, and return fields of its Step.

        Raises:
            NotANumberError: the loss is not a number; nothing was changed.
        """

    @abstractmethod
    def named(self, batch: T) -> Mapping[str, torch.Tensor]:
        """Return the arrays of a batch by name."""

    @abstractmethod
    def tensors(self) -> Weights:
        """Return all tensors that are carried from step to step."""

    @abstractmethod
    def take(self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any]) -> None:
        """Restore what `tensors` and `numbers` returned."""

    @abstractmethod
    def show(self) -> None:
        """Show the state; called every `show_every` steps and at the end, in the first process."""

    def numbers(self) -> dict[str, Any]:
        """Return all other values that are carried from step to step."""
        return {}

    def score(self) -> float | None:
        """Return the value of a validation, if there was one; called after every step."""
        return None

    def is_stale(self) -> bool:
        """Return whether the score has not improved for too long."""
        return False

    def refresh(self) -> bool:
        """Take new data if there are any; return whether batches changed, the same in all processes."""
        return False

    def identity(self) -> dict[str, Any]:
        """Return the settings that must not differ in a resumed training."""
        return {k: v for k, v in self._settings().items() if k not in self.free}

    def _settings(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(json.dumps(asdict(self.config)))
        return values

    def provenance(self) -> dict[str, Any]:
        """Return how the model was trained so far, for its provenance."""
        return {
            "sketchscale": __version__,
            "torch": str(torch.__version__),
            "training": self._settings(),
            "processes": self.world.size,
            "steps": self.step,
            "seconds": round(self.elapsed_s, 1),
            "ended_by": self.stopped,
        }

    @property
    def progress(self) -> float:
        """Share of the way, 0 to 1."""
        share: float = self.step / self.config.steps
        if self.minutes is not None:
            share = max(share, self.elapsed_s / (60 * self.minutes))
        return min(1.0, share)

    def run(self, *, resume: bool) -> None:
        """Train until the end; the state is saved in every case but a second interrupt within a step.

        Raises:
            ResumeError: the state was made with another configuration.
            TaskError: the loss is not a number.
            KeyboardInterrupt: an interrupt came, and the state was saved.
        """
        self._prepare(resume)
        now = time.monotonic()
        self._began, self._looked, self._saved = now - self.elapsed_s, now, now
        self._stop_file = StopFile(self.folder, self.look_every_s)
        self._batches = self._draw_ahead()
        try:
            self._loop()
        except SecondInterrupt:
            raise
        except KeyboardInterrupt:
            self._save()
            raise
        finally:
            self._batches.close()
            self.log.close()

    def _prepare(self, resume: bool) -> None:
        """Do everything that can refuse, before the first file is written."""
        found = self.world.first_does(lambda: read_state(self.folder) if resume else None)
        if found is not None:
            tensors, about = found
            free = (*self.free, *(self.free_after_failure if about.get("failed") else ()))
            check_same(about["config"], self.identity(), free, _defaults(self.config))
            self.take(tensors, about)
            self.step, self.elapsed_s = about["step"], about["elapsed_s"]
        self.world.first_does(lambda: self.log.start(self.step))

    def _draw_ahead(self) -> Prefetcher[T]:
        workers = choose_workers(self.workers, self.device)
        return Prefetcher(self.draw, range(self.step, self.config.steps), workers=workers)

    def _loop(self) -> None:
        with noted_interrupts() as interrupted:
            while not self._ended(interrupted() or self.interrupted()):
                self._advance()
                if time.monotonic() - self._saved > self.config.save_every_s:
                    self._save()
                    self._saved = time.monotonic()
        if self.stopped == "interrupt":
            raise KeyboardInterrupt
        self._show(last=True)
        self._save()

    def _ended(self, interrupted: bool) -> bool:
        """Return whether to stop, by a decision of all processes together; else take new data if there are any."""
        due = self.refreshes and time.monotonic() - self._looked >= self.look_every_s
        end, due_now, self.elapsed_s = self.world.largest([self._end(interrupted), due, self.elapsed_s])
        if end:
            self.stopped = _ENDS[int(end)]
            if self.world.first:
                self._stop_file.remove()
        elif due_now:
            self._looked = time.monotonic()
            if self.refresh():
                self._batches.close()
                self._batches = self._draw_ahead()
        return bool(end)

    def _end(self, interrupted: bool) -> int:
        reasons = (
            self.step >= self.config.steps,
            self.progress >= 1 and self.step < self.config.steps,
            self.is_stale(),
            self.world.first and self._stop_file.is_there(),
            interrupted,
        )
        return max((i for i, reason in enumerate(reasons, start=1) if reason), default=0)

    def _advance(self) -> None:
        batch = self._batches.take()
        try:
            learned = self.learn(batch)
        except NotANumberError as error:
            self._fail(error, batch)
        self.step += 1
        score = self.score()
        self.elapsed_s = time.monotonic() - self._began
        if self.world.first:
            self.log.add(
                Step(step=self.step, elapsed_s=self.elapsed_s, progress=self.progress, **{"score": score, **learned})
            )
            self.on_step(self.log.lines[-1])
        self._show()

    def _fail(self, error: NotANumberError, batch: T) -> NoReturn:
        """Write the bad batch and the state, which is that before the step, and raise the error."""
        path = write_bad_batch(self.folder, self.named(batch), step=self.step + 1) if self.world.first else None
        self._save(failed=True)
        raise TaskError(
            f"step {self.step + 1}: {error}; expected: a number; the batch is in {path}, the weights before it are "
            f"kept; to fix: go on with --resume and a smaller --rate (now {self.config.rate:g}), or look for invalid "
            f"pixels in the batch"
        ) from error

    def _show(self, last: bool = False) -> None:
        every = self.show_every
        if self.world.first and every and self.step and (self.step % every == 0) != last:
            self.show()

    def _save(self, *, failed: bool = False) -> None:
        """Write the log, then the state that relies on it."""
        if not self.world.first:
            return
        about = {"step": self.step, "elapsed_s": self.elapsed_s, "failed": failed, "config": self.identity()}
        self.log.sync()
        write_state(self.folder, self.tensors(), {**about, **self.numbers()})


def _defaults(config: Any) -> dict[str, Any]:
    """Return the defaults of a configuration and of its records, as a state would hold them."""
    known: dict[str, Any] = {f.name: f.default for f in fields(config) if f.default is not MISSING}
    for name, value in ((f.name, getattr(config, f.name)) for f in fields(config)):
        if is_dataclass(value):
            known[name] = {f.name: f.default for f in fields(value) if f.default is not MISSING}
    found: dict[str, Any] = json.loads(json.dumps(known))
    return found
