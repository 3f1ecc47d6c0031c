"""A small record that describes an ordinary image file, and the functions that all its readers share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sketchscale.errors import InputError, MissingDataError, SketchscaleError
from sketchscale.geometry import Box

__all__ = ["PixelSource", "check_same", "describe", "reading", "refuse", "stored_box", "stored_order"]

AXIS_LIMIT = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSource:
    """Description of an image file.

    Attributes:
        path: of the file.
        kind: key of the reader.
        stored: axes as stored: any of t, c, z, s (samples of a pixel), y, x.
        stored_shape: lengths along them.
        axes: as read: stored axes in the order t, c, z, y, x, with samples as channels; c, y and x always exist.
        shape: lengths along them.
        dtype: numpy name, native byte order; bool is read as uint8.
        channels: names; "red", "green", "blue" for colour images; empty if unknown.
        spacing: um per pixel (y, x); None if unknown.
        depth: um from section to section; None if unknown.
        grain: (y, x) size of what is decoded at once.
        interleaved: whether one read decodes all channels, so that they should be read together.
        notes: assumptions about the file and parts that are left out, one line each.
    """

    path: str
    kind: str
    stored: str
    stored_shape: tuple[int, ...]
    axes: str
    shape: tuple[int, ...]
    dtype: str
    channels: tuple[str, ...] = ()
    spacing: tuple[float, float] | None = None
    depth: float | None = None
    grain: tuple[int, int] = (1, 1)
    interleaved: bool = False
    notes: tuple[str, ...] = ()


def refuse(path: str, found: str, expected: str, fix: str) -> InputError:
    """Return the error for a problem of a file."""
    return InputError.of(found=f"{path}: {found}", expected=expected, fix=fix)


@contextlib.contextmanager
def reading(path: str, where: str = "") -> Iterator[None]:
    """Turn any error of a decoder into an InputError; image libraries raise a dozen types for damaged files."""
    try:
        yield
    except SketchscaleError:
        raise
    except FileNotFoundError as error:
        raise MissingDataError(f"{path} does not exist; expected: an image file; to fix: check the path") from error
    except MemoryError as error:
        raise refuse(path, "its pixels do not fit into memory", "a tiled TIFF", "save it tiled") from error
    except Exception as error:
        cause = " ".join(f"{error}".split())[:160] or type(error).__name__
        if "imagecodecs" in cause:
            unreadable = cause.replace('"', "'")
            raise refuse(path + where, unreadable, "a readable compression", "pip install imagecodecs") from error
        problem, fix = f"not readable ({cause})", "restore or export it again"
        raise refuse(path + where, problem, "an intact image file", fix) from error


def describe(
    path: str, kind: str, stored: str, shape: Sequence[int], dtype: Any, *, alpha: bool = False, **more: Any
) -> PixelSource:
    """Return a source from stored axes, after the checks that all formats share.

    Args:
        path: of the file.
        kind: key of its reader.
        stored, shape: axes as stored, and lengths along them.
        dtype: of the stored pixels.
        alpha: the last sample of a pixel is its opacity, which is left out with a note.
        more: other attributes of `PixelSource`.

    Raises:
        InputError: axes that do not match the lengths, an empty or too long axis, both channels and colours, or pixels
            that are not numbers.

    >>> describe("a.npy", "npy", "yxs", (4, 6, 3), "uint8").channels
    ('red', 'green', 'blue')
    """
    stored, lengths = stored.lower(), tuple(int(n) for n in shape)
    names = set(stored)
    if len(stored) != len(lengths) or len(names) != len(stored) or not {"y", "x"} <= names <= set("tczsyx"):
        raise refuse(path, f"axes {stored!r} for {len(lengths)} dimensions", "t, c, z, y, x", "name them with --axes")
    if not all(0 < n < AXIS_LIMIT for n in lengths):
        raise refuse(path, f"{' x '.join(map(str, lengths))} px", "1 to 2^31 - 1 along each axis", "export it again")
    sizes = dict(zip(stored, lengths, strict=True))
    if sizes.get("c", 1) > 1 and sizes.get("s", 1) > 1:
        raise refuse(path, f"{sizes['c']} channels of {sizes['s']} colours", "one of both", "split it")
    kind_of = np.dtype(dtype)
    if kind_of.kind not in "biuf":
        raise refuse(path, f"pixels of type {kind_of}", "whole or floating point numbers", "convert the pixels")
    alpha = alpha and sizes.get("s", 1) > 1
    channels = max(sizes.get("c", 1), sizes.get("s", 1) - alpha)
    if alpha:
        keep = "" if "c" in stored else f"; --axes {stored.replace('s', 'c')} keeps it"  # as a channel
        more["notes"] = (*more.get("notes", ()), f"its alpha channel is left out{keep}")
    axes = "".join(a for a in "tczyx" if a in "cyx" or sizes.get(a, 1) > 1)
    named = {**sizes, "c": channels}
    color = {3: ("red", "green", "blue"), 4: ("red", "green", "blue", "alpha")}
    more.setdefault("channels", color.get(channels, ()) if "s" in names else ())
    return PixelSource(
        path=path,
        kind=kind,
        stored=stored,
        stored_shape=lengths,
        axes=axes,
        shape=tuple(named[a] for a in axes),
        dtype="uint8" if kind_of.kind == "b" else str(kind_of.newbyteorder("=")),
        **more,
    )


def stored_order(stored: str) -> tuple[int, ...]:
    """Return the permutation of the stored axes to t, c, s, z, y, x."""
    return tuple(stored.index(name) for name in "tcszyx" if name in stored)


def stored_box(source: PixelSource, box: Box) -> Box:
    """Return a box of `source.axes` in the stored axes."""
    wanted = dict(zip(source.axes, zip(box.start, box.stop, strict=True), strict=True))
    if dict(zip(source.stored, source.stored_shape, strict=True)).get("s", 1) > 1:
        wanted = {**wanted, "s": wanted["c"], "c": (0, 1)}
    pairs = [wanted.get(name, (0, 1)) for name in source.stored]
    return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def check_same(source: PixelSource, shape: Sequence[int]) -> None:
    """Check that the shape of a file did not change since it was opened.

    Raises:
        InputError: it did.
    """
    if tuple(shape) != source.stored_shape:
        raise refuse(source.path, f"its shape is {tuple(shape)} now", f"{source.stored_shape}", "convert it again")
