"""Read files of torch.save without running any code in them.

A pickle is a program that may call any function of any module. Here every name in it is replaced by one of ours:

    tensors, parameters            numpy arrays, made from the bytes in the file
    numpy arrays and scalars       the same, of plain numbers only
    containers                     dict, list, tuple, str, numbers: unchanged
    everything else                a `Record`: stores the object's state, does nothing

A saved network of any class thus becomes records with arrays, and a pickle that tries to run a command gets an inactive
record instead. Sizes are compared with the file before memory of that size is allocated. Only the zip format is read,
which torch writes since 1.6.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.errors import InputError, MissingDataError

__all__ = ["Record", "read_pickle"]

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_LARGEST = 2**31
"""Largest file that is read, bytes; ten times the largest network of SVETLANA."""


class Record:
    """An object of the file with its `state`; `origin` is the name of its class."""

    origin = ""
    state: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        """Discard items of lists, sets and mappings of unknown classes."""

    def extend(self, items: Any) -> None:
        """See `append`."""

    def add(self, item: Any) -> None:
        """See `append`."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """See `append`."""


class _Array:
    """A numpy array that the pickle fills with shape, dtype and bytes."""

    values: npt.NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _from_bytes(data, dtype, shape, "F" if fortran else "C")


class _Type:
    """A numpy dtype: only plain numbers."""

    def __init__(self, name: str, *_: Any) -> None:
        self.name, self.order = name, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if state[1] in "<>" else "<"

    def dtype(self) -> np.dtype[Any]:
        if self.name[:1] not in "biuf" or not self.name[1:].isdigit():
            raise pickle.UnpicklingError("an array that holds no numbers")
        return np.dtype(self.order + self.name)


def _from_bytes(data: Any, kind: Any, shape: Any, order: Any = "C") -> npt.NDArray[Any]:
    if not isinstance(kind, _Type) or not isinstance(data, bytes) or not all(isinstance(n, int) for n in shape):
        raise pickle.UnpicklingError("an array that holds no numbers")
    return np.frombuffer(data, kind.dtype()).reshape(tuple(shape), order=order).copy()


def _tensor(storage: Any, offset: int, shape: Any, strides: Any, *_: Any) -> npt.NDArray[Any]:
    """Return a copy of a tensor, which must lie within its storage and not be larger."""
    if not isinstance(storage, np.ndarray) or not all(
        isinstance(n, int) and n >= 0 for n in (offset, *shape, *strides)
    ):
        raise pickle.UnpicklingError("a tensor without numbers")
    size, last = 1, offset
    for n, stride in zip(shape, strides, strict=True):
        size, last = size * n, last + (n - 1) * stride
    if size > 0 and (last >= len(storage) or size > len(storage)):
        raise pickle.UnpicklingError("a tensor larger than its storage")
    if size == 0:
        return np.zeros(tuple(shape), storage.dtype)
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], tuple(shape), steps).copy()


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("numpy", "dtype"): _Type,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _Array() for core in ("core", "_core")},
    **{
        (f"numpy.{core}.multiarray", "scalar"): lambda kind, data=b"": _from_bytes(data, kind, (1,))[0].item()
        for core in ("core", "_core")
    },
}


class _Reader(pickle.Unpickler):
    """Unpickler that replaces every name by one of ours and takes storages from the zip file."""

    def __init__(self, data: bytes, load: Callable[[str, str], npt.NDArray[Any]]) -> None:
        super().__init__(io.BytesIO(data))
        self._load = load

    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        return known or type("Unknown", (Record,), {"origin": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 3 or pid[0] != "storage":
            raise pickle.UnpicklingError("a reference that is no storage")
        kind = getattr(pid[1], "origin", "").rpartition(".")[2]
        if kind not in _STORAGES:
            raise pickle.UnpicklingError(f"numbers of type {kind[:40]}")
        return self._load(str(pid[2]), "<" + _STORAGES[kind])


def read_pickle(path: str | Path) -> Any:
    """Return the content of a file of torch.save: containers, numbers, strings, numpy arrays and records.

    Raises:
        MissingDataError: the file does not exist.
        InputError: it is not such a file, or is damaged.
    """
    expected = "a file that torch.save wrote (1.6 or newer)"
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise MissingDataError(f"{path}: {error.strerror}; expected: {expected}; to fix: check the path") from error
    try:
        return _plain(_unpickled(data), {})
    except Exception as error:  # a hostile or damaged file may fail in any way; no code of it was run
        reason = str(error).partition("\n")[0][:120]
        raise InputError.of(
            found=f"{path}: not read ({type(error).__name__}: {reason})", expected=expected, fix="choose another file"
        ) from error


def _unpickled(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: info for info in archive.infolist()}
        whole = sum(info.file_size for info in members.values())
        if whole > min(_LARGEST, len(data)):
            raise pickle.UnpicklingError(f"{whole} bytes in a file of {len(data)}")
        (main,) = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        root = main.removesuffix("data.pkl")
        if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
            raise pickle.UnpicklingError("numbers of a big-endian machine")

        def load(key: str, dtype: str) -> npt.NDArray[Any]:
            return np.frombuffer(archive.read(f"{root}data/{key}"), dtype)

        return _Reader(archive.read(main), load).load()


def _plain(content: Any, done: dict[int, Any], depth: int = 0) -> Any:
    """Return the content with each `_Array` replaced by its values; an object that occurs often is converted once."""
    if depth > 50:
        raise pickle.UnpicklingError("objects nested 50 deep")
    if id(content) in done:
        return done[id(content)]
    found = content
    if isinstance(content, _Array):
        found = content.values
    elif isinstance(content, Mapping):
        found = {key: _plain(value, done, depth + 1) for key, value in content.items()}
    elif isinstance(content, list | tuple):
        found = type(content)(_plain(value, done, depth + 1) for value in content)
    elif isinstance(content, Record):
        content.state = _plain(content.state, done, depth + 1)
    done[id(content)] = found
    return found
