"""Run training processes on a Ray cluster: Ray Train starts them, and restarts all of them when one dies.

    driver ── fit ──▶ controller ──▶ worker 0 … worker N-1      each runs `work`, and meets the others as under torchrun
       ▲                                  │
       └────── lines, result ── board ◀───┘                     an actor without a core, on the cluster

Ray Train only starts, watches and restarts. What training goes on from is the state in the run folder, see
training.state, by the rules of --resume: nothing is reported to Ray, so that its own checkpoints, which go on silently
under the same name, stay out of it. A run has a name of its own and a folder that is removed.

Guarantees:
  * workers that the cluster can never hold are refused; those that it cannot hold now are waited for, at most `wait_s`;
  * an error of ours in a worker is raised here, as it was there, and not tried again;
  * a worker that dies costs an attempt of all; after the last one it is an error that says how to go on;
  * an interrupt of this process reaches the workers, which save the state.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import ray
import ray.train
import ray.train.torch
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sketchscale.engine import usable_cores
from sketchscale.engine.base import EngineOptions
from sketchscale.engine.ray.cluster import Watch, live_nodes, open_cluster
from sketchscale.errors import InputError, SetupError, SketchscaleError, TaskError, UnreachableError
from sketchscale.training.interrupts import noted_interrupts

__all__ = ["Team", "Voice", "choose_team", "train_on_ray"]

_LOOK_EVERY_S = 0.5
_STARTING_S = 10.0
"""How long an instance started here may take to report its resources."""
_SAVING_S = 120.0
"""How long an interrupted training may take to save its state."""


class Voice(Protocol):
    """The channel from a training process to the one that started it."""

    restarted: bool

    def say(self, line: str) -> None:
        """Send a line to show."""
        ...

    def interrupted(self) -> bool:
        """Return whether training was interrupted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """The resources that are requested from the cluster.

    Attributes:
        workers: processes.
        gpus: of each; 0 trains on processors.
        cpus: of each.
        attempts: how often they may be started in all.
    """

    workers: int
    gpus: int = 0
    cpus: int = 1
    attempts: int = 3

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one process, by Ray's names."""
        return {"CPU": float(self.cpus), **({"GPU": float(self.gpus)} if self.gpus else {})}


def choose_team(options: EngineOptions, *, batch: int, gpu: bool, cpus: int, attempts: int) -> Team:
    """Return the processes that options ask for; by default one for each GPU or core, at most one for each patch.

    Raises:
        InputError: fewer patches than processes, or a GPU shared by several.
    """
    share = 1.0 if options.gpus_per_worker is None else options.gpus_per_worker
    if gpu and (share < 1 or share % 1):
        raise InputError.of(
            found=f"--gpus-per-worker {share:g} to train",
            expected="whole GPUs, as processes that train together cannot share one",
            fix="--gpus-per-worker 1",
        )
    if options.workers is not None and options.workers > batch:
        raise InputError.of(
            found=f"{batch} patches a step for {options.workers} processes",
            expected="at least one patch for each",
            fix=f"--batch {options.workers}, or fewer --workers",
        )
    if options.workers is None and options.address is None and not gpu:
        workers = usable_cores() // cpus
    else:
        workers = options.workers or 0
    return Team(workers=min(workers, batch), gpus=int(share) if gpu else 0, cpus=cpus, attempts=attempts)


def train_on_ray(
    work: Callable[[Voice], Any], team: Team, options: EngineOptions, on_line: Callable[[str], None] = lambda line: None
) -> Any:
    """Run a training function in connected processes, and return the result of the first one.

    Args:
        work: picklable; called in each process.
        team: `workers` 0 takes what the cluster has.
        on_line: called here with each line that the processes send.

    Raises:
        UnreachableError: the cluster does not answer, or no longer.
        SetupError: the cluster lacks what is asked for.
        TaskError: workers died too often.
        SketchscaleError: what `work` raised.
        KeyboardInterrupt: an interrupt came, and the state was saved.
    """
    if options.address is None:
        cores, gpus = usable_cores(), torch.cuda.device_count()
        if max(1, team.workers) * team.cpus > cores or max(1, team.workers) * team.gpus > gpus:
            raise _too_few(team, f"this machine with {cores} usable CPUs and {gpus} GPUs")
        options = replace(options, workers=max(1, team.workers) * team.cpus)
    cluster = open_cluster(options)
    try:
        team = _filled(team, grows=options.address is not None, wait_s=options.wait_s)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        # On the machine of the driver, so that the board lives as long as the driver.
        board = ray.remote(_Board).options(num_cpus=0, scheduling_strategy=here).remote()
        with contextlib.redirect_stdout(sys.stderr):  # Ray prints there that a worker died
            return _watched(_Fit(work, team, board), board, options, on_line, ours=cluster is not None)
    finally:
        if cluster is not None:
            cluster.close()


def _too_few(team: Team, where: str) -> SetupError:
    each = ", ".join(f"{count:g} {kind}" for kind, count in team.bundle.items())
    return SetupError(
        f"{max(1, team.workers)} workers with {each} each asked of {where}; expected: room for all at once; "
        f"to fix: fewer --workers or --threads, {'--device cpu, ' if team.gpus else ''}or a larger cluster (--address)"
    )


def _filled(team: Team, *, grows: bool, wait_s: float) -> Team:
    """Wait for room on the cluster, and return the team with its number of workers.

    A cluster that can grow is asked to grow.

    Raises:
        SetupError: there is no room within `wait_s`.
    """
    began, asked = time.monotonic(), False
    while True:
        held, free = ray.cluster_resources(), ray.available_resources()
        wanted = team if team.workers else replace(team, workers=_room(team, held))
        if wanted.workers and _room(team, free) >= wanted.workers:
            return wanted
        if time.monotonic() - began >= (wait_s if grows else _STARTING_S):
            words = ", ".join(f"{held.get(k, 0):g} {k} ({free.get(k, 0):g} free)" for k in team.bundle)
            raise _too_few(wanted, f"a Ray cluster of {len(live_nodes())} nodes with {words}")
        if grows and not asked:
            asked = True
            ray.autoscaler.sdk.request_resources(bundles=[team.bundle] * max(1, team.workers))
        time.sleep(_LOOK_EVERY_S)


def _room(team: Team, resources: dict[str, float]) -> int:
    return int(min(resources.get(kind, 0.0) // count for kind, count in team.bundle.items()))


# ---- on the cluster


class _Board:
    """The messages between workers and driver; an actor that outlives workers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.starts: dict[int, int] = {}
        self.answer: tuple[str, bytes] | None = None
        self.stop = False

    def begin(self, rank: int) -> tuple[int, bool]:
        """Return how often this rank has started, and whether training is over already."""
        self.starts[rank] = self.starts.get(rank, 0) + 1
        return self.starts[rank], self.answer is not None

    def say(self, line: str) -> None:
        """Add a line for the driver."""
        self.lines.append(line)

    def end(self, kind: str, value: bytes) -> None:
        """Set the answer, unless there is one already."""
        self.answer = self.answer or (kind, value)

    def interrupt(self) -> None:
        """Ask the workers to stop."""
        self.stop = True

    def interrupted(self) -> bool:
        """Return whether the workers are to stop."""
        return self.stop

    def look(self, since: int) -> tuple[list[str], tuple[str, bytes] | None, int]:
        """Return the lines from `since` on, the answer if there is one, and the largest number of starts."""
        return self.lines[since:], self.answer, max(self.starts.values(), default=0)


class _BoardVoice:
    """A worker's access to the board; a thread asks for interrupts, as a request takes longer than a step."""

    def __init__(self, board: Any, *, restarted: bool) -> None:
        self.board, self.restarted = board, restarted
        self._noted, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="interrupts", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            if ray.get(self.board.interrupted.remote()):
                self._noted.set()

    def say(self, line: str) -> None:
        """Send a line to the driver."""
        self.board.say.remote(line)

    def interrupted(self) -> bool:
        """Return whether the driver asked to stop."""
        return self._noted.is_set()

    def close(self) -> None:
        """Stop the thread that asks for interrupts."""
        self._over.set()
        self._thread.join()


def _run_worker(config: dict[str, Any]) -> None:
    """Run one training process in a thread of a Ray Train worker, after Ray has made the process group."""
    board, rank = config["board"], ray.train.get_context().get_world_rank()
    starts, over = ray.get(board.begin.remote(rank))
    if over:
        return
    if config["gpu"]:
        torch.cuda.set_device(ray.train.torch.get_device())
    voice = _BoardVoice(board, restarted=starts > 1)
    try:
        kind, value = "result", config["work"](voice)
    except KeyboardInterrupt:
        kind, value = "interrupt", None
    except SketchscaleError as error:
        ray.get(board.end.remote("error", pickle.dumps(error)))
        raise
    finally:
        voice.close()
    if rank == 0:
        ray.get(board.end.remote(kind, pickle.dumps(value)))


# ---- on the driver


@dataclass(slots=True)
class _Fit:
    """Ray Train in a thread: in the main thread it would handle Ctrl-C itself."""

    work: Callable[[Voice], Any]
    team: Team
    board: Any
    error: BaseException | None = None
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        team = self.team
        try:
            with tempfile.TemporaryDirectory(prefix="sketchscale-train-") as folder:
                ray.train.torch.TorchTrainer(
                    _run_worker,
                    train_loop_config={"work": self.work, "board": self.board, "gpu": team.gpus > 0},
                    scaling_config=ray.train.ScalingConfig(
                        num_workers=team.workers, use_gpu=team.gpus > 0, resources_per_worker=team.bundle
                    ),
                    run_config=ray.train.RunConfig(
                        name=uuid.uuid4().hex,
                        storage_path=folder,
                        failure_config=ray.train.FailureConfig(max_failures=team.attempts - 1),
                    ),
                    torch_config=ray.train.torch.TorchConfig(backend="cpu:gloo,cuda:nccl" if team.gpus else "gloo"),
                ).fit()
        except BaseException as error:  # taken up in the thread that waits
            self.error = error


def _watched(fit: _Fit, board: Any, options: EngineOptions, on_line: Callable[[str], None], *, ours: bool) -> Any:
    """Pass on lines until there is an answer, and return it."""
    watch, seen, asked, restarts = Watch(options.wait_s), 0, 0.0, 1
    try:
        with noted_interrupts() as interrupted:
            while True:
                alive = fit.thread.is_alive()
                lines, answer, starts = _ask(board, seen, 5 if alive else options.wait_s)  # the last one counts
                seen += len(lines)
                for line in lines:
                    on_line(line)
                if starts > restarts:
                    restarts = starts
                    on_line(f"a worker died; all start again from the last saved state (start {starts})")
                if not alive or (ours and answer is not None and answer[0] == "error"):
                    return _answered(answer, fit)
                if interrupted() and not asked:
                    asked = time.monotonic()
                    board.interrupt.remote()
                if asked and time.monotonic() - asked > _SAVING_S:
                    raise KeyboardInterrupt
                _check_alive(watch, options)
                fit.thread.join(_LOOK_EVERY_S)
    finally:
        watch.close()


def _ask(board: Any, seen: int, patience_s: float) -> tuple[list[str], tuple[str, bytes] | None, int]:
    try:
        found: tuple[list[str], tuple[str, bytes] | None, int] = ray.get(board.look.remote(seen), timeout=patience_s)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
        return [], None, 0
    return found


def _check_alive(watch: Watch, options: EngineOptions) -> None:
    state = watch.look()
    if state.silence > options.wait_s:
        raise UnreachableError.after(
            f"the Ray cluster at {options.address or 'this machine'}", state.cause, attempts=state.asked,
            seconds=state.silence,
        )  # fmt: skip


def _answered(answer: tuple[str, bytes] | None, fit: _Fit) -> Any:
    if answer is None:
        words = (str(fit.error or "").strip().splitlines() or ["no worker answered"])[-1][:300]
        raise TaskError(
            f"training ended without a model after {fit.team.attempts} starts of {fit.team.workers} workers: {words}; "
            f"expected: workers that live; to fix: see why they died (memory?), then go on with --resume"
        ) from fit.error
    kind, value = answer
    if kind == "interrupt":
        raise KeyboardInterrupt
    found = pickle.loads(value)
    if kind == "error":
        raise found
    return found
