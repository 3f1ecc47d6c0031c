"""Run leases: a single process, on any machine, writes to a run.

    <store>/.sketchscale/<run>/owner/000001.json   who took the run, put if absent: id, host, process, start time
    <store>/.sketchscale/<run>/owner/000001.beat   heartbeat, written every 3 s by that process: a counter and progress

The number is the *epoch*; the owner is the process that put the highest one. There are no locks that could be left
behind, and clocks of different machines are never compared:

1. A process *takes* a run by putting the file of the next epoch if it is absent. Exactly one of several can.
2. A run is taken from an owner only when that has ended: its heartbeat has "ended"; or it was a process of this machine
   (same boot, same process numbers) that no longer exists; or it is elsewhere and its heartbeat did not change for
   12 s. Otherwise the new process is refused, with the name of the owner.
3. An owner that was suspended and finds a higher epoch stops: its driver checks before each commit, and each of its
   workers before a task, at most once in 3 s. So after a suspension it writes at most the task that it was in. After
   --resume the new owner writes the same bytes there; only if the run was taken with --overwrite and other settings can
   such a block be wrong, which `sketchscale verify` finds.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sketchscale.engine.plan import Json
from sketchscale.errors import InputError, OutputError, OutputExistsError, SketchscaleError
from sketchscale.io.stores.blobs import delete_blobs, get_blob, list_blobs, put_blob, put_blob_if_absent
from sketchscale.io.stores.documents import parse_json
from sketchscale.io.stores.settings import storage_settings, using

__all__ = [
    "HEARTBEAT_S",
    "Claim",
    "Owner",
    "check_owner",
    "claim_of",
    "current_owner",
    "lives",
    "read_heartbeat",
    "take",
]

HEARTBEAT_S = 3.0
_WATCHED_HEARTBEATS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process that took a run.

    Attributes:
        id: unique for each time a run is taken.
        epoch: 1 for the first owner, then one more each time.
        host, pid, started: for people; `started` is the time of that host, UTC.
        machine: identifies the machines on which `pid` can be looked up.
        born: start time of the process as the system reports it, which reveals a reused process number.
    """

    id: str
    epoch: int
    host: str = "unknown"
    pid: int = 0
    started: str = "unknown"
    machine: str = ""
    born: str = ""

    def words(self) -> str:
        """Return a description for messages.

        >>> Owner(id="3f2a", epoch=1, host="node7", pid=4711, started="2026-05-01T10:00:00Z").words()
        'run id 3f2a (host node7, process 4711, since 2026-05-01T10:00:00Z)'
        """
        return f"run id {self.id} (host {self.host}, process {self.pid}, since {self.started})"


def _folder(run: str) -> str:
    return f".sketchscale/{run}/owner"


def current_owner(store: str, run: str) -> Owner | None:
    """Return the last process that took the run; None if no process did."""
    keys = [key for key in list_blobs(store, _folder(run)) if key.endswith(".json")]
    if not keys:
        return None
    epoch = int(keys[-1].rpartition("/")[2].partition(".")[0])
    with contextlib.suppress(InputError, TypeError):
        return Owner(**{**parse_json(get_blob(store, keys[-1]) or b"", keys[-1]), "epoch": epoch})
    return Owner(id="unknown", epoch=epoch)  # damaged


def read_heartbeat(store: str, run: str, owner: Owner) -> dict[str, Json]:
    """Return the last heartbeat: count, stage, done, total, rate (tasks/s), ended; empty before the first."""
    with contextlib.suppress(InputError):
        return parse_json(get_blob(store, _heartbeat_key(run, owner)) or b"{}", "heartbeat")
    return {}


def _heartbeat_key(run: str, owner: Owner) -> str:
    return f"{_folder(run)}/{owner.epoch:06d}.beat"


def lives(store: str, run: str, owner: Owner) -> bool:
    """Return whether an owner is working; takes 12 s if it is on another machine and silent."""
    first = read_heartbeat(store, run, owner)
    if first.get("ended"):
        return False
    if owner.machine == _machine():
        if owner.pid == os.getpid():  # its last heartbeat may have failed, as on a full disk
            return any(claim.owner.id == owner.id for claim in _CLAIMS.values())
        return _born(owner.pid) == owner.born
    end = time.monotonic() + _WATCHED_HEARTBEATS * HEARTBEAT_S
    while time.monotonic() < end:
        time.sleep(HEARTBEAT_S / 2)
        latest = read_heartbeat(store, run, owner)
        if latest != first:
            return not latest.get("ended")
    return False


def _machine() -> str:
    """Return an id that is equal for exactly those processes that can look each other up by number."""
    parts = [platform.node()]
    if os.name == "nt":  # there `os.kill(pid, 0)` sends Ctrl-C, so heartbeats are watched instead
        parts.append(str(os.getpid()))
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _born(pid: int) -> str | None:
    """Return the start time of a process of this machine; None if it has ended, "" if the system does not report it."""
    if os.name == "nt":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # of another user
        pass
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no such files on this system: any process of that number counts
        return ""
    return None if state in "ZX" else fields[18]


def take(store: str, run: str) -> Claim:
    """Become the owner of a run, with a heartbeat until the claim is released.

    Raises:
        OutputExistsError: another process owns it, or was faster; names that process.
    """
    before = current_owner(store, run)
    if before is not None and lives(store, run, before):
        raise _taken(store, run, before)
    mine = Owner(
        id=uuid.uuid4().hex[:12],
        epoch=1 if before is None else before.epoch + 1,
        host=platform.node(),
        pid=os.getpid(),
        started=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        machine=_machine(),
        born=_born(os.getpid()) or "",
    )
    try:
        put_blob_if_absent(store, f"{_folder(run)}/{mine.epoch:06d}.json", json.dumps(asdict(mine)).encode())
    except OutputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):  # else a faster owner has removed our temporary file
            raise
    after = current_owner(store, run)
    if after is None or after.id != mine.id:  # read back, because the answer to the put can get lost
        raise _taken(store, run, after or mine)
    return Claim(store, run, mine)


def _taken(store: str, run: str, owner: Owner) -> OutputExistsError:
    return OutputExistsError(
        f"{store}: the run {run!r} is being written by {owner.words()}; expected: one writer; "
        f"to fix: wait for it, or stop that process and give the same command with --resume"
    )


class Claim:
    """A run that this process owns; a thread writes a heartbeat with the progress every 3 s.

    Attributes:
        fresh: nothing of the run existed when it was taken.
        begun: stages that started under this claim.
    """

    def __init__(self, store: str, run: str, owner: Owner) -> None:
        self.store, self.run, self.owner = store, run, owner
        self.fresh, self.begun = False, set[str]()
        self.progress: Callable[[], dict[str, Json]] = dict
        self._count = 0
        self._over, self._turn = threading.Event(), threading.Lock()
        self._settings = storage_settings()  # of the job, which neither the thread nor the end of the process has
        _CLAIMS[self._settings.endpoint, store, run] = self
        threading.Thread(target=self._repeat, name=f"owner of {run}", daemon=True).start()

    def _repeat(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            # on any error the work goes on, and the next heartbeat is the retry
            with contextlib.suppress(Exception), self._turn:
                if not self._over.is_set():
                    self._write({})

    def _write(self, more: dict[str, Any]) -> None:
        self._count += 1
        key = _heartbeat_key(self.run, self.owner)
        data = json.dumps({"count": self._count, **self.progress(), **more}).encode()
        with using(self._settings):
            put_blob(self.store, key, data)

    def release(self, *, silently: bool = False) -> None:
        """Let other processes take the run from now on; idempotent.

        Args:
            silently: write nothing to the store, because it does not answer or the run was deleted.
        """
        if self._over.is_set():
            return
        self._over.set()
        key = (self._settings.endpoint, self.store, self.run)
        if _CLAIMS.get(key) is self:
            del _CLAIMS[key]
        if not silently and self._turn.acquire(timeout=HEARTBEAT_S):
            with contextlib.suppress(SketchscaleError, OSError):
                self._write({"ended": True})
            self._turn.release()

    def forget(self) -> None:
        """Delete the run and all records of its owners, including this one."""
        self.release(silently=True)
        delete_blobs(self.store, f".sketchscale/{self.run}")


_CLAIMS: dict[tuple[str | None, str, str], Claim] = {}
"""Claims of this process, by endpoint, store and run."""


def claim_of(store: str, run: str) -> Claim | None:
    """Return the claim of this process on a run."""
    return _CLAIMS.get((storage_settings().endpoint, store, run))


@atexit.register
def _release_all() -> None:
    for claim in list(_CLAIMS.values()):
        if claim.owner.pid == os.getpid():  # not claims of the process that forked this one
            claim.release()


_LOOKED: dict[tuple[str, str, str], float] = {}


def check_owner(store: str, run: str, owner: Owner, *, now: bool = False) -> None:
    """Check that the run is still ours, by two small reads at most once in 3 s per process.

    Args:
        now: read in any case.

    Raises:
        OutputExistsError: another process took the run; names that process.
    """
    key, moment = (store, run, owner.id), time.monotonic()
    if not now and moment - _LOOKED.get(key, -HEARTBEAT_S) < HEARTBEAT_S:
        return
    ours = get_blob(store, f"{_folder(run)}/{owner.epoch:06d}.json")  # a listing would cost as much as twelve reads
    later = get_blob(store, f"{_folder(run)}/{owner.epoch + 1:06d}.json")
    if ours is not None and owner.id in ours.decode(errors="replace") and later is None:
        _LOOKED[key] = moment
        return
    current = current_owner(store, run)
    if current is None or (current.id != owner.id and current.id != "unknown") or current.epoch != owner.epoch:
        by = current.words() if current else "a process that removed it"
        raise OutputExistsError(
            f"{store}: the run {run!r} was taken over by {by}; expected: {owner.words()}; "
            f"to fix: nothing, this process stops and the other goes on"
        )
    _LOOKED[key] = moment
