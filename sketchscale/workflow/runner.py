"""Runs plans for one use case: engine, ledger, progress and memory budget, opened once and passed on.

    with Runner(execution, on_event) as runner:
        results = runner.run(plan, ledger)

`dry` collects what would be run instead: the lines of `--dry-run` and of `sketchscale plan`.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np

from sketchscale.config import Execution
from sketchscale.engine import open_engine
from sketchscale.engine.base import Engine, Event, Json, Ledger, Plan, RetryPolicy, check_budget, run_plan
from sketchscale.errors import InputError, OutputError, OutputExistsError, ResumeError
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, open_array
from sketchscale.io.ome_zarr.image import Image
from sketchscale.io.ome_zarr.pyramid import plan_level
from sketchscale.io.runs.ledger import StoreLedger, open_ledger
from sketchscale.io.stores.blobs import list_blobs
from sketchscale.io.stores.output_files import has_file
from sketchscale.io.stores.settings import chosen_settings, using

__all__ = [
    "Runner",
    "StageLine",
    "ensure_array",
    "forget_run_if_unfit",
    "keep_engines",
    "open_run",
    "quiet",
    "refuse_existing",
    "refuse_foreign_labels",
]


def quiet(event: Event) -> None:
    """Ignore progress events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """One stage of a dry run, or of a real one with its time."""

    stage: str
    tasks: int
    task_mb: float
    peak_mb: float
    seconds: float = 0.0


_KEPT: ContextVar[dict[str, Engine] | None] = ContextVar("engines kept between runners", default=None)


@contextmanager
def keep_engines() -> Iterator[None]:
    """Share engines, by options, between the runners inside: one cluster and one loaded network for many images.

    >>> with keep_engines():
    ...     with Runner(Execution()) as one, Runner(Execution()) as two:
    ...         one.engine is two.engine
    True
    """
    kept: dict[str, Engine] = {}
    token = _KEPT.set(kept)
    try:
        yield
    finally:
        _KEPT.reset(token)
        for engine in kept.values():
            engine.close()


class Runner:
    """Runs plans with one engine, and records how long each stage took."""

    def __init__(self, execution: Execution, on_event: Callable[[Event], None] = quiet) -> None:
        self.execution, self.on_event = execution, on_event
        with ExitStack() as stack:
            self._around = partial(using, chosen_settings(execution.wait_s, execution.endpoint))
            stack.enter_context(self._around())
            self._kept = _KEPT.get()
            options = {
                "address": execution.address,
                "gpus_per_worker": execution.gpus_per_worker,
                "wait_s": execution.wait_s,
            }
            key = repr((execution.engine, execution.workers, sorted(options.items())))
            engine = (self._kept or {}).get(key) or open_engine(execution.engine, execution.workers, **options)
            if self._kept is not None:
                self._kept[key] = engine
            self.engine: Engine = engine
            self._settings = stack.pop_all()
        self.retry = RetryPolicy(attempts=execution.attempts, deadline_s=execution.deadline_s)
        self.stages: list[StageLine] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self._kept is None:  # a failed plan may have left tasks behind
            self.engine.close()
            for key in [k for k, engine in (self._kept or {}).items() if engine is self.engine]:
                del (self._kept or {})[key]
        self._settings.close()

    def run(self, plan: Plan[Any], ledger: Ledger | None = None) -> list[Json]:
        """Run a plan; return results in task order."""
        started = time.perf_counter()
        results = run_plan(
            plan,
            self.engine,
            ledger=ledger,
            on_event=self.on_event,
            retry=self.retry,
            budget_bytes=self.execution.budget_bytes,
            around=self._around,
        )
        line = self._line(plan, time.perf_counter() - started)
        self.stages.append(line)
        logging.getLogger(__name__).debug("%s: %d tasks, %.1f s", line.stage, line.tasks, line.seconds)
        return results

    def run_pyramid(self, levels: Sequence[ArrayRef], ledger: Ledger | None = None) -> None:
        """Make the coarser levels of labels from level 0."""
        for finer, coarser in itertools.pairwise(levels):
            self.run(plan_level(finer, coarser, "nearest"), ledger)

    def timed(self, stage: str, seconds: float) -> None:
        """Record work that is no plan (merging on the driver)."""
        self.stages.append(StageLine(stage=stage, tasks=1, task_mb=0, peak_mb=0, seconds=seconds))

    def dry(self, plan: Plan[Any]) -> None:
        """Record a plan without running it; one over the budget is refused all the same."""
        check_budget(plan, self.engine.workers, self.execution.budget_bytes)
        self.stages.append(self._line(plan, 0.0))

    def _line(self, plan: Plan[Any], seconds: float) -> StageLine:
        return StageLine(
            stage=plan.stage,
            tasks=len(plan.tasks),
            task_mb=round(plan.task_bytes / 1e6, 1),
            peak_mb=round(plan.peak_bytes(self.engine.workers) / 1e6, 1),
            seconds=seconds,
        )


def ensure_array(ref: ArrayRef, **wanted: Any) -> ArrayRef:
    """Return an array of exactly this kind: that of an interrupted run, or a new one. Arguments of `create_array`."""
    try:
        found = open_array(ref)
    except InputError:
        create_array(ref, **wanted)
        return ref
    chunks = tuple(min(c, n) for c, n in zip(wanted["chunks"], wanted["shape"], strict=True))
    if (found.shape, found.chunks, found.dtype) != (tuple(wanted["shape"]), chunks, np.dtype(wanted["dtype"])):
        create_array(ref, **wanted)
    return ref


def open_run(
    image: Image, run: str, fingerprint: Mapping[str, str], execution: Execution, *, outputs: Sequence[str] = ()
) -> StoreLedger:
    """Open the ledger of a run on an image, in `.sketchscale/<run>` inside the image's group.

    Args:
        outputs: places that only this run writes to; temporary files of a killed run are removed there.

    Raises:
        OutputExistsError: the run is there already and neither resume nor overwrite was asked for.
        ResumeError: it was made from other inputs or options, or keeps its arrays in another scratch.
    """
    ledger = open_ledger(
        image.address,
        run,
        fingerprint,
        resume=execution.resume,
        overwrite=execution.overwrite,
        outputs=outputs,
        scratch=execution.scratch or "",
    )
    with ExitStack() as stack:
        stack.enter_context(ledger)
        if not ledger.commit("scratch", ledger.scratch_root):
            place = ledger.committed("scratch")
            if place != ledger.scratch_root and ledger.committed("result") is None:
                raise ResumeError.of(
                    found=f"{ledger.store}: the run {ledger.run!r} keeps its arrays in {place or 'its own store'}",
                    expected="the same scratch",
                    fix=f"--scratch {place}, or --overwrite" if place else "no --scratch, or --overwrite",
                )
        stack.pop_all()
    return ledger


@contextmanager
def forget_run_if_unfit(ledger: StoreLedger) -> Iterator[None]:
    """Remove the run from the ledger when the input turns out to be unfit.

    A run of an input that has to be corrected cannot be resumed: it would only ask for --overwrite. When an output
    cannot be written, the run is kept, with its finished tasks.
    """
    try:
        yield
    except OutputError:
        raise
    except InputError:
        ledger.forget()
        raise


def refuse_existing(path: str, *, overwrite: bool, option: str = "--out") -> None:
    """Refuse an output that exists before the work starts.

    Args:
        path: of a file or a local folder.
        option: its command-line option, for the message.

    Raises:
        OutputExistsError: it is there and is not to be overwritten.
    """
    if not overwrite and has_file(path):
        raise OutputExistsError(
            f"{path} is there already; expected: a new name; to fix: another {option}, or --overwrite"
        )


def refuse_foreign_labels(image: Image, run: str, labels: str, execution: Execution) -> None:
    """Refuse to replace labels that no run of ours made.

    Raises:
        OutputExistsError: unless overwrite was asked for.
    """
    ours = bool(list_blobs(image.address, f".sketchscale/{run}"))
    if labels in image.labels and not ours and not execution.overwrite:
        raise OutputExistsError(
            f"{image.address} has labels {labels!r} of another origin; expected: a new name; "
            f"to fix: --labels NAME, or --overwrite"
        )
