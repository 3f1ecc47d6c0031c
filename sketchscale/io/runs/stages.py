"""Notes of a driver about the stages of a run: the number of tasks, and the results of thousands in one object.

    <root>/stage/<stage>/plan.json    {"total": tasks}, written when the stage starts
    <root>/stage/<stage>/00000.gz     results of the first 10,000 tasks that ended, sorted, and so on
    <root>/stage/<stage>/end.gz       results of the rest; exists when every task is done

Workers record every task separately (`runs.ledger`). These objects repeat the results, so that a stage of a million
tasks is resumed by a hundred reads and at most about 10,000 records. The first line of an object names the fingerprint
of the run, and the checksum of gzip covers all of it. An object that is damaged or of another run is ignored; then the
records count.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping

from sketchscale.engine.plan import Json
from sketchscale.io.stores.addresses import is_local
from sketchscale.io.stores.blobs import get_blob, list_blobs, put_blob
from sketchscale.io.stores.concurrent import ahead

__all__ = ["PART", "StageParts", "read_many"]

PART = 10_000
_AT_ONCE = 32


def read_many(store: str, keys: Iterable[str]) -> Iterable[tuple[str, bytes | None]]:
    """Yield each key with its bytes, in order; 32 requests at a time unless the store is a folder."""
    if is_local(store):
        yield from ((key, get_blob(store, key)) for key in keys)
        return
    yield from ahead(lambda key: (key, get_blob(store, key)), keys, at_once=_AT_ONCE)


class StageParts:
    """The objects of one stage.

    Attributes:
        results: by key of the task.
        ended: whether they include every task of the stage.
        count: number of full objects, and so the name of the next.
    """

    def __init__(self, store: str, root: str, stage: str, identity: str) -> None:
        self.store, self.folder, self.identity = store, f"{root}/stage/{stage}", identity
        self.results: dict[str, Json] = {}
        self.ended, self.count = False, 0
        self._lines: list[str] = []

    def read(self) -> None:
        """Read the stored results: one read for a complete stage of up to 10,000 tasks."""
        header, results = self._unpack(get_blob(self.store, f"{self.folder}/end.gz"))
        parts = header.get("parts", -1)
        keys = [f"{self.folder}/{n:05d}.gz" for n in range(parts)] if header else self._listed()
        for key, data in read_many(self.store, keys):
            self.results |= self._unpack(data)[1]
            self.count = max(self.count, int(key[-8:-3]) + 1)
        self.results |= results
        self.ended = len(self.results) == header.get("total")

    def _listed(self) -> list[str]:
        return [key for key in list_blobs(self.store, self.folder) if key[-8:-3].isdigit()]

    def plan(self, total: int) -> None:
        """Note how many tasks the stage has."""
        put_blob(self.store, f"{self.folder}/plan.json", json.dumps({"total": total}).encode())

    def add(self, key: str, result: Json) -> None:
        """Add a result; write an object every 10,000."""
        self._lines.append(json.dumps([key, result], sort_keys=True))
        if len(self._lines) >= PART:
            self._write(f"{self.count:05d}", {})
            self.count += 1

    def end(self, total: int) -> None:
        """Write the rest and mark the stage as complete."""
        self._write("end", {"parts": self.count, "total": total})

    def _write(self, name: str, header: Mapping[str, int]) -> None:
        text = json.dumps({"of": self.identity, **header}) + "\n[" + ",\n".join(sorted(self._lines)) + "]"
        put_blob(self.store, f"{self.folder}/{name}.gz", gzip.compress(text.encode(), 1, mtime=0))
        self._lines = []

    def _unpack(self, data: bytes | None) -> tuple[dict[str, int], dict[str, Json]]:
        """Return header and results; both are empty if the object is absent, damaged, or of another run."""
        if data is None:
            return {}, {}
        try:
            header, _, lines = gzip.decompress(data).partition(b"\n")
            named, results = json.loads(header), dict(json.loads(lines))
        except (OSError, EOFError, ValueError, TypeError, zlib.error):
            return {}, {}
        return (named, results) if named.get("of") == self.identity else ({}, {})
