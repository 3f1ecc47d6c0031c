"""Read through fsspec what obstore does not support, with the same retries.

fsspec names the package that a file system needs, and the error repeats it if the package is missing. Nothing is
written through fsspec, because its file systems have no common put-if-absent.
"""

from __future__ import annotations

import re
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from sketchscale.errors import InputError, MissingDataError, SetupError
from sketchscale.io.stores.buckets import split_bucket
from sketchscale.io.stores.retries import persist, within
from sketchscale.io.stores.settings import storage_settings

__all__ = ["FallbackStore", "open_fallback"]


class FallbackStore(WrapperStore[Store]):
    """A store with retries within a deadline; what seems absent is requested twice."""

    def __init__(self, store: Store, address: str = "") -> None:
        super().__init__(store)
        self.address = address

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return an object or a range of it; None if it is absent."""

        async def ask(seconds: float) -> Buffer | None:
            return await within(seconds, self._store.get(key, prototype, byte_range))

        name = f"{self.address}/{key}"
        found = await persist(name, ask)
        return found if found is not None else await persist(name, ask)

    async def exists(self, key: str) -> bool:
        """Return whether an object exists."""

        async def ask(seconds: float) -> bool:
            return await within(seconds, self._store.exists(key))

        name = f"{self.address}/{key}"
        return await persist(name, ask) or await persist(name, ask)

    async def stamp(self, key: str) -> str:
        """Return what changes when a file is written, as far as its file system reports it: size, time, checksum."""
        store: Any = self._store
        return str(await store.fs._info(f"{store.path}/{key}" if store.path else key))


def open_fallback(address: str) -> FallbackStore:
    """Open the store behind fsspec+<scheme>://..., or behind any scheme that only fsspec supports.

    Raises:
        InputError: a password in the address.
        MissingDataError: the file that a chain reads does not exist.
        SetupError: the package for this scheme is missing or does not start.
    """
    url = address.removeprefix("fsspec+")
    for part in url.split("::"):  # an address is written into results, so it must not hold credentials
        scheme, _, rest = part.partition("://")
        if scheme in ("s3", "gs", "az"):
            split_bucket(part)
        elif scheme != "github" and re.match(r"[^/@]*:[^/@]*@", rest):  # github://owner:name@branch has none
            raise InputError.of(
                found=f"an address of {scheme}:// with a password",
                expected=f"{scheme}://[user@]host/path",
                fix="take it out; credentials come from the environment or from fsspec's configuration",
            )
    endpoint = storage_settings().endpoint
    options = {"s3": {"endpoint_url": endpoint}} if endpoint and "s3" in re.split(r"://|::", url) else {}
    try:
        store: Any = FsspecStore.from_url(url, read_only=True, storage_options=options)
    except ImportError as error:
        fix = _EXTRAS.get(url.partition("://")[0]) or _words(error)
        raise SetupError(f"{address} needs a package that is not installed; to fix: {fix}") from error
    except FileNotFoundError as error:
        raise MissingDataError(f"{address} does not exist ({_words(error)}); to fix: check the path") from error
    except Exception as error:  # each file system raises its own types; all mean the same here
        fix = "see its name, the network and credentials"
        raise SetupError(f"{address} cannot be opened ({_words(error)}); to fix: {fix}") from error
    return FallbackStore(store, address)


_EXTRAS = {"s3": "pip install 'sketchscale[s3]'"}


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
