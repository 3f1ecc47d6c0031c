"""The ledger: which tasks of a run are done, what they returned, and what was committed. In storage, beside the output.

    <store>/.sketchscale/zarr.json, .zarray                empty arrays, for readers of Zarr: see MARKS
    <store>/.sketchscale/<run>/run.json                    what the run is made of: the fingerprint
    <store>/.sketchscale/<run>/owner/...                   which process writes to it: `io.owner`
    <store>/.sketchscale/<run>/ledger/<stage>/<key>.json   one finished task and its result
    <store>/.sketchscale/<run>/stage/<stage>/...           totals, and results of thousands of tasks: `io.stages`
    <store>/.sketchscale/<run>/commit/<name>.json          put if absent: exactly one writer commits
    <store>/.sketchscale/<run>/scratch/...                 arrays between stages

Guarantees:
  * a record is written after the task's output, atomically, and synced to disk: what is recorded is there. The worker
    that ran the task writes it, so records cost the driver nothing;
  * a record names the run's fingerprint and carries a checksum; one that is damaged or of another run does not count,
    so its task runs again (tasks are idempotent);
  * a run with another fingerprint is refused, and the fields that differ are named;
  * one process at a time owns a run; a second one is refused with the name of the first, whoever of them was faster;
  * temporary files of killed writers are removed when the ledger is opened, by the owner.
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
from sketchscale.io.runs.lease import Claim, Owner, check_owner, claim_of, current_owner, take
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
"""Commits that end a run: of results on an image, and of the image itself."""

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
"""What makes `.sketchscale` an empty array of either format, by name.

Readers of Zarr look at all that lies in a group, and warn of what they do not know; they do not look into arrays. A
group would not do: they would look into it, and version 2 has no group that says it is empty.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLedger:
    """The ledger of one run; implements `engine.plan.SharedLedger`. Picklable: addresses only.

    As a context manager it gives the run up at the end, so that another process may take it.

    Attributes:
        store: address of the store that holds the output.
        run: name of the run.
        identity: SHA-256 of the fingerprint.
        scratch_root: folder or address for arrays between stages; beside the output when empty.
        owner: on whose behalf it is written; None for one to look at.
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
        """Address of a store for arrays between stages; goes with `clear_scratch`. Of this run of this store alone."""
        if self.scratch_root:
            owner = hashlib.sha256(f"{self.store} {self.identity}".encode()).hexdigest()[:16]
            return join_address(self.scratch_root, f"sketchscale-{self.run}-{owner}")
        if self.store.startswith("memory://"):
            return f"{self.store}.sketchscale.{self.run}.scratch"
        return join_address(self.store, f"{_root(self.run)}/scratch")

    def finished(self, stage: str) -> dict[str, Json]:
        """Results of the tasks of a stage that are done, by key."""
        parts = StageParts(self.store, _root(self.run), stage, self.identity)
        parts.read()
        return parts.results if parts.ended else parts.results | self._records(stage, parts.results)

    def begin(self, stage: str, total: int) -> StageLog:
        """Say that a stage of so many tasks starts, or goes on; what the driver then notes."""
        return StageLog(self, stage, total)

    def check(self) -> None:
        """Go on only while the run belongs to its owner; asks the store at most once in 3 s.

        Raises:
            OutputExistsError: somebody took the run; says who.
        """
        if self.owner is not None:
            check_owner(self.store, self.run, self.owner)

    def record(self, stage: str, key: str, result: Json) -> None:
        """Say that a task is done. Called after its output is written; saying it twice is harmless."""
        self.check()
        put_blob(self.store, f"{_root(self.run)}/ledger/{stage}/{key}.json", self._sealed(result))

    def commit(self, name: str, payload: Json) -> bool:
        """Publish one object for good.

        Returns:
            False when it was committed before, by this or another run; then nothing is written.

        Raises:
            OutputExistsError: somebody took the run; says who.
        """
        if self.owner is not None:
            check_owner(self.store, self.run, self.owner, now=True)
        return put_blob_if_absent(self.store, f"{_root(self.run)}/commit/{name}.json", self._sealed(payload))

    def committed(self, name: str) -> Json | None:
        """What was committed under a name, None when nothing was.

        Raises:
            InputError: it is there and damaged.
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
        """Remove the run, as if it had never started; what it wrote elsewhere stays."""
        self.clear_scratch()
        _forget(self.store, self.run)
        claim = claim_of(self.store, self.run)
        if claim is not None:
            claim.forget()
        _unmark(self.store)

    def clear_scratch(self) -> None:
        """Remove the arrays between stages; those of the result stay."""
        if not self.scratch.startswith("memory://"):
            delete_blobs(*self.scratch.rpartition("/")[::2])
            return
        for key in list_blobs(self.scratch, ""):
            delete_blobs(self.scratch, key.partition("/")[0])

    def _sealed(self, result: Json) -> bytes:
        text = json.dumps(result, sort_keys=True, allow_nan=True)
        return json.dumps({"of": self.identity, "crc32": zlib.crc32(text.encode()), "result": result}).encode()

    def _records(self, stage: str, known: Container[str]) -> dict[str, Json]:
        """Results that workers recorded, but for those that are known."""
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
        """What was sealed; None when it is damaged, gone, or of another run."""
        try:
            payload = parse_json(data or b"", key)
        except InputError:
            return None
        text = json.dumps(payload.get("result"), sort_keys=True, allow_nan=True)
        whole = payload.get("of") == self.identity and payload.get("crc32") == zlib.crc32(text.encode())
        return payload if whole and "result" in payload else None


class StageLog:
    """What the driver notes about one stage of a run; implements `engine.plan.StageNotes`."""

    def __init__(self, ledger: StoreLedger, stage: str, total: int) -> None:
        self.ledger, self.stage, self.total = ledger, stage, total
        self.parts = StageParts(ledger.store, _root(ledger.run), stage, ledger.identity)
        self.done, self.since, self.before = 0, time.monotonic(), 0
        self.finished: Mapping[str, Json] = self._found(claim_of(ledger.store, ledger.run))
        self.done = self.before = len(self.finished)

    def _found(self, claim: Claim | None) -> Mapping[str, Json]:
        """What is done already. A stage of a run that began a moment ago is not looked for."""
        new = claim is not None and claim.fresh and self.stage not in claim.begun
        if claim is not None:
            claim.begun.add(self.stage)
            claim.progress = self._progress
        if not new:
            self.parts.read()
        if not self.parts.ended:
            self.parts.plan(self.total)
        records = {} if new or self.parts.ended else self.ledger._records(self.stage, self.parts.results)
        for key, result in records.items():
            self.parts.add(key, result)
        return self.parts.results | records if records else self.parts.results

    def add(self, key: str, result: Json) -> None:
        """A task is done, and recorded by its worker."""
        self.ledger.check()
        self.parts.add(key, result)
        self.done += 1

    def end(self) -> None:
        """All tasks are done: the next resume reads this stage at once."""
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
    """Start a run, or continue one, as its only owner until the ledger's `with` block or the process ends.

    Args:
        store: address of the store that holds the output.
        run: names the run inside the store: one path part, such as "segment-cells".
        fingerprint: what the result depends on: code version, configuration, model, identity of the input.
        resume: continue what is there (start when nothing is).
        overwrite: forget what is there, when nobody is writing to it.
        outputs: further prefixes of the store that only this run writes to; their stray temporary files go too.
        scratch: see `StoreLedger.scratch_root`.
        clear: removes what the run wrote elsewhere; called before one that is overwritten starts again.

    Raises:
        OutputExistsError: the run is there and neither flag was given, or somebody is at work on it; says who.
        ResumeError: it is there and was made of something else; names the fields.

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
        _sweep_strays(store, run, outputs)
        if overwrite or not there:  # before the run's record: a run that is known is marked
            _mark(store)
        claim.fresh = put_blob_if_absent(store, record, text.encode())
    except BaseException as error:
        claim.release(silently=isinstance(error, UnreachableError))
        raise
    identity = hashlib.sha256(text.encode()).hexdigest()
    return StoreLedger(store=store, run=run, identity=identity, scratch_root=scratch, owner=claim.owner)


def _mark(store: str) -> None:
    for name, document in MARKS.items():
        put_blob_if_absent(store, f".sketchscale/{name}", document)


def _unmark(store: str) -> None:
    """Without runs there is nothing to mark."""
    if not {key.split("/")[1] for key in list_blobs(store, ".sketchscale")} - MARKS.keys():
        for name in MARKS:
            delete_blob(store, f".sketchscale/{name}")


def _sweep_strays(store: str, run: str, outputs: Sequence[str]) -> None:
    """Temporary files of killed writers; beside a finished result there are none of ours, perhaps some of others."""
    finished = any(get_blob(store, f"{_root(run)}/commit/{name}.json") is not None for name in FINAL)
    for prefix in (_root(run), *(() if finished else outputs)):
        sweep_partials(store, prefix)
    for group in {"", *(prefix.rpartition("/")[0] for prefix in outputs)}:
        sweep_dead(store, group)


def reopen_ledger(store: str, run: str) -> StoreLedger:
    """The ledger of a run that is there, to look at; nothing is checked against it and nothing is swept.

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
    """What a run that is there was made of; None where there is none.

    Raises:
        InputError: its record is damaged.
    """
    record = f"{_root(run)}/run.json"
    data = get_blob(store, record)
    found = None if data is None else parse_json(data, f"{store}/{record}").get("fingerprint")
    return found if isinstance(found, dict) else None


def _forget(store: str, run: str) -> None:
    """Delete a run but for its owners; its record goes last, so that a kill in between leaves one that is known."""
    for part in ("ledger", "stage", "commit", "scratch"):
        delete_blobs(store, f"{_root(run)}/{part}")
    delete_blob(store, f"{_root(run)}/run.json")


def _check_same(store: str, run: str, record: Mapping[str, Json], fingerprint: Mapping[str, str], resume: bool) -> None:
    if not resume:
        raise OutputExistsError(
            f"{store}: the run {run!r} is there already{_by(store, run)}; expected: a new one; "
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


def _by(store: str, run: str) -> str:
    owner = current_owner(store, run)
    return f", written by {owner.words()}" if owner else ""
