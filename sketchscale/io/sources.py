"""Pixels of ordinary image files, read region by region: TIFF, PNG, JPEG, NPY behind one record.

A `PixelSource` says what a file holds, in axes of ours, and is small and picklable; `read_source` opens the file again,
reads one box and closes it. What that costs depends on how the file is laid out, and `grain` tells: the smallest
region that is decoded at once.

    NPY, uncompressed TIFF      mapped into memory         grain (1, 1)
    tiled TIFF                  tiles that the box meets   grain = a tile
    striped TIFF                strips that the box meets  grain = some rows, whole width
    PNG, JPEG, one-strip TIFF   everything                 grain = the plane

Everything a file claims is checked before memory is taken for it: sizes, segment sizes, that all segments lie inside
the file. Any damage is one `InputError`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import PIL.Image
import tifffile

from sketchscale.errors import InputError, MissingDataError, SketchscaleError
from sketchscale.geometry import Box

__all__ = ["SUFFIXES", "PixelSource", "open_source", "read_source", "source_identity"]

AXIS_LIMIT = 2**31
SEGMENT_BYTES = 2**31
XML_BYTES = 16 * 2**20

_UNITS_UM = {
    "nm": 1e-3, "nanometer": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0, "in": 25400.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelSource:
    """What a file holds.

    Attributes:
        path: of the file.
        kind: key of the reader.
        stored: axes as stored: any of t, c, z, s (samples of a pixel), y, x.
        stored_shape: lengths along them.
        axes: as read: stored axes in the order t, c, z, y, x, where samples are channels; y and x last; c always there.
        shape: lengths along them.
        dtype: numpy's name, native byte order; bool is read as uint8.
        channels: names; "red", "green", "blue" for colour images; empty when unknown.
        spacing: um per pixel (y, x); None when the file does not say.
        grain: (y, x) of what is decoded at once.
        interleaved: whether one read gives all channels, so that they should be read together.
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
    grain: tuple[int, int] = (1, 1)
    interleaved: bool = False


def _refuse(path: str, found: str, expected: str, fix: str) -> InputError:
    return InputError.of(found=f"{path}: {found}", expected=expected, fix=fix)


def _damaged(path: str, error: BaseException) -> InputError:
    cause = " ".join(f"{error}".split())[:160] or type(error).__name__
    if "imagecodecs" in cause:
        return _refuse(path, cause.replace('"', "'"), "a compression that can be read", "pip install imagecodecs")
    return _refuse(path, f"not readable ({cause})", "an intact image file", "restore or export it again")


@contextlib.contextmanager
def _reading(path: str, where: str = "") -> Iterator[None]:
    """Turns whatever a decoder raises into one InputError; image libraries raise a dozen types for damaged files."""
    try:
        yield
    except SketchscaleError:
        raise
    except FileNotFoundError as error:
        raise MissingDataError(f"{path} does not exist; expected: an image file; to fix: check the path") from error
    except MemoryError as error:
        raise _refuse(path, "its pixels do not fit into memory", "a tiled TIFF", "save it tiled") from error
    except Exception as error:
        raise _damaged(path + where, error) from error


def open_source(path: str | Path, *, axes: str | None = None) -> PixelSource:
    """Describe an image file; no pixel is decoded.

    Args:
        path: a file with a suffix of SUFFIXES.
        axes: names of the stored axes where the file does not say or is wrong, as in "zyx" or "yxc".

    Raises:
        MissingDataError: no such file.
        InputError: not one of the known formats, damaged, or claiming what cannot be.
    """
    text = str(path)
    if not Path(path).is_file():
        raise MissingDataError(f"{text} does not exist; expected: an image file; to fix: check the path")
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise _refuse(text, f"suffix {suffix!r}", f"one of {', '.join(SUFFIXES)}", "export it as OME-TIFF")
    with _reading(text):
        return _READERS[SUFFIXES[suffix]][0](text, axes)


def read_source(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    """Pixels of a box in `source.axes`, decoded, in native byte order.

    Raises:
        MissingDataError: the file is gone.
        InputError: it is damaged there, or it changed since it was opened.
    """
    with _reading(source.path, f", box {box}"):
        values = _READERS[source.kind][1](source, _stored_box(source, box))
    order = _to_axes(source.stored, source.axes)
    values = np.transpose(values, order).reshape(box.shape)
    return np.ascontiguousarray(values, dtype=np.dtype(source.dtype))


def source_identity(path: str | Path) -> str:
    """SHA-256 of a file's size, time of change, first and last 64 KiB: cheap, and different once it is rewritten."""
    with _reading(str(path)), Path(path).open("rb") as file:
        stat = Path(path).stat()
        head = file.read(65536)
        file.seek(max(0, stat.st_size - 65536))
        text = f"{stat.st_size} {stat.st_mtime_ns} ".encode()
        return hashlib.sha256(text + head + file.read(65536)).hexdigest()


# ---- axes


def _describe(path: str, kind: str, stored: str, shape: Sequence[int], dtype: Any, **more: Any) -> PixelSource:
    """A source from axes as stored; checks what every kind has to fulfil."""
    stored, lengths = stored.lower(), tuple(int(n) for n in shape)
    names = set(stored)
    if len(stored) != len(lengths) or len(names) != len(stored) or not {"y", "x"} <= names <= set("tczsyx"):
        raise _refuse(path, f"axes {stored!r} for {len(lengths)} dimensions", "t, c, z, y, x", "name them with --axes")
    if not all(0 < n < AXIS_LIMIT for n in lengths):
        raise _refuse(path, f"{' x '.join(map(str, lengths))} px", "1 to 2^31 - 1 along each axis", "export it again")
    sizes = dict(zip(stored, lengths, strict=True))
    if sizes.get("c", 1) > 1 and sizes.get("s", 1) > 1:
        raise _refuse(path, f"{sizes['c']} channels of {sizes['s']} colours", "one of both", "split it")
    kind_of = np.dtype(dtype)
    if kind_of.kind not in "biuf":
        raise _refuse(path, f"pixels of type {kind_of}", "whole or floating point numbers", "convert the pixels")
    channels = max(sizes.get("c", 1), sizes.get("s", 1))
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


def _samples(stored: str) -> str:
    """Samples are channels; where both axes are there, one of them has length 1."""
    return stored.replace("s", "c") if "c" not in stored else stored


def _to_axes(stored: str, axes: str) -> tuple[int, ...]:
    """Order of the stored axes that brings them to t, c, s, z, y, x."""
    return tuple(stored.index(name) for name in "tcszyx" if name in stored)


def _stored_box(source: PixelSource, box: Box) -> Box:
    wanted = dict(zip(source.axes, zip(box.start, box.stop, strict=True), strict=True))
    if "s" in source.stored and dict(zip(source.stored, source.stored_shape, strict=True))["s"] > 1:
        wanted = {**wanted, "s": wanted["c"], "c": (0, 1)}
    pairs = [wanted.get(name, (0, 1)) for name in source.stored]
    return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


# ---- NPY


def _open_npy(path: str, axes: str | None) -> PixelSource:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise _refuse(path, "an archive of arrays", "one array (.npy)", "save the array with numpy.save")
    return _describe(path, "npy", axes or _plain_axes(path, array.shape), array.shape, array.dtype)


def _plain_axes(path: str, shape: Sequence[int]) -> str:
    """Axes of an array that does not name them: (y, x), colours last if there are 3 or 4, else channels first."""
    colored = len(shape) == 3 and shape[-1] in (3, 4) and shape[0] > 4
    known = {2: "yx", 3: "yxs" if colored else "cyx"}
    if len(shape) not in known:
        raise _refuse(path, f"an array of {len(shape)} dimensions", "2 or 3", "name them with --axes, as in tczyx")
    return known[len(shape)]


def _read_npy(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    array = np.load(source.path, mmap_mode="r", allow_pickle=False)
    _check_same(source, array.shape)
    return np.asarray(array[box.slices])


def _check_same(source: PixelSource, shape: Sequence[int]) -> None:
    if tuple(shape) != source.stored_shape:
        raise _refuse(source.path, f"its shape is {tuple(shape)} now", f"{source.stored_shape}", "convert it again")


# ---- PNG and JPEG

_PILLOW = threading.Lock()
_RASTER_BYTES = 2**33


@contextlib.contextmanager
def _raster(path: str) -> Iterator[PIL.Image.Image]:
    """An opened image. Pillow's own limit on pixels, a process-wide setting, gives way to ours."""
    with _PILLOW:
        limit, PIL.Image.MAX_IMAGE_PIXELS = PIL.Image.MAX_IMAGE_PIXELS, None
        try:
            image = PIL.Image.open(path, formats=("PNG", "JPEG"))
        finally:
            PIL.Image.MAX_IMAGE_PIXELS = limit
    with image:
        yield image


_MODES = {"L": ("yx", "u1"), "1": ("yx", "?"), "I;16": ("yx", "u2"), "I": ("yx", "i4"), "F": ("yx", "f4"),
          "RGB": ("yxs", "u1"), "RGBA": ("yxs", "u1"), "LA": ("yxs", "u1")}  # fmt: skip


def _open_raster(path: str, axes: str | None) -> PixelSource:
    with _raster(path) as image:
        mode = _raster_mode(image)
        stored, dtype = _MODES[mode]
        shape = (image.height, image.width, len(PIL.Image.new(mode, (1, 1)).getbands()))[: len(stored)]
    if math.prod(shape) * np.dtype(dtype).itemsize > _RASTER_BYTES:
        raise _refuse(path, f"{shape[1]} x {shape[0]} px in one piece", "at most 8 GiB of pixels", "save a tiled TIFF")
    grain = (shape[0], shape[1])
    names = ("grey", "alpha") if mode == "LA" else None
    source = _describe(path, "raster", axes or stored, shape, dtype, grain=grain, interleaved=True)
    return source if names is None else replace(source, channels=names)


def _raster_mode(image: PIL.Image.Image) -> str:
    """The mode an image is read in: palettes and unusual colour spaces become RGB."""
    if image.mode in _MODES:
        return image.mode
    if image.mode.startswith("I;16"):
        return "I;16"
    return "RGBA" if image.mode in ("PA", "RGBa") or "transparency" in image.info else "RGB"


def _read_raster(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    with _raster(source.path) as image:
        mode = _raster_mode(image)
        values = np.asarray(image if mode == image.mode else image.convert(mode))
    _check_same(source, values.shape)
    return values[box.slices]


def read_indices(path: str) -> npt.NDArray[Any]:
    """A PNG as stored: palette entries as numbers, not as colours. For label images."""
    with _reading(path), _raster(path) as image:
        return np.asarray(image)


# ---- TIFF


class _Quiet(logging.Filter):
    """tifffile reports damage to the log and goes on; here damage is an error or does not matter."""

    def filter(self, record: logging.LogRecord) -> bool:
        return False


@contextlib.contextmanager
def _tiff(path: str) -> Iterator[Any]:
    quiet = _Quiet()
    tifffile.logger().addFilter(quiet)
    try:
        with tifffile.TiffFile(path) as tiff:
            _check_xml(path, tiff.pages.first.description)
            yield tiff
    finally:
        tifffile.logger().removeFilter(quiet)


def _check_xml(path: str, description: str) -> ElementTree.Element | None:
    """The OME-XML of a TIFF, parsed safely; None when there is none.

    tifffile falls back to guesses when it cannot parse it; we do not.
    """
    text = description.strip() if isinstance(description, str) else ""
    if not text.startswith("<") or "<OME" not in text[:65536]:
        return None
    if len(text) > XML_BYTES or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise _refuse(path, "OME-XML with entities or above 16 MiB", "plain OME-XML", "export it again")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise _refuse(path, f"OME-XML is not readable ({error})", "valid OME-XML", "export it again") from error
    for element in root.iter():
        name = element.get("FileName")
        if name is not None and name != Path(name).name:
            raise _refuse(path, f"OME-XML points to {name[:60]!r}", "files beside it", "export it as one file")
    return root


def _open_tiff(path: str, axes: str | None) -> PixelSource:
    with _tiff(path) as tiff:
        series = tiff.series[0]
        page = series.keyframe
        stored = axes or _tiff_axes(series.axes)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise _refuse(path, "a TIFF with a palette", "grey or RGB", "export it as RGB")
        source = _describe(
            path,
            "tiff",
            stored,
            series.shape,
            series.dtype,
            grain=_grain(page, series),
            interleaved=page.samplesperpixel > 1 and int(page.planarconfig) == 1,
        )
        _check_layout(path, series, source)
        root = _check_xml(path, tiff.pages.first.description)
        spacing, names = _ome(root) if root is not None else (_tiff_spacing(tiff), ())
    channels = names if names and len(names) == source.shape[source.axes.index("c")] else source.channels
    return replace(source, spacing=spacing, channels=channels)


def _tiff_axes(found: str) -> str:
    """Ours: pages of an unnamed kind are slices (z) unless that name is taken."""
    axes = found.lower()
    for unknown in "qihrea":
        free = next((name for name in "zct" if name not in axes), None)
        if unknown in axes and free is not None:
            axes = axes.replace(unknown, free)
    return axes


def _grain(page: Any, series: Any) -> tuple[int, int]:
    if series.dataoffset is not None:
        return (1, 1)
    if page.is_tiled:
        return (int(page.tilelength), int(page.tilewidth))
    return (min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth))


def _check_layout(path: str, series: Any, source: PixelSource) -> None:
    """That the file holds what it claims, before memory is taken for it."""
    page = series.keyframe
    size = Path(path).stat().st_size
    itemsize = np.dtype(series.dtype).itemsize
    if series.dataoffset is not None:
        if series.dataoffset + math.prod(series.shape) * itemsize > size:
            raise _refuse(path, "the file ends before its pixels do", "a complete file", "copy it again")
        return
    segment = math.prod(page.chunks) * itemsize
    if segment > SEGMENT_BYTES:
        raise _refuse(path, f"{segment / 2**30:.1f} GiB decoded at once", "at most 2 GiB", "save it tiled")
    if len(series.pages) * page.size != math.prod(series.shape):
        raise _refuse(path, f"{len(series.pages)} pages for {series.shape}", "a page for each plane", "export it again")
    for one in series.pages:
        _check_page(path, one, math.prod(page.chunked), size)


def _check_page(path: str, page: Any, segments: int, size: int) -> None:
    if page is None:
        raise _refuse(path, "a page is in a file that is not here", "all files side by side", "copy the missing file")
    offsets, counts = page.dataoffsets, page.databytecounts
    if len(offsets) != segments or len(counts) != segments:
        raise _refuse(path, f"{len(offsets)} segments", f"{segments} by its size", "export it again")
    owner = Path(page.parent.filehandle.path)
    size = size if owner.name == Path(path).name else owner.stat().st_size
    if any(a < 0 or n < 0 or a + n > size for a, n in zip(offsets, counts, strict=True)):
        raise _refuse(path, "the file ends before its pixels do", "a complete file", "copy it again")


def _ome(root: ElementTree.Element) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Spacing and channel names of the first image."""
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    pixels = root.find(f"{space}Image/{space}Pixels")
    if pixels is None:
        return None, ()
    spacing = [_length(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "YX"]
    names = tuple(channel.get("Name") or "" for channel in pixels.findall(f"{space}Channel"))
    y, x = spacing
    return (y, x) if y is not None and x is not None else None, names if all(names) else ()


def _length(value: str | None, unit: str) -> float | None:
    """In um; None when it is absent, no number, not positive, or in an unknown unit."""
    try:
        length = float(value or "nan") * _UNITS_UM.get(unit.lower(), math.nan)
    except ValueError:
        return None
    return length if math.isfinite(length) and length > 0 else None


def _tiff_spacing(tiff: Any) -> tuple[float, float] | None:
    """From ImageJ's unit, else from the resolution in cm or inches where that is a microscope's, not a printer's.

    72, 96 or 300 dots per inch (85 um and more) are what image editors write into every file.
    """
    page = tiff.pages.first
    unit = str((tiff.imagej_metadata or {}).get("unit", "")) if tiff.is_imagej else ""
    if not unit:
        unit = {2: "inch", 3: "cm"}.get(int(page.resolutionunit or 1), "")
    sizes = [_per_pixel(page, tag, unit) for tag in ("YResolution", "XResolution")]
    y, x = sizes
    if y is None or x is None or (not tiff.is_imagej and max(y, x) > 50):
        return None
    return (y, x)


def _per_pixel(page: Any, tag: str, unit: str) -> float | None:
    entry = page.tags.get(tag)
    if entry is None or not isinstance(entry.value, tuple) or len(entry.value) != 2 or not entry.value[0]:
        return None
    return _length(str(entry.value[1] / entry.value[0]), unit)


def _read_tiff(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    with _tiff(source.path) as tiff:
        series = tiff.series[0]
        _check_same(source, series.shape)
        if series.dataoffset is not None:
            return _read_mapped(source.path, series, box)
        return _read_pages(series, box)


def _read_mapped(path: str, series: Any, box: Box) -> npt.NDArray[Any]:
    dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
    mapped = np.memmap(path, dtype=dtype, mode="r", offset=series.dataoffset, shape=tuple(series.shape))
    return np.array(mapped[box.slices])


def _read_pages(series: Any, box: Box) -> npt.NDArray[Any]:
    """Pages in order of the leading axes; each gives the last axes."""
    inner = len(series.keyframe.shape)
    outer_shape = series.shape[: len(series.shape) - inner]
    values = np.empty(box.shape, dtype=series.dtype)
    within = Box(box.start[len(outer_shape) :], box.stop[len(outer_shape) :])
    for place in np.ndindex(*box.shape[: len(outer_shape)]):
        position = tuple(a + i for a, i in zip(box.start, place, strict=False))
        number = int(np.ravel_multi_index(position, outer_shape)) if outer_shape else 0
        values[place] = _read_page(series.pages[number], series.keyframe, within)
    return values


def _read_page(page: Any, keyframe: Any, box: Box) -> npt.NDArray[Any]:
    """A box of one page, from the segments that it meets."""
    full = _page_box(keyframe, box)
    values = np.full(full.shape, keyframe.nodata, dtype=keyframe.dtype)
    grid = [n // s for n, s in zip(_padded(keyframe), _segment(keyframe), strict=True)]
    ranges = [range(a // s, -(-b // s)) for a, b, s in zip(full.start, full.stop, _segment(keyframe), strict=True)]
    handle = page.parent.filehandle
    for offset in np.ndindex(*(len(r) for r in ranges)):
        place = tuple(r[i] for r, i in zip(ranges, offset, strict=True))
        index = int(np.ravel_multi_index(place, grid))
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        if page.databytecounts[index] == 0:
            continue  # a sparse tile: legal, reads as the page's value for no data
        decoded, start, shape = keyframe.decode(data, index, jpegtables=keyframe.jpegtables)
        _paste(values, full, decoded, start, shape)
    return values.reshape(box.shape)


def _paste(values: npt.NDArray[Any], full: Box, decoded: Any, start: Any, shape: Any) -> None:
    """The part of a decoded segment that lies in the box; `start` is (sample, depth, y, x, sample)."""
    there = Box(tuple(start), tuple(a + n for a, n in zip(start, (1, *shape), strict=True)))
    common = there.intersect(full)
    part = decoded.reshape((1, *decoded.shape))[common.relative_to(there.start).slices]
    values[common.relative_to(full.start).slices] = part


def _page_box(keyframe: Any, box: Box) -> Box:
    """A box in the page's own axes as one in (separate samples, depth, y, x, interleaved samples)."""
    sizes = list(keyframe.shaped)
    pairs: list[tuple[int, int]] = [(0, n) for n in sizes]
    at = [i for i, n in enumerate(sizes) if n != 1 or i in (2, 3)][-len(box.start) :]
    if len(at) != len(box.start):
        raise ValueError(f"a page of {keyframe.shape} in {sizes}")
    for i, a, b in zip(at, box.start, box.stop, strict=True):
        pairs[i] = (a, b)
    return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def _segment(keyframe: Any) -> tuple[int, ...]:
    """Size of a segment in (separate samples, depth, y, x, interleaved samples)."""
    depth = int(keyframe.tiledepth) if keyframe.is_tiled else 1
    height = int(keyframe.tilelength) if keyframe.is_tiled else int(keyframe.rowsperstrip)
    width = int(keyframe.tilewidth) if keyframe.is_tiled else int(keyframe.imagewidth)
    return (1, depth, min(height, keyframe.shaped[2]) if not keyframe.is_tiled else height, width, keyframe.shaped[4])


def _padded(keyframe: Any) -> tuple[int, ...]:
    return tuple(-(-n // s) * s for n, s in zip(keyframe.shaped, _segment(keyframe), strict=True))


_Opener = Callable[[str, "str | None"], PixelSource]
_Reader = Callable[[PixelSource, Box], npt.NDArray[Any]]
_READERS: dict[str, tuple[_Opener, _Reader]] = {
    "npy": (_open_npy, _read_npy),
    "raster": (_open_raster, _read_raster),
    "tiff": (_open_tiff, _read_tiff),
}

SUFFIXES = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".btf": "tiff",
    ".tf8": "tiff",
    ".svs": "tiff",
    ".png": "raster",
    ".jpg": "raster",
    ".jpeg": "raster",
    ".npy": "npy",
}
"""Suffix to reader. A new format is a pair of functions in _READERS and a line here."""
