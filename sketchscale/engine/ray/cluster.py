"""A Ray cluster: started on this machine or joined, asked whether it answers, and refused what it can never do.

**Who may use it.** A Ray head runs whatever reaches its port. An instance started here listens on every interface (Ray
offers no choice), so it gets a token of its own, made for it and kept in memory. A cluster that is joined has to ask
for a token too; RAY_AUTH_MODE=disabled says that it need not. A cluster behind TLS, and one at ray://, is not asked.

**Who answers.** Without its head a cluster goes on with what it has and says nothing for ever. So the head is asked
every two seconds, and after `wait_s` without an answer the run ends with an error.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import ray
from ray._private.services import canonicalize_bootstrap_address
from ray._private.state import state
from ray._private.worker import global_worker
from ray._raylet import AuthenticationTokenLoader, Config

from sketchscale.engine.base import EngineOptions
from sketchscale.engine.local import usable_cores
from sketchscale.errors import SetupError, UnreachableError

__all__ = ["Cluster", "Node", "Seen", "Watch", "check_workers", "live_nodes", "open_cluster"]

ASK_EVERY_S = 2.0

_STORE_BYTES = 200 * 2**20
"""Of a local instance's object store: configurations pass through it, pixels never do."""

_SOCKET_NAME = 107 - len("/session_2026-01-01_00-00-00_000000_9999999/sockets/plasma_store")
"""Longest folder in which Ray can open its sockets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster: its name, cores and GPUs."""

    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What was opened.

    Attributes:
        address: for messages.
        folder: of a local instance, removed with it.
    """

    address: str
    folder: str | None = None

    def close(self) -> None:
        """End it if it was started here, or leave it if it was joined here."""
        ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_cluster(options: EngineOptions) -> Cluster | None:
    """Start or join; None where this process is in a cluster already.

    Raises:
        UnreachableError: no answer within `wait_s`.
        SetupError: the cluster is of another version, or lets anyone in.
    """
    if ray.is_initialized():
        return None
    if options.address is None:
        return _start(options)
    return _join(options.address, options.wait_s)


def _start(options: EngineOptions) -> Cluster:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    folder = tempfile.mkdtemp(prefix="sketchscale-ray-")
    place = {"_temp_dir": folder} if len(folder) <= _SOCKET_NAME else {}
    cluster = Cluster(address="the local Ray", folder=folder)
    try:
        with _environment({} if "RAY_AUTH_MODE" in os.environ else token, options.wait_s):
            _init(
                "a local Ray",
                address="local",
                num_cpus=options.workers or usable_cores(),
                object_store_memory=_STORE_BYTES,
                include_dashboard=False,
                **place,
            )
    except BaseException:
        cluster.close()
        raise
    return cluster


def _join(address: str, wait_s: float) -> Cluster:
    host = _resolve(address)
    guarded = _knock(address, host, wait_s)
    with _environment({"RAY_AUTH_MODE": "token"} if guarded and "RAY_AUTH_MODE" not in os.environ else {}, wait_s):
        _init(f"the Ray cluster at {address}", address=address if "://" in address else host)
    return Cluster(address=address)


def _init(what: str, **arguments: Any) -> None:
    try:
        with _own_handler():
            ray.init(log_to_driver=False, configure_logging=False, **arguments)
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError and its own
        words = " ".join(str(error).split())[:300]
        raise SetupError(
            f"{what} cannot be used: {words}; expected: a Ray {ray.__version__} that this machine may join; "
            f"to fix: the same Ray and Python on every machine, and its token in RAY_AUTH_TOKEN if it has one"
        ) from None
    _hush()


@contextmanager
def _own_handler() -> Iterator[None]:
    """Ray takes SIGTERM for itself, without asking; it is given back to whoever had it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _hush() -> None:
    """Ray prints each death of a worker to standard output, where results go; we say it where it matters."""
    if (subscriber := getattr(global_worker, "gcs_error_subscriber", None)) is not None:
        global_worker.threads_stopped.set()
        subscriber.close()


@contextmanager
def _environment(values: Mapping[str, str], wait_s: float) -> Iterator[None]:
    """Ray's own settings, which it reads from the environment, while it starts; what the user has set stays."""
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_grpc_client_keepalive_time_ms": "5000",  # without these two, results on a cut link are awaited for ever
        "RAY_grpc_client_keepalive_timeout_ms": "5000",
        # Ray ends the whole process when its head is gone for a minute; ours is to say what happened, after wait_s
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(int(wait_s) + 600),
        **values,
    }
    fresh = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(fresh)
    _reread(fresh)
    try:
        yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)


def _reread(fresh: Mapping[str, str]) -> None:
    """Ray has read its settings when it was imported."""
    Config.initialize("")
    if "RAY_AUTH_TOKEN" in fresh:
        AuthenticationTokenLoader.instance().reset_cache()


# ---- before joining


def _resolve(address: str) -> str:
    """host:port of an address."""
    try:
        found = canonicalize_bootstrap_address(address.partition("://")[2] or address)
        host, _, port = (found or "").rpartition(":")
        if host and 0 < int(port) < 65536:
            return f"{host}:{port}"
    except (ValueError, OSError):
        pass
    raise SetupError(
        f"--address {address}: no Ray cluster is there; expected: auto (a cluster on this machine), host:port or "
        f"ray://host:port; to fix: start one with `ray start --head`, or correct the address"
    )


def _knock(address: str, host: str, wait_s: float) -> bool:
    """Wait until a head answers; whether it asks for a token.

    Raises:
        UnreachableError: nothing answers within `wait_s`.
        SetupError: it lets anyone in, and nobody said that it may.
    """
    started, attempts = time.monotonic(), 0
    while True:
        attempts += 1
        left = wait_s - (time.monotonic() - started)
        try:
            guarded = _ask_unknown(host, "://" in address, timeout=max(0.1, min(5.0, left)))
            break
        except OSError as error:
            if time.monotonic() - started >= wait_s:
                raise UnreachableError.after(
                    f"the Ray cluster at {address}", error, attempts=attempts, seconds=time.monotonic() - started
                ) from None
            time.sleep(max(0.0, min(1.0, wait_s - (time.monotonic() - started))))
    if guarded is False and "RAY_AUTH_MODE" not in os.environ:
        raise SetupError(
            f"the Ray cluster at {address} lets anyone in who reaches its port; expected: RAY_AUTH_MODE=token on all "
            f"its machines; to fix: start it so, or say with RAY_AUTH_MODE=disabled that its network is closed"
        )
    return bool(guarded)


def _ask_unknown(host: str, client: bool, timeout: float) -> bool | None:
    """Ask a head without a token: whether it wants one; None if that cannot be seen.

    Raises:
        OSError: it does not answer.
    """
    name, _, port = host.rpartition(":")
    socket.create_connection((name.strip("[]"), int(port)), timeout=timeout).close()
    if client or os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return None
    with grpc.insecure_channel(host) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=timeout)
        except grpc.RpcError as error:
            code = error.code()
            if code == grpc.StatusCode.UNAUTHENTICATED:
                return True
            raise ConnectionError(f"no Ray head answers there ({code.name.lower()})") from None
    return False


# ---- what it has


def live_nodes() -> list[Node]:
    """Machines that are up."""
    return [
        Node(name=node["NodeID"], cpus=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def _limits() -> Mapping[str, float]:
    """What a cluster that grows by itself may grow to; empty where none does."""
    try:
        return state.get_max_resources_from_cluster_config() or {}
    except Exception:  # private to Ray, and absent in a client's connection: then what is there now counts
        return {}


def check_workers(workers: int) -> None:
    """Refuse more workers than the cluster has cores, or a cluster without any.

    Raises:
        SetupError: says what it has.
    """
    nodes = live_nodes()
    cpus = int(max(sum(node.cpus for node in nodes), _limits().get("CPU", 0)))
    if workers > cpus:
        raise SetupError(
            f"{workers} workers asked of a Ray cluster with {cpus} CPUs on {len(nodes)} nodes; expected: at most one "
            f"for each CPU; to fix: --workers {max(cpus, 1)}, or more nodes"
        )


class Watch:
    """Asks the head in a thread of its own, because a question may hang.

    Time is counted by whoever looks, in steps of a few seconds at most: a machine that slept did not wait. `nodes` are
    those of the last answer.
    """

    def __init__(self, wait_s: float) -> None:
        self._every = min(ASK_EVERY_S, wait_s / 5)
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._silence, self._bare, self._asked, self._cause = 0.0, 0.0, 0, "no answer"
        self._looked = time.monotonic()
        self.nodes, self._limits = live_nodes(), _limits()
        self._thread = threading.Thread(target=self._run, name="sketchscale-ray-watch", daemon=True)
        self._thread.start()

    def look(self) -> Seen:
        """How it stands now."""
        with self._lock:
            now = time.monotonic()
            step = min(now - self._looked, 2 * ASK_EVERY_S)
            self._looked = now
            self._silence += step
            self._bare += step
            return Seen(silence=self._silence, bare=self._bare, asked=max(1, self._asked), cause=self._cause)

    def fit(self, gpus: float, workers: int) -> int:
        """How many workers with so many GPUs each the cluster has, or may grow to have; at most `workers`.

        Raises:
            SetupError: not one.
        """
        limit = self._limits.get("GPU", 0.0)
        most = max([node.gpus for node in self.nodes] + [limit])
        if gpus > most:
            raise SetupError(
                f"{gpus:g} GPU asked for each worker of a Ray cluster whose {len(self.nodes)} nodes have at most "
                f"{most:g}; expected: a node with as many; to fix: a smaller --gpus-per-worker, nodes with GPUs, or "
                f"--device cpu"
            )
        here = sum(int(node.gpus / gpus + 1e-9) for node in self.nodes)
        return max(1, min(workers, max(here, int(limit / gpus + 1e-9))))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * ASK_EVERY_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                with self._lock:
                    self._asked += 1
                self.nodes = _ask(self._every)
            except Exception as error:  # Ray's RpcError, ConnectionError, or a client that has gone
                with self._lock:
                    self._cause = str(error)
            else:
                with self._lock:
                    self._silence, self._asked = 0.0, 0
                    self._bare = 0.0 if any(node.cpus for node in self.nodes) else self._bare


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What `Watch` knows.

    Attributes:
        silence: seconds without an answer.
        bare: seconds without a CPU in the cluster.
        asked: questions since the last answer.
        cause: what was said last.
    """

    silence: float
    bare: float
    asked: int
    cause: str


def _ask(timeout: float) -> list[Node]:
    """The machines that are up, from a head that answers."""
    head = getattr(global_worker, "gcs_client", None)
    if head is not None:
        head.check_alive([], timeout)
    return live_nodes()
