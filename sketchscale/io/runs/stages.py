"""What a driver notes about the stages of a run: how many tasks there are, and results of thousands in one object.

    <root>/stage/<stage>/plan.json    {"total": tasks}, written when the stage starts
    <root>/stage/<stage>/00000.gz     results of the first 10,000 tasks that ended, sorted, and so on
    <root>/stage/<stage>/end.gz       those of the rest; there when every task is done

Workers record every task by itself (`io.ledger`), and these objects hold the same once more, so that a stage of a
million tasks is resumed by a hundred reads and at most some 10,000 records. An object begins with a line that names the
fingerprint of the run; gzip's checksum covers it whole. One that is damaged or of another run does not count: then the
records do.
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
    """Each key with its bytes, in order; 32 requests at a time where the store is not a folder."""
    if is_local(store):
        yield from ((key, get_blob(store, key)) for key in keys)
        return
    yield from ahead(lambda key: (key, get_blob(store, key)), keys, at_once=_AT_ONCE)


class StageParts:
    """The objects of one stage.

    Attributes:
        results: what they hold, by key.
        ended: whether every task of the stage is among them.
        count: how many full objects there are; also the number of the next.
    """

    def __init__(self, store: str, root: str, stage: str, identity: str) -> None:
        self.store, self.folder, self.identity = store, f"{root}/stage/{stage}", identity
        self.results: dict[str, Json] = {}
        self.ended, self.count = False, 0
        self._lines: list[str] = []

    def read(self) -> None:
        """Fill in what is there: one read for a stage of up to 10,000 tasks that ended."""
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
        """Say how many tasks the stage has."""
        put_blob(self.store, f"{self.folder}/plan.json", json.dumps({"total": total}).encode())

    def add(self, key: str, result: Json) -> None:
        """Note one more result; every 10,000 are written."""
        self._lines.append(json.dumps([key, result], sort_keys=True))
        if len(self._lines) >= PART:
            self._write(f"{self.count:05d}", {})
            self.count += 1

    def end(self, total: int) -> None:
        """Write the rest, and that it is all."""
        self._write("end", {"parts": self.count, "total": total})

    def _write(self, name: str, header: Mapping[str, int]) -> None:
        text = json.dumps({"of": self.identity, **header}) + "\n[" + ",\n".join(sorted(self._lines)) + "]"
        put_blob(self.store, f"{self.folder}/{name}.gz", gzip.compress(text.encode(), 1, mtime=0))
        self._lines = []

    def _unpack(self, data: bytes | None) -> tuple[dict[str, int], dict[str, Json]]:
        """Header and results; nothing where the object is absent, damaged, or of another run."""
        if data is None:
            return {}, {}
        try:
            header, _, lines = gzip.decompress(data).partition(b"\n")
            named, results = json.loads(header), dict(json.loads(lines))
        except (OSError, EOFError, ValueError, TypeError, zlib.error):
            return {}, {}
        return (named, results) if named.get("of") == self.identity else ({}, {})
