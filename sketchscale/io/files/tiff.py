"""Read TIFF and OME-TIFF as pixel sources; only the tiles and strips that a box meets are decoded."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile

from sketchscale.geometry import Box
from sketchscale.io.files.pixels import PixelSource, check_same, describe, refuse

__all__ = ["open_tiff", "read_tiff"]

SEGMENT_BYTES = 2**31
XML_BYTES = 16 * 2**20

_UNITS_UM = {
    "nm": 1e-3, "nanometer": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0, "in": 25400.0,
}  # fmt: skip


@contextlib.contextmanager
def _tiff(path: str) -> Iterator[Any]:
    def quiet(record: logging.LogRecord) -> bool:  # one for each call, as threads remove theirs
        return False  # tifffile logs damage and goes on; here damage is an error or does not matter

    tifffile.logger().addFilter(quiet)
    try:
        with tifffile.TiffFile(path) as tiff:
            _check_xml(path, tiff.pages.first.description)
            yield tiff
    finally:
        tifffile.logger().removeFilter(quiet)


def _check_xml(path: str, description: str) -> ElementTree.Element | None:
    """Parse the OME-XML of a TIFF safely; None if there is none. tifffile would guess where it cannot parse it."""
    text = description.strip() if isinstance(description, str) else ""
    if not text.startswith("<") or "<OME" not in text[:65536]:
        return None
    if len(text) > XML_BYTES or "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise refuse(path, "OME-XML with entities or above 16 MiB", "plain OME-XML", "export it again")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise refuse(path, f"OME-XML is not readable ({error})", "valid OME-XML", "export it again") from error
    for element in root.iter():
        name = element.get("FileName")
        if name is not None and name != Path(name).name:
            raise refuse(path, f"OME-XML points to {name[:60]!r}", "files in the same folder", "export it as one file")
    return root


def open_tiff(path: str, axes: str | None) -> PixelSource:
    """Describe the first series of a TIFF; the stored axes are those of its metadata if None.

    Raises:
        InputError: a palette, hostile metadata, or pixels that the file does not hold.
    """
    with _tiff(path) as tiff:
        series = tiff.series[0]
        page = series.keyframe
        stored, notes = (axes, []) if axes else _axes_of(series)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise refuse(path, "a TIFF with a palette", "grey or RGB", "export it as RGB")
        grain = (min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth))
        if page.is_tiled:
            grain = (int(page.tilelength), int(page.tilewidth))
        if series.dataoffset is not None:
            grain = (1, 1)
        source = describe(
            path,
            "tiff",
            stored,
            series.shape,
            series.dtype,
            grain=grain,
            interleaved=page.samplesperpixel > 1 and int(page.planarconfig) == 1,
            alpha=bool(page.extrasamples) and int(page.extrasamples[-1]) in _ALPHA,
        )
        _check_layout(path, series)
        root = _check_xml(path, tiff.pages.first.description)
        found = _ome_sizes(root) if root is not None else _tiff_sizes(tiff)
        if len(tiff.series) > 1:
            notes.append(f"it holds {len(tiff.series)} images; the first is converted")
    count = source.shape[source.axes.index("c")]
    return replace(
        source,
        spacing=found.spacing,
        depth=found.depth,
        channels=found.channels if len(found.channels) == count else source.channels,
        notes=(*source.notes, *notes, *found.notes),
    )


_ALPHA = (1, 2)
"""Values of the tag ExtraSamples for opacity, premultiplied or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Sizes in um and names of the channels from the metadata, with notes for the user."""

    spacing: tuple[float, float] | None = None
    depth: float | None = None
    channels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


_UNKNOWN = "qihrea"


def _axes_of(series: Any) -> tuple[str, list[str]]:
    """Return our axes and notes: pages of an unnamed kind are sections (z) unless that name is taken."""
    found = axes = series.axes.lower()
    for unknown in _UNKNOWN:
        free = next((name for name in "zct" if name not in axes), None)
        if unknown in axes and free is not None:
            axes = axes.replace(unknown, free)
    pages = [n for axis, n in zip(found, series.shape, strict=True) if axis in _UNKNOWN and n > 1]
    if len(pages) != 1 or "z" in found:
        return axes, []
    others = "tyxs makes them time points" if "s" in found else "cyx makes them channels, tyx time points"
    note = f"its {pages[0]} pages are taken as sections (z), as it does not say what they are; --axes {others}"
    return axes, [note]


def _check_layout(path: str, series: Any) -> None:
    """Check that the file holds what it claims, before memory is allocated for it."""
    page = series.keyframe
    size = Path(path).stat().st_size
    itemsize = np.dtype(series.dtype).itemsize
    if series.dataoffset is not None:
        if series.dataoffset + math.prod(series.shape) * itemsize > size:
            raise refuse(path, "the file ends before its pixels do", "a complete file", "copy it again")
        return
    segment = math.prod(page.chunks) * itemsize
    if segment > SEGMENT_BYTES:
        raise refuse(path, f"{segment / 2**30:.1f} GiB decoded at once", "at most 2 GiB", "save it tiled")
    if len(series.pages) * page.size != math.prod(series.shape):
        raise refuse(path, f"{len(series.pages)} pages for {series.shape}", "a page for each plane", "export it again")
    for one in series.pages:
        if one is None:
            raise refuse(path, "a page is in a missing file", "all files in the same folder", "copy the missing file")
        offsets, counts, segments = one.dataoffsets, one.databytecounts, math.prod(page.chunked)
        if len(offsets) != segments or len(counts) != segments:
            raise refuse(path, f"{len(offsets)} segments", f"{segments} by its size", "export it again")
        owner = Path(one.parent.filehandle.path)
        end = size if owner.name == Path(path).name else owner.stat().st_size
        if any(a < 0 or n < 0 or a + n > end for a, n in zip(offsets, counts, strict=True)):
            raise refuse(path, "the file ends before its pixels do", "a complete file", "copy it again")


def _ome_sizes(root: ElementTree.Element) -> _Sizes:
    """Return the sizes and channel names of the first image."""
    space = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
    pixels = root.find(f"{space}Image/{space}Pixels")
    if pixels is None:
        return _Sizes()
    z, y, x = (_length(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm")) for a in "ZYX")
    names = tuple(channel.get("Name") or "" for channel in pixels.findall(f"{space}Channel"))
    spacing = (y, x) if y is not None and x is not None else None
    return _Sizes(spacing=spacing, depth=z, channels=names if all(names) else ())


def _length(value: str | None, unit: str) -> float | None:
    """Return a length in um; None if it is absent, not a number, not positive, or in an unknown unit."""
    try:
        length = float(value or "nan") * _UNITS_UM.get(unit.lower(), math.nan)
    except ValueError:
        return None
    return length if math.isfinite(length) and length > 0 else None


_SMALLEST_UM, _LARGEST_UM = 1e-3, 50.0


def _tiff_sizes(tiff: Any) -> _Sizes:
    """Return sizes from the unit of ImageJ, else from a resolution in cm or inches if it is that of a microscope.

    Image editors write 72, 96 or 300 dots per inch (85 um and more) into every file.
    """
    page, imagej = tiff.pages.first, (tiff.imagej_metadata or {}) if tiff.is_imagej else {}
    unit = str(imagej.get("unit", ""))
    if _length("1", unit) is not None:
        y, x = (_per_pixel(page, tag, unit) for tag in ("YResolution", "XResolution"))
        depth = _length(str(imagej.get("spacing", "")), str(imagej.get("zunit", unit)))
        return _Sizes(spacing=(y, x) if y is not None and x is not None else None, depth=depth)
    unit = {2: "inch", 3: "cm"}.get(int(page.resolutionunit or 1), "")
    y, x = (_per_pixel(page, tag, unit) for tag in ("YResolution", "XResolution"))
    if y is None or x is None:
        return _Sizes()
    size = f"{x:g} x {y:g} um" if x != y else f"{x:g} um"
    if max(y, x) > _LARGEST_UM or min(y, x) < _SMALLEST_UM:
        return _Sizes(notes=(f"its resolution, {size} per pixel, is a printer's or a screen's and is not used",))
    note = f"its pixel size, {size}, is taken from the TIFF's resolution; --spacing corrects it"
    return _Sizes(spacing=(y, x), notes=(note,))


def _per_pixel(page: Any, tag: str, unit: str) -> float | None:
    entry = page.tags.get(tag)
    if entry is None or not isinstance(entry.value, tuple) or len(entry.value) != 2 or not entry.value[0]:
        return None
    return _length(str(entry.value[1] / entry.value[0]), unit)


def read_tiff(source: PixelSource, box: Box) -> npt.NDArray[Any]:
    """Return the pixels of a box in stored axes, from the tiles and strips that it meets.

    Raises:
        InputError: the file changed since it was opened.
    """
    with _tiff(source.path) as tiff:
        series = tiff.series[0]
        check_same(source, series.shape)
        if series.dataoffset is not None:
            dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
            shape = tuple(series.shape)
            return np.array(np.memmap(source.path, dtype, "r", series.dataoffset, shape)[box.slices])
        outer = series.shape[: len(series.shape) - len(series.keyframe.shape)]  # a page for each place in these axes
        values = np.empty(box.shape, dtype=series.dtype)
        within = Box(box.start[len(outer) :], box.stop[len(outer) :])
        for place in np.ndindex(*box.shape[: len(outer)]):
            position = tuple(a + i for a, i in zip(box.start, place, strict=False))
            number = int(np.ravel_multi_index(position, outer)) if outer else 0
            values[place] = _read_page(series.pages[number], series.keyframe, within)
        return values


def _read_page(page: Any, keyframe: Any, box: Box) -> npt.NDArray[Any]:
    """Return a box of one page, from the segments that it meets."""
    full = _page_box(keyframe, box)
    values = np.full(full.shape, keyframe.nodata, dtype=keyframe.dtype)
    segment = (1, 1, min(int(keyframe.rowsperstrip), keyframe.shaped[2]), int(keyframe.imagewidth), keyframe.shaped[4])
    if keyframe.is_tiled:
        depth, height, width = int(keyframe.tiledepth), int(keyframe.tilelength), int(keyframe.tilewidth)
        segment = (1, depth, height, width, keyframe.shaped[4])
    grid = [-(-n // s) for n, s in zip(keyframe.shaped, segment, strict=True)]
    ranges = [range(a // s, -(-b // s)) for a, b, s in zip(full.start, full.stop, segment, strict=True)]
    handle = page.parent.filehandle
    for offset in np.ndindex(*(len(r) for r in ranges)):
        place = tuple(r[i] for r, i in zip(ranges, offset, strict=True))
        index = int(np.ravel_multi_index(place, grid))
        handle.seek(page.dataoffsets[index])
        data = handle.read(page.databytecounts[index])
        if page.databytecounts[index] == 0:
            continue  # a sparse tile is legal and reads as the no-data value of the page
        decoded, start, shape = keyframe.decode(data, index, jpegtables=keyframe.jpegtables)
        there = Box(tuple(start), tuple(a + n for a, n in zip(start, (1, *shape), strict=True)))
        common = there.intersect(full)  # in (separate samples, depth, y, x, interleaved samples)
        part = decoded.reshape((1, *decoded.shape))[common.relative_to(there.start).slices]
        values[common.relative_to(full.start).slices] = part
    return values.reshape(box.shape)


def _page_box(keyframe: Any, box: Box) -> Box:
    """Turn a box in the axes of the page into one in (separate samples, depth, y, x, interleaved samples)."""
    sizes = list(keyframe.shaped)
    pairs: list[tuple[int, int]] = [(0, n) for n in sizes]
    at = [i for i, n in enumerate(sizes) if n != 1 or i in (2, 3)][-len(box.start) :]
    if len(at) != len(box.start):
        raise ValueError(f"a page of {keyframe.shape} in {sizes}")
    for i, a, b in zip(at, box.start, box.stop, strict=True):
        pairs[i] = (a, b)
    return Box(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))
