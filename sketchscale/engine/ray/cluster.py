"""Start or join a Ray cluster, check that it answers, and refuse impossible requests.

**Access.** A Ray head runs anything that reaches its port. An instance started here listens on every interface (Ray
offers no choice), so it gets its own token, which is only kept in memory. A cluster to join must ask for a token too,
unless RAY_AUTH_MODE=disabled allows it not to. A cluster behind TLS, or at ray://, is not checked.

**Answers.** A cluster that lost its head goes on without it and reports nothing. So the head is asked every two
seconds, and after `wait_s` without an answer the run ends with an error.
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
"""Object store of a local instance: configurations pass through it, pixels never do."""

_SOCKET_NAME = 107 - len("/session_2026-01-01_00-00-00_000000_9999999/sockets/plasma_store")
"""Longest path of a folder in which Ray can open its sockets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster: its name, cores and GPUs."""

    name: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that was opened.

    Attributes:
        address: for messages.
        folder: of a local instance, deleted with it.
    """

    address: str
    folder: str | None = None

    def close(self) -> None:
        """End the cluster if it was started here, or leave it if it was joined."""
        ray.shutdown()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_cluster(options: EngineOptions) -> Cluster | None:
    """Start or join a cluster; None if this process is already in one.

    Raises:
        UnreachableError: no answer within `wait_s`.
        SetupError: the cluster has another version, or is open to anyone.
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
    guarded = _probe(address, host, wait_s)
    with _environment({"RAY_AUTH_MODE": "token"} if guarded and "RAY_AUTH_MODE" not in os.environ else {}, wait_s):
        _init(f"the Ray cluster at {address}", address=address if "://" in address else host)
    return Cluster(address=address)


def _init(what: str, **arguments: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(log_to_driver=False, configure_logging=False, **arguments)
    except Exception as error:  # Ray raises RuntimeError, ConnectionError, ValueError and its own
        words = " ".join(str(error).split())[:300]
        raise SetupError(
            f"{what} cannot be used: {words}; expected: a Ray {ray.__version__} that this machine may join; "
            f"to fix: the same Ray and Python on every machine, and its token in RAY_AUTH_TOKEN if it has one"
        ) from None
    finally:  # Ray replaces the handler of SIGTERM
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
    # Ray would print each death of a worker to standard output, where results go
    if (subscriber := getattr(global_worker, "gcs_error_subscriber", None)) is not None:
        global_worker.threads_stopped.set()
        subscriber.close()


@contextmanager
def _environment(values: Mapping[str, str], wait_s: float) -> Iterator[None]:
    """Set variables that Ray reads while it starts; those that the user has set stay."""
    wanted = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
        "RAY_grpc_client_keepalive_time_ms": "5000",  # without these two, results on a broken link are awaited forever
        "RAY_grpc_client_keepalive_timeout_ms": "5000",
        # Ray would end the whole process after a minute without its head; we report that after wait_s
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(int(wait_s) + 600),
        **values,
    }
    fresh = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(fresh)
    Config.initialize("")  # reads them again: Ray did so when it was imported
    if "RAY_AUTH_TOKEN" in fresh:
        AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)


def _resolve(address: str) -> str:
    """Return host:port of an address."""
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


def _probe(address: str, host: str, wait_s: float) -> bool:
    """Wait until a head answers, and return whether it asks for a token.

    Raises:
        UnreachableError: nothing answers within `wait_s`.
        SetupError: it is open to anyone, and RAY_AUTH_MODE does not allow that.
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
            f"its machines; to fix: start it so, or set RAY_AUTH_MODE=disabled if its network is closed"
        )
    return bool(guarded)


def _ask_unknown(host: str, client: bool, timeout: float) -> bool | None:
    """Ask a head without a token, and return whether it wants one; None if that cannot be seen.

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


def live_nodes() -> list[Node]:
    """Return the machines that are up."""
    return [
        Node(name=node["NodeID"], cpus=node["Resources"].get("CPU", 0.0), gpus=node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def _limits() -> Mapping[str, float]:
    """Return the limits of an autoscaling cluster; empty for other clusters."""
    try:
        return state.get_max_resources_from_cluster_config() or {}
    except Exception:  # private to Ray, and absent in a client connection: then the present nodes count
        return {}


def check_workers(workers: int) -> None:
    """Check that the cluster has cores for all workers.

    Raises:
        SetupError: it has fewer; names the number.
    """
    nodes = live_nodes()
    cpus = int(max(sum(node.cpus for node in nodes), _limits().get("CPU", 0)))
    if workers > cpus:
        raise SetupError(
            f"{workers} workers asked of a Ray cluster with {cpus} CPUs on {len(nodes)} nodes; expected: at most one "
            f"for each CPU; to fix: --workers {max(cpus, 1)}, or more nodes"
        )


class Watch:
    """Asks the head in a separate thread, because a question may hang.

    `look` counts the time, in steps of a few seconds at most, so that a suspended machine does not count as waiting.
    `nodes` are those of the last answer.
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
        """Return the present state."""
        with self._lock:
            now = time.monotonic()
            step = min(now - self._looked, 2 * ASK_EVERY_S)
            self._looked = now
            self._silence += step
            self._bare += step
            return Seen(silence=self._silence, bare=self._bare, asked=max(1, self._asked), cause=self._cause)

    def fit(self, gpus: float, workers: int) -> int:
        """Return how many workers with `gpus` GPUs each fit on the cluster now or after growing, at most `workers`.

        Raises:
            SetupError: for none.
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
        """End the thread."""
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
    """State of a cluster as `Watch` sees it.

    Attributes:
        silence: seconds without an answer.
        bare: seconds without a CPU in the cluster.
        asked: questions since the last answer.
        cause: the last error.
    """

    silence: float
    bare: float
    asked: int
    cause: str


def _ask(timeout: float) -> list[Node]:
    """Return the machines that are up, after checking that the head answers."""
    head = getattr(global_worker, "gcs_client", None)
    if head is not None:
        head.check_alive([], timeout)
    return live_nodes()
