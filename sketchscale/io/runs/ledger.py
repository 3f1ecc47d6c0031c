"""The ledger of a run: which tasks are done, what they returned, and what was committed. Stored next to the output.

    <store>/.sketchscale/zarr.json, .zarray                empty arrays, for readers of Zarr: see MARKS
    <store>/.sketchscale/<run>/run.json                    what the run depends on: the fingerprint
    <store>/.sketchscale/<run>/owner/...                   which process writes to it: `runs.lease`
    <store>/.sketchscale/<run>/ledger/<stage>/<key>.json   one finished task and its result
    <store>/.sketchscale/<run>/stage/<stage>/...           totals, and results of thousands of tasks: `runs.stages`
    <store>/.sketchscale/<run>/commit/<name>.json          put if absent: exactly one writer commits
    <store>/.sketchscale/<run>/scratch/...                 arrays between stages

Guarantees:
  * a record is written after the output of its task, atomically, and synced to disk, so recorded output exists. The
    worker that ran the task writes it, so records cost the driver nothing;
  * a record names the fingerprint of the run and has a checksum. A record that is damaged or of another run is ignored,
    so its task runs again (tasks are idempotent);
  * a run with another fingerprint is refused, and the error names the fields that differ;
  * one process at a time owns a run; a second one is refused with the name of the first;
  * the owner removes temporary files of killed writers when it opens the ledger.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from sketchscale.engine.plan import Json
from sketchscale.errors import InputError, MissingDataError, OutputExistsError, ResumeError, UnreachableError
from sketchscale.io.runs.differences import differences
from sketchscale.io.runs.lease import Owner, check_owner, claim_of, current_owner, take
from sketchscale.io.runs.stages import StageParts, read_many
from sketchscale.io.stores.addresses import absolute_address, join_address
from sketchscale.io.stores.blobs import (
    check_key,
    delete_blob,
    delete_blobs,
    get_blob,
    list_blobs,
    put_blob,
    put_blob_if_absent,
    sweep_dead,
    sweep_partials,
)
from sketchscale.io.stores.documents import parse_json

__all__ = ["FINAL", "MARKS", "StoreLedger", "open_ledger", "reopen_ledger", "stored_fingerprint"]

FINAL = ("result", "image")
"""Names of the commits that end a run: results on an image, and an image itself."""

_ABOUT = {"about": "Records of the runs of sketchscale, no image data"}
MARKS: dict[str, bytes] = {
    "zarr.json": json.dumps({
        "zarr_format": 3, "node_type": "array", "attributes": _ABOUT, "shape": [0], "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0, "codecs": [{"name": "bytes"}],
    }).encode(),
    ".zarray": json.dumps({
        "zarr_format": 2, "shape": [0], "chunks": [1], "dtype": "|u1", "compressor": None, "fill_value": 0,
        "order": "C", "filters": None,
    }).encode(),
}  # fmt: skip
"""Documents, by name, that make `.sketchscale` an empty array of either format.

Readers of Zarr look at everything in a group and warn of unknown content, but they do not look into arrays. They would
look into a group.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLedger:
    """The ledger of one run; implements `engine.plan.SharedLedger`. Picklable: addresses only.

    As a context manager it releases the run at the end, so that another process may take it.

    Attributes:
        store: address of the store with the output.
        run: name of the run.
        identity: SHA-256 of the fingerprint.
        scratch_root: folder or address for arrays between stages; if empty, they are next to the output.
        owner: the process that writes; None for a ledger that is only read.
    """

    store: str
    run: str
    identity: str
    scratch_root: str = ""
    owner: Owner | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        claim = claim_of(self.store, self.run)
        if claim is not None:
            claim.release(silently=isinstance(error, UnreachableError))

    @property
    def scratch(self) -> str:
        """Address of a store for arrays between stages, only for this run of this store; see `clear_scratch`."""
        if self.scratch_root:
            owner = hashlib.sha256(f"{self.store} {self.identity}".encode()).hexdigest()[:16]
            return join_address(self.scratch_root, f"sketchscale-{self.run}-{owner}")
        if self.store.startswith("memory://"):
            return f"{self.store}.sketchscale.{self.run}.scratch"
        return join_address(self.store, f"{_root(self.run)}/scratch")

    def finished(self, stage: str) -> dict[str, Json]:
        """Return the results of the finished tasks of a stage, by key."""
        parts = StageParts(self.store, _root(self.run), stage, self.identity)
        parts.read()
        return parts.results if parts.ended else parts.results | self._records(stage, parts.results)

    def begin(self, stage: str, total: int) -> StageLog:
        """Start or continue a stage of `total` tasks; return the notes of the driver."""
        return StageLog(self, stage, total)

    def check(self) -> None:
        """Check that the run still belongs to its owner; reads the store at most once in 3 s.

        Raises:
            OutputExistsError: another process took the run; names it.
        """
        if self.owner is not None:
            check_owner(self.store, self.run, self.owner)

    def record(self, stage: str, key: str, result: Json) -> None:
        """Record a finished task, after its output is written. Idempotent."""
        self.check()
        put_blob(self.store, f"{_root(self.run)}/ledger/{stage}/{key}.json", self._sealed(result))

    def commit(self, name: str, payload: Json) -> bool:
        """Publish one object permanently; return False, and write nothing, if it was committed before.

        Raises:
            OutputExistsError: another process took the run; names it.
        """
        if self.owner is not None:
            check_owner(self.store, self.run, self.owner, now=True)
        return put_blob_if_absent(self.store, f"{_root(self.run)}/commit/{name}.json", self._sealed(payload))

    def committed(self, name: str) -> Json | None:
        """Return what was committed under a name; None if nothing was.

        Raises:
            InputError: the commit is damaged.
        """
        key = f"{_root(self.run)}/commit/{name}.json"
        data = get_blob(self.store, key)
        if data is None:
            return None
        payload = self._open(data, key)
        if payload is None:
            raise InputError.of(
                found=f"{self.store}/{key} is damaged or of another run",
                expected="an intact commit",
                fix="run again with --overwrite",
            )
        return payload["result"]

    def forget(self) -> None:
        """Delete the run as if it had never started; its output elsewhere stays."""
        self.clear_scratch()
        _forget(self.store, self.run)
        claim = claim_of(self.store, self.run)
        if claim is not None:
            claim.forget()
        if not {key.split("/")[1] for key in list_blobs(self.store, ".sketchscale")} - MARKS.keys():
            for name in MARKS:  # which are useless without runs
                delete_blob(self.store, f".sketchscale/{name}")

    def clear_scratch(self) -> None:
        """Delete the arrays between stages."""
        if not self.scratch.startswith("memory://"):
            delete_blobs(*self.scratch.rpartition("/")[::2])
            return
        for key in list_blobs(self.scratch, ""):
            delete_blobs(self.scratch, key.partition("/")[0])

    def _sealed(self, result: Json) -> bytes:
        text = json.dumps(result, sort_keys=True, allow_nan=True)
        return json.dumps({"of": self.identity, "crc32": zlib.crc32(text.encode()), "result": result}).encode()

    def _records(self, stage: str, known: Container[str]) -> dict[str, Json]:
        """Return the results that workers recorded, except for known ones."""
        prefix = f"{_root(self.run)}/ledger/{stage}/"
        blobs = list_blobs(self.store, prefix.removesuffix("/"))
        wanted = [blob for blob in blobs if blob.removeprefix(prefix).removesuffix(".json") not in known]
        found = ((blob, self._open(data, blob)) for blob, data in read_many(self.store, wanted))
        return {
            blob.removeprefix(prefix).removesuffix(".json"): payload["result"]
            for blob, payload in found
            if payload is not None
        }

    def _open(self, data: bytes | None, key: str) -> dict[str, Json] | None:
        """Return a sealed payload; None if it is damaged, absent, or of another run."""
        try:
            payload = parse_json(data or b"", key)
        except InputError:
            return None
        text = json.dumps(payload.get("result"), sort_keys=True, allow_nan=True)
        whole = payload.get("of") == self.identity and payload.get("crc32") == zlib.crc32(text.encode())
        return payload if whole and "result" in payload else None


class StageLog:
    """Notes of the driver about one stage of a run; implements `engine.plan.StageNotes`."""

    def __init__(self, ledger: StoreLedger, stage: str, total: int) -> None:
        self.ledger, self.stage, self.total = ledger, stage, total
        self.done, self.since, self.before = 0, time.monotonic(), 0
        claim = claim_of(ledger.store, ledger.run)
        self.parts = StageParts(ledger.store, _root(ledger.run), stage, ledger.identity)
        new = claim is not None and claim.fresh and stage not in claim.begun  # then nothing can be stored yet
        if claim is not None:
            claim.begun.add(stage)
            claim.progress = self._progress
        if not new:
            self.parts.read()
        if not self.parts.ended:
            self.parts.plan(total)
        records = {} if new or self.parts.ended else ledger._records(stage, self.parts.results)
        for key, result in records.items():
            self.parts.add(key, result)
        self.finished: Mapping[str, Json] = self.parts.results | records if records else self.parts.results
        self.done = self.before = len(self.finished)

    def add(self, key: str, result: Json) -> None:
        """Note a task that is done and recorded by its worker."""
        self.ledger.check()
        self.parts.add(key, result)
        self.done += 1

    def end(self) -> None:
        """Note that all tasks are done, so that the next resume reads this stage at once."""
        if not self.parts.ended:
            self.parts.end(self.total)

    def _progress(self) -> dict[str, Json]:
        seconds = max(time.monotonic() - self.since, 1e-3)
        rate = round((self.done - self.before) / seconds, 3)
        return {"stage": self.stage, "done": self.done, "total": self.total, "rate": rate}


def _root(run: str) -> str:
    return f".sketchscale/{run}"


def open_ledger(
    store: str,
    run: str,
    fingerprint: Mapping[str, str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    outputs: Sequence[str] = (),
    scratch: str = "",
    clear: Callable[[], None] | None = None,
) -> StoreLedger:
    """Start or continue a run as its only owner until the `with` block of the ledger or the process ends.

    Args:
        store: address of the store with the output.
        run: name of the run in the store, without slash, such as "segment-cells".
        fingerprint: what the result depends on: code version, configuration, model, identity of the input.
        resume: continue the run if it exists, else start it.
        overwrite: delete the run if it exists and no process is writing to it.
        outputs: more prefixes of the store that only this run writes to; their stray temporary files are removed.
        scratch: see `StoreLedger.scratch_root`.
        clear: deletes the output of the run elsewhere; called before an overwritten run starts again.

    Raises:
        OutputExistsError: the run exists without either flag, or another process is writing to it; names that process.
        ResumeError: the existing run depends on something else; names the fields.

    >>> with open_ledger("memory://doc-ledger", "demo", {"model": "a"}) as ledger:
    ...     ledger.record("predict", "000.000", 7)
    >>> with open_ledger("memory://doc-ledger", "demo", {"model": "a"}, resume=True) as ledger:
    ...     ledger.finished("predict")
    {'000.000': 7}
    """
    if "/" in check_key(run, what="run name"):
        raise InputError.of(found=f"run name {run!r}", expected="a name without '/'", fix="choose another name")
    if resume and overwrite:
        raise InputError.of(found="--resume and --overwrite", expected="one of them", fix="choose one")
    text = json.dumps({"fingerprint": dict(fingerprint)}, sort_keys=True, indent=2)
    record = f"{_root(run)}/run.json"
    store, scratch = absolute_address(store), absolute_address(scratch) if scratch else ""

    def known() -> bool:
        old = get_blob(store, record)
        if old is not None and not overwrite:
            _check_same(store, run, parse_json(old, f"{store}/{record}"), fingerprint, resume)
        return old is not None

    known()  # refused before anything is written
    claim = take(store, run)
    try:
        there = known()
        if there and overwrite:
            _forget(store, run)
        if clear is not None and (overwrite or (not there and claim.owner.epoch > 1)):
            clear()
        # next to a finished result there are no strays of ours, but perhaps some of others
        finished = any(get_blob(store, f"{_root(run)}/commit/{name}.json") is not None for name in FINAL)
        for prefix in (_root(run), *(() if finished else outputs)):
            sweep_partials(store, prefix)
        for group in {"", *(prefix.rpartition("/")[0] for prefix in outputs)}:
            sweep_dead(store, group)
        if overwrite or not there:  # before the record, so that every known run is marked
            for name, document in MARKS.items():
                put_blob_if_absent(store, f".sketchscale/{name}", document)
        claim.fresh = put_blob_if_absent(store, record, text.encode())
    except BaseException as error:
        claim.release(silently=isinstance(error, UnreachableError))
        raise
    identity = hashlib.sha256(text.encode()).hexdigest()
    return StoreLedger(store=store, run=run, identity=identity, scratch_root=scratch, owner=claim.owner)


def reopen_ledger(store: str, run: str) -> StoreLedger:
    """Open the ledger of an existing run to read it; nothing is compared and nothing is removed.

    Raises:
        MissingDataError: no such run.
    """
    data = get_blob(store, f"{_root(run)}/run.json")
    if data is None:
        raise MissingDataError(
            f"{store} has no run {run!r}; expected: one that was started; to fix: sketchscale status"
        )
    return StoreLedger(store=store, run=run, identity=hashlib.sha256(data).hexdigest())


def stored_fingerprint(store: str, run: str) -> dict[str, str] | None:
    """Return the fingerprint of an existing run; None if there is none.

    Raises:
        InputError: its record is damaged.
    """
    record = f"{_root(run)}/run.json"
    data = get_blob(store, record)
    found = None if data is None else parse_json(data, f"{store}/{record}").get("fingerprint")
    return found if isinstance(found, dict) else None


def _forget(store: str, run: str) -> None:
    """Delete a run except its owners. Its record goes last, so that a run that is killed here is still known."""
    for part in ("ledger", "stage", "commit", "scratch"):
        delete_blobs(store, f"{_root(run)}/{part}")
    delete_blob(store, f"{_root(run)}/run.json")


def _check_same(store: str, run: str, record: Mapping[str, Json], fingerprint: Mapping[str, str], resume: bool) -> None:
    if not resume:
        owner = current_owner(store, run)
        writer = f", written by {owner.words()}" if owner else ""
        raise OutputExistsError(
            f"{store}: the run {run!r} is there already{writer}; expected: a new one; "
            f"to fix: --resume to continue it, --overwrite to start again"
        )
    old = record.get("fingerprint")
    old = old if isinstance(old, dict) else {}
    if dict(old) != dict(fingerprint):
        found = differences(old, fingerprint) or "the order or writing of its record"
        raise ResumeError(
            f"{store}: the run {run!r} was made from something else: {found}; expected: the same; "
            f"to fix: restore what changed, or --overwrite to start again"
        )
