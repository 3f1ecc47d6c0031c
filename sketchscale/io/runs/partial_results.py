"""Store the partial results of tasks: named arrays in one object, small compared to the pixels."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError
from sketchscale.io.stores.blobs import get_blob, put_blob

__all__ = ["get_arrays", "put_arrays"]


def put_arrays(store: str, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write named arrays as one object (npz, uncompressed, each entry with a CRC-32); equal arrays give equal bytes.

    Args:
        arrays: of any shape and numeric dtype; no Python objects.

    >>> put_arrays("memory://doc-arrays", "block.npz", {"ids": np.arange(3)})
    >>> get_arrays("memory://doc-arrays", "block.npz")["ids"].tolist()
    [0, 1, 2]
    """
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{name: np.asarray(values) for name, values in sorted(arrays.items())})
    put_blob(store, key, buffer.getvalue())


def get_arrays(store: str, key: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that `put_arrays` wrote, after checking every checksum.

    Raises:
        InputError: absent or damaged.
    """
    data = get_blob(store, key)
    if data is None:
        raise InputError(f"{store}/{key} is absent; expected: the arrays a task wrote; to fix: run the stage again")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"{store}/{key} is damaged ({error}); expected: the arrays a task wrote; to fix: run the stage again"
        ) from error
