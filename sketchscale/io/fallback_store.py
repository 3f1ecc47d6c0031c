"""What obstore does not speak, or should not, through fsspec: to read, with the same patience.

There is no put-if-absent that all of fsspec's file systems agree on, so nothing is written this way.
"""

from __future__ import annotations

from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from sketchscale.errors import SetupError
from sketchscale.io.buckets import split_bucket
from sketchscale.io.patience import persist, within

__all__ = ["FallbackStore", "open_fallback"]


class FallbackStore(WrapperStore[Store]):
    """A store that is asked again within a deadline, and twice for what is absent."""

    def __init__(self, store: Store, address: str = "") -> None:
        super().__init__(store)
        self.address = address

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        async def ask(seconds: float) -> Buffer | None:
            return await within(seconds, self._store.get(key, prototype, byte_range))

        name = f"{self.address}/{key}"
        found = await persist(name, ask)
        return found if found is not None else await persist(name, ask)

    async def exists(self, key: str) -> bool:
        async def ask(seconds: float) -> bool:
            return await within(seconds, self._store.exists(key))

        name = f"{self.address}/{key}"
        return await persist(name, ask) or await persist(name, ask)


def open_fallback(address: str) -> FallbackStore:
    """The store behind fsspec+<scheme>://...

    Raises:
        SetupError: the package for this scheme is missing, or refuses to start.
    """
    url = address.removeprefix("fsspec+")
    split_bucket(url)  # no credentials in it
    try:
        store: Any = FsspecStore.from_url(url, read_only=True)
    except (ImportError, ValueError) as error:
        words = " ".join(str(error).split())[:120]
        raise SetupError(f"{address} cannot be opened ({words}); to fix: pip install 'sketchscale[s3]'") from error
    return FallbackStore(store, address)
