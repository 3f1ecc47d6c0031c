"""A training in the workers of a Ray cluster, whatever is trained: a network, or a synthesis.

    driver: check, show a word in OUT/run ─▶ training.ray_train ─▶ in each worker: work(execution, ears, folder)
                     ▲                                                    │
                     └──────────────── lines, result ─────────────────────┘

What it guarantees:
  * a team that cannot be had, or an output that must not be written, is refused before anything starts;
  * workers that do not see the output folder of this process are refused, see training_output;
  * workers that were started again go on from the saved state, even where the command said --overwrite;
  * an interrupt of this process is one of the work, which saves its state.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sketchscale.config import Execution
from sketchscale.engine.base import EngineOptions, Event
from sketchscale.io.storage_settings import chosen_settings, storage_settings, using
from sketchscale.workflow.runner import quiet
from sketchscale.workflow.training_output import check_output, showing_token

if TYPE_CHECKING:
    from sketchscale.training.ray_train import Voice

__all__ = ["Asked", "Ears", "train_on_ray"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ears:
    """Who is told, and who may interrupt; `token` proves that a worker sees the driver's output folder."""

    say: Callable[[str], None]
    on_event: Callable[[Event], None] = quiet
    interrupted: Callable[[], bool] = lambda: False
    token: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a training needs of a cluster.

    Attributes:
        out: address, or absolute path, of the folder that it writes.
        batch: patches of a step, which the workers share; at least one each.
        device: of each worker; "cuda" asks for GPUs.
        threads: of torch in each worker, a core each; one when None.
    """

    out: str
    batch: int
    device: str
    threads: int | None


def train_on_ray(
    work: Callable[[Execution, Ears, Path], _T], asked: Asked, execution: Execution, say: Callable[[str], None]
) -> _T:
    """What the first worker's `work` returns.

    Args:
        work: picklable; called in each worker with how to run there, who is told, and an empty folder that is removed
            afterwards. Its first process calls `check_output` with the token.
        execution: size and address of the cluster; resume and overwrite.
        say: called here with what the first worker says.

    Raises:
        OutputExistsError: the output is there; overwrite or resume.
        InputError, SetupError, UnreachableError, TaskError, KeyboardInterrupt: see training.ray_train.
        SketchscaleError: what `work` raised.
    """
    from sketchscale.training import ray_train  # an optional package

    cluster = EngineOptions(
        workers=execution.workers,
        address=execution.address,
        gpus_per_worker=execution.gpus_per_worker,
        wait_s=execution.wait_s,
    )
    gpu = asked.device.partition(":")[0] == "cuda"
    team = ray_train.choose_team(
        cluster, batch=asked.batch, gpu=gpu, cpus=asked.threads or 1, attempts=execution.attempts
    )
    check_output(asked.out, execution)
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
    with showing_token(asked.out, token):
        result: _T = ray_train.train_on_ray(partial(_at_work, work, there, token), team, cluster, on_line=say)
    return result


def _at_work(work: Callable[[Execution, Ears, Path], _T], execution: Execution, token: bytes, voice: Voice) -> _T:
    """In each worker."""
    if voice.restarted:
        execution = replace(execution, resume=True, overwrite=False)
    ears = Ears(say=voice.say, interrupted=voice.interrupted, token=token)
    settings = chosen_settings(execution.wait_s, execution.endpoint)
    with using(settings), tempfile.TemporaryDirectory(prefix="sketchscale-train-") as folder:
        return work(execution, ears, Path(folder))
