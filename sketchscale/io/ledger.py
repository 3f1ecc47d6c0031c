"""The ledger: which tasks of a run are done, what they returned, and what was committed. In storage, beside the output.

    <store>/.sketchscale/<run>/run.json                    what the run is made of: the fingerprint
    <store>/.sketchscale/<run>/ledger/<stage>/<key>.json   one finished task and its result
    <store>/.sketchscale/<run>/commit/<name>.json          put if absent: exactly one writer commits
    <store>/.sketchscale/<run>/scratch/...                 arrays between stages

Guarantees:
  * a record is written after the task's output, atomically, and synced to disk: what is recorded is there;
  * a record names the run's fingerprint and carries a checksum; one that is damaged or of another run does not count,
    so its task runs again (tasks are idempotent);
  * a run with another fingerprint is refused, and the fields that differ are named;
  * temporary files of killed writers are removed when the ledger is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sketchscale.engine.base import Json
from sketchscale.errors import InputError, MissingDataError, OutputExistsError, ResumeError
from sketchscale.io.blobs import (
    check_key,
    delete_blobs,
    get_blob,
    list_blobs,
    put_blob,
    put_blob_if_absent,
    sweep_dead,
)
from sketchscale.io.blobs import sweep_partials as _sweep
from sketchscale.io.documents import parse_json
from sketchscale.io.store import is_local, join_address

__all__ = ["StoreLedger", "open_ledger", "reopen_ledger"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLedger:
    """The ledger of one run; implements `engine.base.Ledger`. Picklable: addresses only.

    Attributes:
        store: address of the store that holds the output.
        run: name of the run.
        identity: SHA-256 of the fingerprint.
        scratch_root: folder or address for arrays between stages; beside the output when empty.
    """

    store: str
    run: str
    identity: str
    scratch_root: str = ""

    @property
    def scratch(self) -> str:
        """Address of a store for arrays between stages; goes with `clear_scratch`. Of this run of this store alone."""
        if self.scratch_root:
            store = os.path.abspath(self.store) if is_local(self.store) else self.store
            owner = hashlib.sha256(f"{store} {self.identity}".encode()).hexdigest()[:16]
            return join_address(self.scratch_root, f"sketchscale-{self.run}-{owner}")
        if self.store.startswith("memory://"):
            return f"{self.store}.sketchscale.{self.run}.scratch"
        return join_address(self.store, f"{_root(self.run)}/scratch")

    def finished(self, stage: str) -> dict[str, Json]:
        """Results of the tasks of a stage that are done, by key; one listing and one small read each."""
        prefix = f"{_root(self.run)}/ledger/{stage}"
        results = {}
        for blob in list_blobs(self.store, prefix):
            payload = self._read(blob)
            if payload is not None:
                results[blob.removeprefix(f"{prefix}/").removesuffix(".json")] = payload["result"]
        return results

    def record(self, stage: str, key: str, result: Json) -> None:
        """Say that a task is done. Called after its output is written; saying it twice is harmless."""
        put_blob(self.store, f"{_root(self.run)}/ledger/{stage}/{key}.json", self._sealed(result))

    def commit(self, name: str, payload: Json) -> bool:
        """Publish one object for good.

        Returns:
            False when it was committed before, by this or another run; then nothing is written.
        """
        return put_blob_if_absent(self.store, f"{_root(self.run)}/commit/{name}.json", self._sealed(payload))

    def committed(self, name: str) -> Json | None:
        """What was committed under a name, None when nothing was.

        Raises:
            InputError: it is there and damaged.
        """
        key = f"{_root(self.run)}/commit/{name}.json"
        if get_blob(self.store, key) is None:
            return None
        payload = self._read(key)
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

    def clear_scratch(self) -> None:
        """Remove the arrays between stages; those of the result stay."""
        if not self.scratch.startswith("memory://"):
            store, _, folder = self.scratch.rpartition("/")
            delete_blobs(store, folder)
            return
        for key in list_blobs(self.scratch, ""):
            delete_blobs(self.scratch, key.partition("/")[0])

    def _sealed(self, result: Json) -> bytes:
        text = json.dumps(result, sort_keys=True, allow_nan=True)
        return json.dumps({"of": self.identity, "crc32": zlib.crc32(text.encode()), "result": result}).encode()

    def _read(self, key: str) -> dict[str, Json] | None:
        """A sealed record; None when it is damaged, gone, or of another run."""
        data = get_blob(self.store, key)
        try:
            payload = parse_json(data or b"", key)
        except InputError:
            return None
        text = json.dumps(payload.get("result"), sort_keys=True, allow_nan=True)
        whole = payload.get("of") == self.identity and payload.get("crc32") == zlib.crc32(text.encode())
        return payload if whole and "result" in payload else None


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
) -> StoreLedger:
    """Start a run, or continue one.

    Args:
        store: address of the store that holds the output.
        run: names the run inside the store: one path part, such as "segment-cells".
        fingerprint: what the result depends on: code version, configuration, model, identity of the input.
        resume: continue what is there (start when nothing is).
        overwrite: forget what is there.
        outputs: further prefixes of the store that only this run writes to; their stray temporary files go too.
        scratch: see `StoreLedger.scratch_root`.

    Raises:
        OutputExistsError: the run is there and neither flag was given.
        ResumeError: it is there and was made of something else; names the fields.

    >>> ledger = open_ledger("memory://doc-ledger", "demo", {"model": "a"})
    >>> ledger.record("predict", "000.000", 7)
    >>> open_ledger("memory://doc-ledger", "demo", {"model": "a"}, resume=True).finished("predict")
    {'000.000': 7}
    """
    if "/" in check_key(run, what="run name"):
        raise InputError.of(found=f"run name {run!r}", expected="a name without '/'", fix="choose another name")
    if resume and overwrite:
        raise InputError.of(found="--resume and --overwrite", expected="one of them", fix="choose one")
    for prefix in (_root(run), *outputs):
        _sweep(store, prefix)
    for group in {"", *(prefix.rpartition("/")[0] for prefix in outputs)}:
        sweep_dead(store, group)
    record = f"{_root(run)}/run.json"
    old = get_blob(store, record)
    if old is not None and overwrite:
        _forget(store, run)
        old = None
    text = json.dumps({"fingerprint": dict(fingerprint)}, sort_keys=True, indent=2)
    if old is None and not put_blob_if_absent(store, record, text.encode()):
        raise OutputExistsError(f"{store}: another run {run!r} started just now; to fix: wait for it, or --resume")
    if old is not None:
        _check_same(store, run, parse_json(old, f"{store}/{record}"), fingerprint, resume)
    identity = hashlib.sha256(text.encode()).hexdigest()
    return StoreLedger(store=store, run=run, identity=identity, scratch_root=scratch)


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


def _forget(store: str, run: str) -> None:
    """Delete a run; its record goes last, so that a kill in between leaves a run that is known to be there."""
    for part in ("ledger", "commit", "scratch"):
        delete_blobs(store, f"{_root(run)}/{part}")
    delete_blobs(store, _root(run))


def _check_same(store: str, run: str, record: Mapping[str, Json], fingerprint: Mapping[str, str], resume: bool) -> None:
    if not resume:
        raise OutputExistsError(
            f"{store}: the run {run!r} is there already; expected: a new one; "
            f"to fix: --resume to continue it, --overwrite to start again"
        )
    old = record.get("fingerprint")
    old = old if isinstance(old, dict) else {}
    differing = [n for n in sorted({*old, *fingerprint}) if old.get(n) != fingerprint.get(n)]
    if differing:
        told = ", ".join(f"{n} ({_short(old.get(n))} -> {_short(fingerprint.get(n))})" for n in differing)
        raise ResumeError(
            f"{store}: the run {run!r} was made from something else: {told}; expected: the same; "
            f"to fix: restore what changed, or --overwrite to start again"
        )


def _short(value: object) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."
