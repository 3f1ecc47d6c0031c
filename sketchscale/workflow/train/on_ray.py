"""Run a training here or in the workers of a Ray cluster; the training may be of a network or of a synthesis.

    driver: check, write a token to OUT/run ─▶ training.ray_train ─▶ worker: train(options, execution, callbacks)
                     ▲                                                    │
                     └──────────────── lines, result ─────────────────────┘

What it guarantees:
  * a team that cannot be had, or an output that must not be written, is refused before anything starts;
  * workers that do not see the output folder of this process are refused, see output_folder;
  * restarted workers continue from the saved state, even where the command has --overwrite;
  * an interrupt of this process interrupts the training, which saves its state.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sketchscale.config import Execution
from sketchscale.engine.base import EngineOptions, Event
from sketchscale.io.stores.settings import chosen_settings, storage_settings, using
from sketchscale.training.distributed import was_restarted
from sketchscale.workflow.runner import quiet
from sketchscale.workflow.train.output_folder import check_output, showing_token
from sketchscale.workflow.train.worker_options import PackedFiles, WorkerOptions

if TYPE_CHECKING:
    from sketchscale.training.ray_train import Voice

__all__ = ["TrainCallbacks", "train_anywhere", "train_in_worker"]

_T = TypeVar("_T")
_Train = Callable[[Any, Execution, "TrainCallbacks"], _T]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainCallbacks:
    """Functions that a training calls, and a token that proves that a worker sees the driver's output folder."""

    say: Callable[[str], None]
    on_event: Callable[[Event], None] = quiet
    interrupted: Callable[[], bool] = lambda: False
    token: bytes | None = None


def train_anywhere(
    train: _Train[_T],
    options: Any,
    shipping: WorkerOptions,
    execution: Execution,
    callbacks: TrainCallbacks,
    *,
    batch: int,
) -> _T:
    """Return what `train` returns here, or in the first worker of a cluster where the engine is "ray".

    Args:
        train: a module-level function of options, execution and callbacks. Its first process calls `check_output` with
            the token.
        options: with `out`, `device` and `threads` (of torch in each worker, a core each; one when None).
        shipping: which options hold addresses, and which files are sent to the workers.
        execution: size and address of the cluster; resume and overwrite.
        batch: patches of a step, which the workers share; at least one each.

    Raises:
        OutputExistsError: the output is there; overwrite or resume.
        InputError, SetupError, UnreachableError, TaskError, KeyboardInterrupt: see training.ray_train.
        SketchscaleError: what `train` raised.
    """
    if execution.engine != "ray":
        return train(options, _resumed(execution) if was_restarted() else execution, callbacks)
    from sketchscale.training import ray_train  # an optional package

    options = shipping.absolute(options)
    packed = shipping.pack(options)
    cluster = EngineOptions(
        workers=execution.workers,
        address=execution.address,
        gpus_per_worker=execution.gpus_per_worker,
        wait_s=execution.wait_s,
    )
    gpu = options.device.partition(":")[0] == "cuda"
    team = ray_train.choose_team(cluster, batch=batch, gpu=gpu, cpus=options.threads or 1, attempts=execution.attempts)
    check_output(options.out, execution)
    token = uuid.uuid4().hex.encode()
    here = storage_settings()
    there = replace(
        execution,
        engine="threads",
        workers=None,
        address=None,
        gpus_per_worker=None,
        wait_s=here.wait_s,
        endpoint=here.endpoint,
    )
    work = partial(_run_in_worker, partial(train_in_worker, train, options, shipping, packed), there, token)
    with showing_token(options.out, token):
        result: _T = ray_train.train_on_ray(work, team, cluster, on_line=callbacks.say)
    return result


def train_in_worker(
    train: _Train[_T],
    options: Any,
    shipping: WorkerOptions,
    packed: PackedFiles,
    execution: Execution,
    callbacks: TrainCallbacks,
    folder: Path,
) -> _T:
    """Train with the files that were sent; `folder` is empty."""
    return train(shipping.unpack(options, packed, folder), execution, callbacks)


def _resumed(execution: Execution) -> Execution:
    return replace(execution, resume=True, overwrite=False)


def _run_in_worker(
    work: Callable[[Execution, TrainCallbacks, Path], _T], execution: Execution, token: bytes, voice: Voice
) -> _T:
    """Set up a worker, restarted or not, and run the training in it."""
    if voice.restarted:
        execution = _resumed(execution)
    callbacks = TrainCallbacks(say=voice.say, interrupted=voice.interrupted, token=token)
    settings = chosen_settings(execution.wait_s, execution.endpoint)
    with using(settings), tempfile.TemporaryDirectory(prefix="sketchscale-train-") as folder:
        return work(execution, callbacks, Path(folder))
