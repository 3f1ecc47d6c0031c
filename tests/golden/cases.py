"""What is computed for the goldens, from inputs that every processor makes alike.

Fields and intensities are whole numbers, sums, products and divisions of them, and draws of numpy's RandomState, whose
stream is frozen for good: nothing whose last bit a processor or a library may choose. The package is called in
`labels_of` and `table_of` alone; where its functions are renamed, these two are edited, and never the stored files.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow

from sketchscale.config import Execution
from sketchscale.engine import open_engine
from sketchscale.engine.base import run_plan
from sketchscale.geometry import whole
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import create_scratch, integrate, merge_blocks, plan_outline, plan_relabel
from sketchscale.integration.refine import RefineConfig, refine_labels
from sketchscale.integration.watershed.config import WatershedConfig
from sketchscale.integration.watershed.plan import hover_labels, merge_basins, plan_flood
from sketchscale.io.ome_zarr.arrays import ArrayRef, create_array, read_box, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.workflow.measure.measure import measure

Fields = npt.NDArray[np.float16]
Labels = npt.NDArray[np.uint32]

STEPS = {
    "plane": (integrate, plan_outline, merge_blocks, IntegrationConfig),
    "volume": (integrate, plan_outline, merge_blocks, functools.partial(IntegrationConfig, crowd=8)),
    "hover": (hover_labels, plan_flood, merge_basins, WatershedConfig),
}


def labels_of(kind: str, fields: Fields, rule: dict[str, Any], block: tuple[int, ...] | None = None) -> Labels:
    """Labels of fields: in memory, or stored and cut into blocks.

    Args:
        kind: plane, volume or hover.
        rule: fields of the kind's configuration, and of RefineConfig, which is applied in memory alone.
    """
    in_memory, plan, merge, config = STEPS[kind]
    refine = {key: rule[key] for key in ("fill_holes", "flow_error") if key in rule}
    how: Any = config(**{key: value for key, value in rule.items() if key not in refine})
    if block is None:
        return refine_labels(in_memory(fields, how), fields, RefineConfig(**refine))
    store = f"memory://golden-{uuid.uuid4()}"
    source, scratch, target = (ArrayRef(store=store, path=name) for name in ("fields", "scratch", "labels"))
    create_array(source, shape=fields.shape, chunks=(len(fields), *block), dtype="float16")
    write_box(source, whole(fields.shape), fields)
    create_array(target, shape=fields.shape[1:], chunks=block, dtype="uint32")
    create_scratch(scratch, fields.shape[1:], block)
    outline = plan(source, scratch, store, how, block=block)
    engine = open_engine("serial")
    run_plan(outline, engine)
    merge(outline)
    run_plan(plan_relabel(outline, target), engine)
    return read_box(target, whole(fields.shape[1:]))


def table_of(folder: Path, labels: Labels, image: npt.NDArray[Any], block: int) -> pyarrow.Table:
    """The table of labels (y, x) or (z, y, x) on an image of two channels: 0.5 um per px, 1.25 um from z to z."""
    address, ndim = str(folder / f"{uuid.uuid4()}.zarr"), labels.ndim
    chunk = (8,) * ndim
    depth = 1.25 if ndim == 3 else None
    (level,) = create_image(
        address,
        image.shape,
        "czyx"[:1] + "zyx"[3 - ndim :],
        image.dtype,
        (1, *chunk),
        spacing=(0.5, 0.5),
        depth=depth,
        unit="micrometer",
        channels=("DAPI", "GFP"),
        levels=1,
    )
    write_box(level, whole(image.shape), image)
    commit_image(address)
    (level,) = create_labels(open_image(address), "nuclei", chunks=chunk)
    write_box(level, whole(labels.shape), labels)
    commit_labels(open_image(address), "nuclei")
    measure(address, "nuclei", Execution(engine="serial", block=block))
    return read_table(address, "nuclei")


def discs(shape: tuple[int, ...], count: int, seed: int, largest: int = 9) -> tuple[Labels, npt.NDArray[np.int64]]:
    """Discs or balls, later ones below earlier ones, so that many touch; and centre and radius of each, whole px."""
    rng = np.random.RandomState(seed)
    labels, places = np.zeros(shape, np.uint32), np.indices(shape)
    circles = np.stack([*(rng.randint(0, n, count) for n in shape), rng.randint(3, largest + 1, count)], axis=1)
    for number, (*centre, radius) in enumerate(circles.tolist(), start=1):
        inside = sum((p - c) ** 2 for p, c in zip(places, centre, strict=True)) < radius**2
        labels[inside & (labels == 0)] = number
    return labels, circles


def flow_fields(shape: tuple[int, ...], count: int, seed: int, noise: int) -> Fields:
    """Flow towards the centres, in eighths of the way, a distance in halves, holes, and noise in sixteenths."""
    labels, circles = discs(shape, count, seed)
    places, rng = np.indices(shape), np.random.RandomState(seed + 1)
    fields = np.zeros((len(shape) + 1, *shape), np.float64)
    fields[-1] = -5
    for number, (*centre, radius) in enumerate(circles.tolist(), start=1):
        here = labels == number
        away = [c - p[here] for p, c in zip(places, centre, strict=True)]
        for axis, steps in enumerate(away):
            fields[axis, here] = steps / 8
        fields[-1, here] = (radius**2 - sum(steps**2 for steps in away)) // radius / 2
    fields[:-1] += rng.randint(-noise, noise + 1, fields[:-1].shape) / 16
    fields[-1][(rng.randint(0, 60, shape) == 0) & (labels > 0)] = -4
    return fields.astype(np.float16)


def hover_maps(shape: tuple[int, int], count: int, seed: int, noise: int) -> Fields:
    """v and h from -1 to 1 across each disc, and a probability in sixteenths."""
    labels, circles = discs(shape, count, seed)
    places, rng = np.indices(shape), np.random.RandomState(seed + 1)
    fields = np.zeros((3, *shape), np.float64)
    for number, (y, x, radius) in enumerate(circles.tolist(), start=1):
        here = labels == number
        fields[0, here], fields[1, here] = (places[0][here] - y) / radius, (places[1][here] - x) / radius
    fields[:2] += rng.randint(-noise, noise + 1, fields[:2].shape) / 64
    fields[2] = np.where(labels > 0, 12, 2) / 16 + rng.randint(-2, 3, shape) / 16
    return fields.astype(np.float16)


PLANE, WIDE, VOLUME = (72, 90), (40, 56), (14, 36, 40)
BLOCKS: dict[str, tuple[tuple[int, ...], ...]] = {
    "plane": ((72, 90), (16, 16), (24, 48)),
    "hover": ((72, 90), (16, 16), (24, 48)),
    "volume": ((14, 36, 40), (8, 8, 8), (4, 16, 40)),
}

LABELS: dict[str, tuple[str, Fields, dict[str, Any]]] = {
    "plane": ("plane", flow_fields(PLANE, 26, 1, 2), {"threshold": -2.0, "min_size": 6}),
    "plane, noise": ("plane", flow_fields(PLANE, 26, 1, 14), {"threshold": -2.0, "min_size": 6, "max_size": 190}),
    "plane, no borders": (
        "plane",
        flow_fields(PLANE, 30, 3, 14),
        {"threshold": -1.0, "prominence": -8.0, "link_radius": 1, "min_size": 4},
    ),
    "plane, join_share": (
        "plane",
        flow_fields(PLANE, 26, 1, 14),
        {"threshold": -2.0, "prominence": -8.0, "join_share": 0.2, "join_radius": 4, "min_size": 6},
    ),
    "plane, euler": (
        "plane",
        flow_fields(PLANE, 26, 5, 6),
        {"threshold": -2.0, "steps": 40, "method": "euler", "min_size": 6},
    ),
    "volume": ("volume", flow_fields(VOLUME, 14, 7, 2), {"threshold": -2.0, "min_size": 10}),
    "volume, noise": ("volume", flow_fields(VOLUME, 14, 7, 10), {"threshold": -2.0, "crowd": 3, "min_size": 10}),
    "volume, crowd 1": (
        "volume",
        flow_fields(VOLUME, 18, 9, 6),
        {"threshold": -2.0, "crowd": 1, "link_radius": 1, "prominence": -8.0, "min_size": 10, "max_size": 900},
    ),
    "volume, join_share": (
        "volume",
        flow_fields(VOLUME, 14, 7, 10),
        {"threshold": -2.0, "crowd": 2, "prominence": -8.0, "join_share": 0.3, "join_radius": 3, "min_size": 10},
    ),
    "hover": ("hover", hover_maps(PLANE, 26, 11, 1), {"window": 7, "opening": 1, "min_size": 6}),
    "hover, noise": ("hover", hover_maps(PLANE, 26, 11, 24), {"window": 9, "edge": 0.2, "holes": 8, "min_size": 6}),
}
"""Name to kind, fields and rule."""

REFINED: dict[str, tuple[str, Fields, dict[str, Any]]] = {
    f"plane, {key} {value}": (
        "plane",
        flow_fields(PLANE, 26, 1, 6),
        {"threshold": -2.0, "min_size": 6, key: value},
    )
    for key, value in (("fill_holes", 0.0), ("fill_holes", 0.1), ("flow_error", 1.0))
}


def intensities(shape: tuple[int, ...], labels: Labels, dtype: str) -> npt.NDArray[Any]:
    """Two channels: objects on a dark ground, with whole noise; floats are in eighths."""
    rng = np.random.RandomState(21)
    bright = rng.randint(40, 180, (2, int(labels.max()) + 1))
    bright[:, 0] = 20
    pixels = bright[:, labels] + rng.randint(-15, 16, (2, *shape))
    return (pixels / 8).astype(dtype) if np.dtype(dtype).kind == "f" else pixels.astype(dtype)


TABLES: dict[str, tuple[Labels, npt.NDArray[Any]]] = {
    f"{len(shape)}-D {dtype}": (labels, intensities(shape, labels, dtype))
    for shape, count in ((WIDE, 9), (VOLUME, 9))
    for labels in (discs(shape, count, 31)[0],)
    for dtype in ("uint8", "float32")
}
"""Name to labels and image."""


def digest(labels: Labels) -> dict[str, Any]:
    """Shape, number of objects, and SHA-256 of the ids as little-endian uint32."""
    data = np.ascontiguousarray(labels, "<u4").tobytes()
    return {"shape": list(labels.shape), "n": int(labels.max()), "sha256": hashlib.sha256(data).hexdigest()}
