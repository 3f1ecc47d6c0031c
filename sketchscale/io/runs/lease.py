"""Who runs: of all processes, on whatever machines, one at a time writes to a run.

    <store>/.sketchscale/<run>/owner/000001.json   who took the run, put if absent: id, host, process, since when
    <store>/.sketchscale/<run>/owner/000001.beat   rewritten by that process every 3 s: a counter, and how far it is

The number is the *epoch*; the owner is who put the highest. There are no locks that could be left behind, and no clocks
of different machines are compared:

1. *Taking* a run is putting the file of the next epoch if it is absent. Of several processes exactly one can.
2. A run is taken from an owner only when that is over: it wrote "ended" into its beat; or it was a process of this
   machine (same boot, same process numbers) and is no more; or it is elsewhere and its beat did not change for 12 s.
   Otherwise the newcomer is refused, and told who the owner is.
3. An owner that was only asleep and finds a higher epoch stops: its driver looks before each commit, and every process
   that works for it looks before a task, at most once in 3 s. So what a sleeper writes after waking is at most the
   task it slept in. After --resume that is byte for byte what the new owner writes there; only where the run was taken
   with --overwrite, and other settings, can such a block be foreign: `sketchscale verify` finds it.
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
from sketchscale.errors import InputError, OutputExistsError, SketchscaleError
from sketchscale.io.stores.blobs import delete_blobs, get_blob, list_blobs, put_blob, put_blob_if_absent
from sketchscale.io.stores.documents import parse_json
from sketchscale.io.stores.settings import storage_settings, using

__all__ = ["BEAT_S", "Claim", "Owner", "check_owner", "claim_of", "current_owner", "lives", "read_beat", "take"]

BEAT_S = 3.0
_WATCH_BEATS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A process that took a run.

    Attributes:
        id: of this taking, unique.
        epoch: 1 for the first; one more each time the run is taken.
        host, pid, started: for people; `started` is the time of that host, UTC.
        machine: what tells whether `pid` can be looked up here.
        born: when the process began, as the system says; tells a number that was given again.
    """

    id: str
    epoch: int
    host: str = "unknown"
    pid: int = 0
    started: str = "unknown"
    machine: str = ""
    born: str = ""

    def words(self) -> str:
        """For messages.

        >>> Owner(id="3f2a", epoch=1, host="node7", pid=4711, started="2026-05-01T10:00:00Z").words()
        'run id 3f2a (host node7, process 4711, since 2026-05-01T10:00:00Z)'
        """
        return f"run id {self.id} (host {self.host}, process {self.pid}, since {self.started})"


def _folder(run: str) -> str:
    return f".sketchscale/{run}/owner"


def current_owner(store: str, run: str) -> Owner | None:
    """Who took the run last; None when nobody ever did."""
    keys = [key for key in list_blobs(store, _folder(run)) if key.endswith(".json")]
    return _parse_owner(get_blob(store, keys[-1]), keys[-1]) if keys else None


def _parse_owner(data: bytes | None, key: str) -> Owner:
    """An owner file; of a damaged one only the epoch is known."""
    epoch = int(key.rpartition("/")[2].partition(".")[0])
    with contextlib.suppress(InputError, TypeError):
        return Owner(**{**parse_json(data or b"", key), "epoch": epoch})
    return Owner(id="unknown", epoch=epoch)


def read_beat(store: str, run: str, owner: Owner) -> dict[str, Json]:
    """What the owner last said: count, stage, done, total, rate (tasks/s), ended; empty before its first beat."""
    with contextlib.suppress(InputError):
        return parse_json(get_blob(store, _beat_key(run, owner)) or b"{}", "beat")
    return {}


def _beat_key(run: str, owner: Owner) -> str:
    return f"{_folder(run)}/{owner.epoch:06d}.beat"


def lives(store: str, run: str, owner: Owner) -> bool:
    """Whether an owner is at work; takes 12 s where it is on another machine and silent."""
    first = read_beat(store, run, owner)
    if first.get("ended"):
        return False
    if owner.machine == _machine():
        if owner.pid == os.getpid():  # what it gave back, it may not have been able to say: the disk is full
            return any(claim.owner.id == owner.id for claim in _CLAIMS.values())
        return _born(owner.pid) == owner.born
    end = time.monotonic() + _WATCH_BEATS * BEAT_S
    while time.monotonic() < end:
        time.sleep(BEAT_S / 2)
        beat = read_beat(store, run, owner)
        if beat != first:
            return not beat.get("ended")
    return False


def _machine() -> str:
    """The same for two processes that can look one another up by number, and for no others."""
    parts = [platform.node()]
    if os.name == "nt":  # no look-up without harm: `os.kill(pid, 0)` sends Ctrl-C there, so beats are watched instead
        parts.append(str(os.getpid()))
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _born(pid: int) -> str | None:
    """When a process of this machine began; None when it is no more, "" where the system does not say."""
    if os.name == "nt":
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # somebody else's
        pass
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # no such files on this system: a number that is in use counts
        return ""
    return None if state in "ZX" else fields[18]


def take(store: str, run: str) -> Claim:
    """Become the owner of a run, and let its beat go on until the claim is released.

    Raises:
        OutputExistsError: somebody is at work there, or was faster; says who.
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
    put_blob_if_absent(store, f"{_folder(run)}/{mine.epoch:06d}.json", json.dumps(asdict(mine)).encode())
    after = current_owner(store, run)
    if after is None or after.id != mine.id:  # asked of the store: an answer to the put can get lost
        raise _taken(store, run, after or mine)
    return Claim(store, run, mine)


def _taken(store: str, run: str, owner: Owner) -> OutputExistsError:
    return OutputExistsError(
        f"{store}: the run {run!r} is being written by {owner.words()}; expected: one writer; "
        f"to fix: wait for it, or stop that process and give the same command with --resume"
    )


class Claim:
    """A run that this process owns; a thread says every 3 s that it lives, and how far it is.

    Attributes:
        fresh: nothing of the run was there when it was taken.
        begun: stages that were begun under this claim.
    """

    def __init__(self, store: str, run: str, owner: Owner) -> None:
        self.store, self.run, self.owner = store, run, owner
        self.fresh, self.begun = False, set[str]()
        self.progress: Callable[[], dict[str, Json]] = dict
        self._count = 0
        self._over, self._turn = threading.Event(), threading.Lock()
        self._settings = storage_settings()  # of the job: neither the thread nor the end of the process has them
        _CLAIMS[self._settings.endpoint, store, run] = self
        threading.Thread(target=self._beat, name=f"owner of {run}", daemon=True).start()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            # whatever goes wrong: what cannot be said now is said next time, and the work goes on meanwhile
            with contextlib.suppress(Exception), self._turn:
                if not self._over.is_set():
                    self._say({})

    def _say(self, more: dict[str, Any]) -> None:
        self._count += 1
        beat = {"count": self._count, **self.progress(), **more}
        with using(self._settings):
            put_blob(self.store, _beat_key(self.run, self.owner), json.dumps(beat).encode())

    def release(self, *, silently: bool = False) -> None:
        """Somebody else may take the run from now on; releasing twice is harmless.

        Args:
            silently: say nothing to the store, which does not answer or holds nothing of the run any more.
        """
        if self._over.is_set():
            return
        self._over.set()
        key = (self._settings.endpoint, self.store, self.run)
        if _CLAIMS.get(key) is self:
            del _CLAIMS[key]
        if not silently and self._turn.acquire(timeout=BEAT_S):
            with contextlib.suppress(SketchscaleError, OSError):
                self._say({"ended": True})
            self._turn.release()

    def forget(self) -> None:
        """Remove the run and every trace of its owners, this one too."""
        self.release(silently=True)
        delete_blobs(self.store, f".sketchscale/{self.run}")


_CLAIMS: dict[tuple[str | None, str, str], Claim] = {}
"""What this process owns, by endpoint, store and run."""


def claim_of(store: str, run: str) -> Claim | None:
    """The claim of this process on a run."""
    return _CLAIMS.get((storage_settings().endpoint, store, run))


def _release_all() -> None:
    for claim in list(_CLAIMS.values()):
        if claim.owner.pid == os.getpid():  # not those of the process that forked us
            claim.release()


atexit.register(_release_all)

_LOOKED: dict[tuple[str, str, str], float] = {}


def _still_owns(store: str, run: str, owner: Owner) -> bool:
    """Whether its epoch is there and no next one is: two small reads, where a listing costs as much as twelve."""
    ours = get_blob(store, f"{_folder(run)}/{owner.epoch:06d}.json")
    later = get_blob(store, f"{_folder(run)}/{owner.epoch + 1:06d}.json")
    return ours is not None and owner.id in ours.decode(errors="replace") and later is None


def check_owner(store: str, run: str, owner: Owner, *, now: bool = False) -> None:
    """Go on only while the run is ours. Looks into the store at most once in 3 s, from any process.

    Args:
        now: look in any case.

    Raises:
        OutputExistsError: somebody took the run; says who.
    """
    key, moment = (store, run, owner.id), time.monotonic()
    if not now and moment - _LOOKED.get(key, -BEAT_S) < BEAT_S:
        return
    if _still_owns(store, run, owner):
        _LOOKED[key] = moment
        return
    current = current_owner(store, run)
    if current is None or (current.id != owner.id and current.id != "unknown") or current.epoch != owner.epoch:
        by = current.words() if current else "somebody who removed it"
        raise OutputExistsError(
            f"{store}: the run {run!r} was taken over by {by}; expected: {owner.words()}; "
            f"to fix: nothing, this process stops and the other goes on"
        )
    _LOOKED[key] = moment
