"""Import labels of other programs into a store, and export labels of a store as a TIFF.

Labels need not come from `segment` to be measured and classified: a mask of any tool is enough.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale import __version__
from sketchscale.config import Execution
from sketchscale.engine.base import Event, Plan
from sketchscale.errors import InputError, OutputError
from sketchscale.evaluation.truth import open_true_labels, stored_labels
from sketchscale.geometry import Tile, block_shape, tile_cover
from sketchscale.io.files.masks import Few, join_few
from sketchscale.io.files.sources import SUFFIXES, source_identity
from sketchscale.io.ome_zarr.image import Image, open_image
from sketchscale.io.ome_zarr.label_sources import LabelSource, read_labels, source_shape
from sketchscale.io.ome_zarr.metadata import UNITS_UM
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels, delete_labels, label_arrays
from sketchscale.io.runs.ledger import StoreLedger
from sketchscale.io.stores.output_files import require_local
from sketchscale.objects.copying import plan_check_labels, plan_copy_labels
from sketchscale.workflow.labels.components import Split, check_components, split_components
from sketchscale.workflow.runner import (
    Runner,
    forget_run_if_unfit,
    open_run,
    quiet,
    refuse_existing,
    refuse_foreign_labels,
)
from sketchscale.workflow.verbs import verb

__all__ = ["ImportResult", "export_labels", "import_labels"]

_CHUNK, _TILE = 512, 512
_LARGEST = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """The imported labels.

    Attributes:
        largest: the highest id.
        pieces: components that a mask was split into; None where the ids are those of the source.
        note: for people, what was done with a mask; empty otherwise.
    """

    image: str
    labels: str
    shape: tuple[int, ...]
    largest: int
    pieces: int | None = None
    note: str = ""


@verb({"check-labels": 2, "values": 1, "pieces": 1, "copy": 2, "level": 1})
def import_labels(
    source: str,
    address: str,
    labels: str = "nuclei",
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    components: str = "auto",
    cancel: threading.Event | None = None,
) -> ImportResult:
    """Copy a label image into its image, with a pyramid; ids are kept, unless a mask is split.

    The whole source is checked first: existing labels are replaced only by ones that fit.

    Args:
        source: TIFF, PNG or NPY of whole numbers, or a label image of another store; (y, x), or (z, y, x) for volumes.
        address: the image that the labels outline.
        components: auto makes an object of each connected component where there is exactly one value above 0, always
            splits every id into its components, never splits nothing. Pixels of a component share a side or a corner;
            components are numbered by their first pixel.

    Raises:
        InputError: another shape than the image's, fractions, negative ids, ids beyond 32 bits, or two values of which
            neither is 0.
        OutputExistsError: labels of that name are there.
    """
    execution = execution or Execution()
    image, truth = open_image(address), open_true_labels(source)
    run = f"import-{labels}"
    refuse_foreign_labels(image, run, labels, execution)
    shape = source_shape(truth)
    chunks = tuple(min(_CHUNK if len(shape) == 2 else 64, n) for n in shape)
    fingerprint = {
        "code": __version__,
        "input": image.identity(),
        "source": _identity(source),
        "shape": f"{shape}",
        "components": components,
    }
    block = block_shape(shape, chunks, execution.block)
    check = plan_check_labels(truth, image.shapes[0], "uint32", block)
    check_components(components, None, source)
    few: Few = None
    with Runner(execution, on_event) as runner:
        if not execution.resume:
            few = _values(check, components, source, runner)
        with open_run(image, run, fingerprint, execution, outputs=(f"labels/{labels}",)) as ledger:
            committed = ledger.committed("result")
            if committed is None:
                with forget_run_if_unfit(ledger):
                    if execution.resume:
                        few = _values(check, components, source, runner)
                    split = split_components(truth, components, few, block, runner)
                    committed = _import(image, split, labels, chunks, runner, ledger)
    return ImportResult(image=image.address, labels=labels, shape=shape, **committed)


def _values(check: Plan[Tile], components: str, source: str, runner: Runner) -> Few:
    """Check the labels before anything is replaced; return their values, where there are at most two."""
    few = join_few(result["few"] for result in runner.run(check))
    check_components(components, few, source)
    return few


def _identity(source: str) -> str:
    is_file = Path(source).is_file() and Path(source).suffix.lower() in SUFFIXES
    return source_identity(source) if is_file else open_image(source).identity()


def _import(
    image: Image, split: Split, labels: str, chunks: tuple[int, ...], runner: Runner, ledger: StoreLedger
) -> dict[str, Any]:
    if ledger.committed("arrays") is None:
        delete_labels(image, labels)
        create_labels(image, labels, chunks=chunks)
        ledger.commit("arrays", {})
    levels = label_arrays(image, labels)
    block = block_shape(source_shape(split.labels), chunks, runner.execution.block)
    copied = runner.run(plan_copy_labels(split.labels, levels[0], block), ledger)
    runner.run_pyramid(levels, ledger)
    commit_labels(image, labels, attributes={"sketchscale": {"stage": "import", "version": __version__}})
    largest = max((done["largest"] for done in copied), default=0)
    result = {"largest": largest, "pieces": split.count, "note": split.note}
    ledger.commit("result", result)
    return result


def export_labels(address: str, labels: str, out: str, *, overwrite: bool = False) -> str:
    """Write a label image as a tiled OME-TIFF of 32 bits, tile by tile; return a line for people.

    Its OME-XML holds the pixel size and the distance of sections, which Fiji (Bio-Formats) and QuPath read; the
    resolution tags hold the pixel size as well. (ImageJ's own TIFF has no whole numbers of 32 bits.)

    Args:
        out: the file to write; it appears when it is complete.

    Raises:
        UnknownNameError: no labels of that name.
        InputError: an id beyond 32 bits.
        OutputExistsError, OutputError: the file is there, or cannot be written.
    """
    import tifffile

    target = require_local(out)
    refuse_existing(out, overwrite=overwrite)
    image = open_image(address).label_image(labels)
    source = stored_labels(image)
    shape = source_shape(source)
    axes, sizes = "ZYX"[-len(shape) :], _sizes_um(image)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(
            part,
            _tiles(source, shape),
            shape=shape,
            dtype="uint32",
            tile=(_TILE, _TILE),
            compression="zlib",
            bigtiff=True,
            photometric="minisblack",
            ome=True,
            metadata={
                "axes": axes,
                "UUID": str(
                    uuid.uuid5(uuid.NAMESPACE_OID, image.identity())
                ),  # tifffile's own depends on machine and time
                **{f"PhysicalSize{a}": um for a, um in sizes.items() if a in axes},
                **{f"PhysicalSize{a}Unit": "µm" for a in sizes if a in axes},
            },
            resolution=(1e4 / sizes["X"], 1e4 / sizes["Y"]) if sizes else None,
            resolutionunit="CENTIMETER" if sizes else None,
        )
        part.replace(target)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror}; expected: a place to write; to fix: another --out") from error
    finally:
        part.unlink(missing_ok=True)
    return f"{out}: {' x '.join(map(str, shape))} labels"


def _sizes_um(labels: Image) -> dict[str, float]:
    """Return um per pixel along Y and X, and along Z where it is known; empty when the pixel size is unknown."""
    metadata = labels.metadata
    if metadata.unit == "pixel":
        return {}
    scale = zip(metadata.axes, metadata.levels[0].scale, strict=True)
    return {a.name.upper(): s * UNITS_UM[a.unit] for a, s in scale if a.name in "zyx" and a.unit in UNITS_UM}


def _tiles(source: LabelSource, shape: tuple[int, ...]) -> Iterator[npt.NDArray[Any]]:
    """Yield full tiles in the order of the file; those at the edge are padded with background."""
    for tile in tile_cover(shape, (*(1,) * (len(shape) - 2), _TILE, _TILE)):
        values = read_labels(source, tile.write)
        if int(values.max()) > _LARGEST:
            raise InputError.of(
                found=f"label {values.max()} in box {tile.write}",
                expected=f"ids up to {_LARGEST}, as 32 bits hold them",
                fix="renumber the labels",
            )
        height, width = values.shape[-2:]
        padding = [(0, _TILE - height), (0, _TILE - width)]
        yield np.pad(values.reshape(height, width).astype(np.uint32), padding)
