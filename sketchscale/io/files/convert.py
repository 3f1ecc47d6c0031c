"""Convert ordinary image files to OME-Zarr.

1. `plan_convert` opens and checks every source and returns what would be written, without writing.
2. `convert` writes the blocks of level 0 (a block is whole chunks or shards, and covers what the file decodes at once),
   then the levels of the pyramid, then the metadata.

A ledger next to the arrays makes it resumable. The metadata comes last, so an unfinished store is not an image. A file
is read region by region: each worker needs memory for one block, which `plan_convert` reports.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import sketchscale
from sketchscale.engine.base import Json, Plan
from sketchscale.errors import InputError, OutputExistsError
from sketchscale.geometry import Tile, block_shape, tile_cover
from sketchscale.io.files.convert_options import ConvertConfig
from sketchscale.io.files.patterns import matches
from sketchscale.io.files.sources import SUFFIXES, PixelSource, file_suffix, open_source, read_source, source_identity
from sketchscale.io.ome_zarr.arrays import ArrayRef, write_box
from sketchscale.io.ome_zarr.groups import read_attributes
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.metadata import ome_attributes
from sketchscale.io.ome_zarr.new_images import commit_image, create_image, level_arrays, level_shapes
from sketchscale.io.ome_zarr.pyramid import plan_level
from sketchscale.io.runs.ledger import MARKS, StoreLedger, open_ledger
from sketchscale.io.stores.addresses import address_parts, is_local, join_address, split_address
from sketchscale.io.stores.blobs import delete_blob, delete_blobs, list_blobs
from sketchscale.io.stores.output_files import list_names

__all__ = ["Conversion", "ConvertConfig", "check_target", "conversion_notes", "convert", "plan_convert"]

RUN = "convert"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockConfig:
    """Source file and target array."""

    source: PixelSource
    target: ArrayRef


def convert_block(tile: Tile, config: BlockConfig) -> Json:
    """Read a block of the file and write it; return the checksum of the block."""
    return write_box(config.target, tile.write, read_source(config.source, tile.write))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One file and the image that it becomes, as `--dry-run` prints it.

    Attributes:
        source: the file.
        dst: address of the image.
        config: as given.
        shapes: of the levels, in `source.axes`.
        identity: of the file, see `source_identity`.
    """

    source: PixelSource
    dst: str
    config: ConvertConfig
    shapes: tuple[tuple[int, ...], ...]
    identity: str

    @property
    def levels(self) -> tuple[ArrayRef, ...]:
        """The arrays of the image."""
        return level_arrays(*split_address(self.dst), len(self.shapes))

    @property
    def pixels(self) -> Plan[Tile]:
        """The plan that writes level 0."""
        blocks = _block(self.source, self.config)
        itemsize = np.dtype(self.source.dtype).itemsize
        stored = dict(zip(self.source.stored, self.source.stored_shape, strict=True))
        channels = max(stored.get("c", 1), stored.get("s", 1)) if self.source.interleaved else 1
        held = 3 * math.prod(blocks) + 2 * math.prod(self.source.grain) * channels
        return Plan(
            stage="pixels",
            fn=convert_block,
            tasks=tile_cover(self.shapes[0], blocks),
            config=BlockConfig(source=self.source, target=self.levels[0]),
            task_bytes=held * itemsize,
        )

    @property
    def fingerprint(self) -> dict[str, str]:
        """What the result depends on, for the ledger."""
        return {
            "source": self.identity,
            "config": json.dumps(asdict(self.config), sort_keys=True),
            "version": sketchscale.__version__,
        }


def _block(source: PixelSource, config: ConvertConfig) -> tuple[int, ...]:
    """Return the shape of a block in the axes of the source: whole write units that cover what is decoded at once."""
    unit = config.shard or config.chunk
    edges = []
    for n, grain in zip(source.shape[-2:], source.grain, strict=True):
        cut = max(1, min(unit, -(-n // config.chunk) * config.chunk))
        edges.append(-(-max(block_shape((n,), (cut,), config.block)[0], min(grain, n)) // cut) * cut)
    if source.grain[1] >= source.shape[-1] > edges[1] // 2:  # strips: fewer rows, whole width
        edges[0] = max(-(-min(source.grain[0], source.shape[-2]) // unit) * unit, 2 * unit)
    channels = [n if a == "c" and source.interleaved else 1 for a, n in zip(source.axes, source.shape, strict=True)]
    return (*channels[:-2], *edges)


def plan_convert(src: str | Path, dst: str | Path, config: ConvertConfig | None = None) -> tuple[Conversion, ...]:
    """Open the sources and return what would be converted; nothing is written.

    Args:
        src: an image file, or a folder or pattern (one image per image file; other files are ignored); may be a remote
            address, from which files are copied to each reader.
        dst: the new image; for a folder or a pattern, the folder of new images, named like their files plus `.zarr`.
        config: None means the defaults.

    Raises:
        MissingDataError: the source does not exist.
        InputError: an unreadable file, a folder without images, or two files that would become the same image.
    """
    config = config or ConvertConfig()
    found = _files_of(str(src))
    if found is None:
        return (_conversion(str(src), str(dst), config),)
    files = sorted(path for path in found if file_suffix(path) in SUFFIXES)
    bases = [Path(address_parts(path)[1]).name for path in files]
    names = [f"{base.removesuffix(Path(base).suffix).removesuffix('.ome')}.zarr" for base in bases]
    if not files or len(set(names)) != len(names):
        twice = next((n for n in names if names.count(n) > 1), "")
        wrong = f"{src}: two files named like {twice!r}" if twice else f"{src}: no image files"
        raise InputError.of(found=wrong, expected=f"files of {', '.join(SUFFIXES)}", fix="convert them one by one")
    return tuple(_conversion(p, f"{str(dst).rstrip('/')}/{n}", config) for p, n in zip(files, names, strict=True))


def _files_of(source: str) -> list[str] | None:
    """Return the files of a folder or a pattern; None for a single file."""
    if matches(source) != [source]:
        return [path for path in matches(source) if not is_local(path) or Path(path).is_file()]
    if is_local(source):
        return [str(path) for path in Path(source).iterdir() if path.is_file()] if Path(source).is_dir() else None
    if file_suffix(source):
        return None
    return [join_address(source, name) for name in list_names(source)]


def _conversion(path: str, dst: str, config: ConvertConfig) -> Conversion:
    source = open_source(path, axes=config.axes)
    count = source.shape[source.axes.index("c")]
    if config.channels and len(config.channels) != count:
        raise InputError.of(
            found=f"{path}: {count} channels, {len(config.channels)} names", expected="as many", fix="name all of them"
        )
    spacing, depth = config.pixel or source.spacing, config.depth or source.depth
    if config.depth is not None and (spacing is None or "z" not in source.axes):
        lacks = "no sections" if "z" not in source.axes else "no pixel size"
        raise InputError.of(
            found=f"{path}: {lacks}, and a distance of sections",
            expected="a stack of sections with a pixel size",
            fix="give --spacing as well" if spacing is None else "drop --z-spacing, or name the axes with --axes",
        )
    return Conversion(
        source=replace(
            source,
            channels=config.channels or source.channels,
            spacing=spacing,
            depth=depth if spacing is not None and "z" in source.axes else None,
            notes=_notes(source, config),
        ),
        dst=dst,
        config=config,
        shapes=level_shapes(source.shape, config.levels),
        identity=source_identity(path),
    )


def _notes(source: PixelSource, config: ConvertConfig) -> tuple[str, ...]:
    """Return the notes of the reader that no option answers, and which sizes are unknown."""
    notes = [note for note in source.notes if config.spacing is None or "--spacing" not in note]
    if config.spacing is None and source.spacing is None:
        notes.append("it gives no pixel size, so sizes stay in pixels; --spacing gives it in um")
    elif "z" in source.axes and config.depth is None and source.depth is None:
        notes.append("it does not give the distance of its sections; --z-spacing gives it in um")
    return tuple(notes)


_PLATE_NAMES = re.compile(
    r"(^|[_\-. ])[A-P](0?[1-9]|1\d|2[0-4])[_\-. ]?(s|f|site|field)?\d*([_\-. ]|$).*[_\-. ]?(w|ch?|z|t)\d+"
    r"|^r\d\d?c\d\d?f\d+p\d+-?ch\d+"
    r"|[A-P]\d\d_T\d+F\d+L\d+A\d+Z\d+C\d+",
    re.IGNORECASE,
)
"""File names of ImageXpress, Opera, Operetta and CellVoyager: well, site and channel of one plane."""


def conversion_notes(conversions: Sequence[Conversion]) -> list[str]:
    """Return notes for the user on these conversions, one line each; equal notes of many files are joined.

    >>> conversion_notes(())
    []
    """
    files: dict[str, list[str]] = {}
    for conversion in conversions:
        for note in conversion.source.notes:
            files.setdefault(note, []).append(Path(conversion.source.path).name)
    lines = [f"{_of_files(names)}: {note}" for note, names in files.items()]
    plated = [n for n in (Path(c.source.path) for c in conversions) if _PLATE_NAMES.search(n.stem)]
    if len(plated) > 1:
        lines.append(
            f"{_of_files([path.name for path in plated])}: named like wells, sites and channels of a plate; each "
            "becomes an image of its own, as plates are not put together from names"
        )
    return lines


def _of_files(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} files ({names[0]}, {names[1]}{' ...' * (len(names) > 2)})"


def check_target(dst: str, *, resume: bool, overwrite: bool) -> None:
    """Check, before anything is written, that the target is free or an image of ours.

    Raises:
        OutputExistsError: `dst` exists and neither flag was given, or `convert` did not make it.
    """
    if is_local(dst) and Path(dst).is_file():
        raise OutputExistsError(f"{dst} is a file; expected: a new folder; to fix: choose another DST")
    store, group = split_address(dst)
    attributes = read_attributes(store, group)
    started = bool(list_blobs(store, f"{group}/.sketchscale/{RUN}" if group else f".sketchscale/{RUN}"))
    image = attributes is not None and "multiscales" in ome_attributes(attributes, dst)
    foreign = not image and not started and bool(list_blobs(store, group))
    if foreign or (image and not started and not overwrite):
        fix = "choose another DST" if foreign else "--overwrite, or choose another DST"
        raise OutputExistsError(f"{dst} is there already and was not made by convert; to fix: {fix}")
    if (image or started) and not (resume or overwrite):
        raise OutputExistsError(f"{dst} is there already; to fix: --resume to continue, --overwrite to replace it")


def convert(
    conversion: Conversion,
    run: Callable[[Plan[Any], StoreLedger], Sequence[Json]],
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> Image:
    """Write one image.

    Args:
        run: runs a plan with a ledger, such as `lambda plan, ledger: run_plan(plan, engine, ledger=ledger)`.
        resume: continue an unfinished conversion; a finished one stays as it is.
        overwrite: replace an existing image with its labels and tables.

    Raises:
        InputError: a damaged file (the rest can be resumed), or an image inside another store.
    """
    store, group = split_address(conversion.dst)
    if group:
        raise InputError.of(found=conversion.dst, expected="a store of its own", fix="choose another DST")
    with open_ledger(
        store,
        RUN,
        conversion.fingerprint,
        resume=resume,
        overwrite=overwrite,
        outputs=("",),
        clear=lambda: _clear(store),
    ) as ledger:
        if ledger.committed("image") is None:
            _make_arrays(conversion, ledger)
            run(conversion.pixels, ledger)
            for finer, coarser in itertools.pairwise(conversion.levels):
                run(plan_level(finer, coarser, "mean", block=conversion.config.block), ledger)
            commit_image(conversion.dst)
            ledger.commit("image", {"shape": list(conversion.shapes[0]), "axes": conversion.source.axes})
    return open_image(conversion.dst)


def _clear(store: str) -> None:
    """Delete a store except our own run, metadata first, so that a kill never leaves an image without pixels."""
    for name in ("zarr.json", ".zattrs", ".zgroup"):
        delete_blob(store, name)
    for name in sorted({key.partition("/")[0] for key in list_blobs(store, "")} - {".sketchscale"}):
        delete_blobs(store, name)
    for run in sorted({key.split("/")[1] for key in list_blobs(store, ".sketchscale")} - {RUN, *MARKS}):
        delete_blobs(store, f".sketchscale/{run}")


def _make_arrays(conversion: Conversion, ledger: StoreLedger) -> None:
    """Create the arrays once, so that finished blocks stay."""
    if ledger.committed("arrays") is not None:
        return
    source, config = conversion.source, conversion.config
    leading = (1,) * (len(source.axes) - 2)
    create_image(
        conversion.dst,
        source.shape,
        source.axes,
        source.dtype,
        (*leading, config.chunk, config.chunk),
        spacing=source.spacing or (1.0, 1.0),
        depth=source.depth,
        unit="pixel" if source.spacing is None else "micrometer",
        channels=source.channels,
        version=config.version,
        shards=None if config.shard is None else (*leading, config.shard, config.shard),
        levels=len(conversion.shapes),
        name=Path(source.path).name,
    )
    ledger.commit("arrays", {"levels": len(conversion.shapes)})
