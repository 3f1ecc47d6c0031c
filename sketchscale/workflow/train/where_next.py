"""Where to draw next: rank the boxes of a whole study by how much a model would learn from them.

    image ─▶ boxes of a fixed grid ─┬─ annotated ─▶ look                    one task a box, on any engine;
                                    └─ the others ─▶ look, uncertainty ─▶   choose_places ─▶ boxes, best first

Boxes do not overlap, and a box with a single annotated pixel is never proposed. Narrow boxes at the far edges (less
than half a box) are left out. At most `sample` boxes of each kind are used in an image, spread evenly over the grid, so
that the cost is bounded on images of any size: four passes of the network over a box and its margin each, and one pass
over the pixels for their percentiles. Nothing is written next to the images; the result depends on images, model,
sketches and options, never on chunks, engine or workers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sketchscale.annotations.events import Stroke
from sketchscale.annotations.opening import SketchReading, open_sketch_file
from sketchscale.annotations.painting import extent_of
from sketchscale.config import Execution
from sketchscale.engine.base import Event, Json, Needs, Plan
from sketchscale.errors import InputError
from sketchscale.geometry import Box, tile_cover
from sketchscale.inference.backend import Recipe, load_backend, run_tiles
from sketchscale.inference.grid import pad_tile
from sketchscale.inference.plan import needs_of
from sketchscale.inference.resample import resampled_box, scaled_length
from sketchscale.inference.where_next import (
    FLIPS,
    choose_places,
    flip_tile,
    look_of,
    mean_fields,
    uncertainty_of,
    unflip_fields,
)
from sketchscale.intensity import channel_ranges, normalize
from sketchscale.io.ome_zarr.planes import PixelsRef, read_plane
from sketchscale.io.stores.addresses import absolute_address
from sketchscale.networks.checkpoint import is_shipped
from sketchscale.options import NextOptions
from sketchscale.workflow.runner import Runner, quiet
from sketchscale.workflow.segment.job import SegmentJob, flow_rule, prepare, scale_of
from sketchscale.workflow.verbs import verb

__all__ = ["NextResult", "Place", "Source", "predict_box", "sources_of", "where_next"]

_MARGIN = 32
"""Margin in px around a box that the network reads."""

_STEP = 16
"""Sides of tiles are multiples of this, which every network here accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A box to draw in.

    Attributes:
        image: its address.
        y0, x0, y1, x1: the box in level-0 pixels, half open.
        score: uncertainty x novelty, see prediction.places.
        uncertainty, novelty: each in [0, 1].
        reason: for people.
    """

    rank: int
    image: str
    y0: int
    x0: int
    y1: int
    x1: int
    score: float
    uncertainty: float
    novelty: float
    reason: str

    @property
    def box(self) -> Box:
        """The box in level-0 pixels."""
        return Box((self.y0, self.x0), (self.y1, self.x1))


@dataclass(frozen=True, slots=True, kw_only=True)
class NextResult:
    """The places, best first, and what they were chosen from.

    Attributes:
        boxes: on the grids of all images. annotated: with something drawn in them. looked_at: others that were scored.
    """

    places: tuple[Place, ...]
    boxes: int
    annotated: int
    looked_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """An image with the network that reads it, and how it reads it; `threshold` is that of the network's distances."""

    image: str
    plane: PixelsRef
    channels: tuple[int, ...]
    ranges: tuple[tuple[float, float], ...]
    model: str
    model_sha256: str
    recipe: Recipe
    threshold: float
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTask:
    """A box of an image."""

    source: int
    box: Box
    annotated: bool

    @property
    def key(self) -> str:
        """A name that sorts by image and position."""
        return f"{self.source:06d}." + ".".join(f"{a:08d}" for a in self.box.start)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookConfig:
    """What every task needs."""

    sources: tuple[Source, ...]
    size: int


@verb({"histogram": 1, "look": 4})
def where_next(
    images: Sequence[str],
    options: NextOptions | None = None,
    execution: Execution | None = None,
    on_event: Callable[[Event], None] = quiet,
    *,
    cancel: threading.Event | None = None,
) -> NextResult:
    """Return the boxes from which the model would learn most, over all images.

    Args:
        images: addresses of single images, see `workflow.images.expand`.

    Returns:
        Fewer than `n` places where fewer boxes are free of annotation; none where there is no such box.

    Raises:
        InputError: images, model, sketches or options do not fit; nothing is written in any case.
    """
    options, execution = options or NextOptions(), execution or Execution()
    if len(options.sketches) > len(images):
        raise InputError.of(
            found=f"{len(options.sketches)} sketches for {len(images)} images",
            expected="at most one for each image, in order",
            fix="name the annotated images first",
        )
    with Runner(execution, on_event) as runner:
        jobs = [prepare(image, options.segment, execution) for image in images]
        sketches = [*options.sketches, *[None] * (len(jobs) - len(options.sketches))]
        grids = [_grid(job.pixels, sketch, options) for job, sketch in zip(jobs, sketches, strict=True)]
        plan = _plan(jobs, sources_of(jobs, runner), grids, options)
        looks = runner.run(plan)
    return _ranked(plan, looks, grids, options)


def sources_of(jobs: Sequence[SegmentJob], runner: Runner) -> tuple[Source, ...]:
    """Return the images with the percentiles that scale the network's input; reads every pixel once."""
    return tuple(_source(job, runner) for job in jobs)


def _source(job: SegmentJob, runner: Runner) -> Source:
    config, rule = job.model.config, flow_rule(job.model, job.options, "where-next")
    scale = scale_of(job.model, job.options)
    ranges = channel_ranges(runner.run, job.pixels, job.block, job.channels, low=config.low, high=config.high)
    return Source(
        image=job.image.address,
        plane=job.pixels,
        channels=job.channels,
        ranges=ranges,
        model=job.model_folder if is_shipped(job.model_folder) else absolute_address(job.model_folder),
        model_sha256=job.model.sha256,
        recipe=job.recipe,
        threshold=rule.threshold * scale,
        scale=scale,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grid:
    """Boxes of an image: those with annotation, and the others."""

    annotated: tuple[Box, ...]
    free: tuple[Box, ...]


def _grid(plane: PixelsRef, sketch: str | None, options: NextOptions) -> _Grid:
    """Split the boxes of an image into those with an annotated pixel and the others."""
    reading = SketchReading(kind=options.sketch_kind, classes=options.sketch_classes)
    sides = [min(options.size, n) for n in plane.shape]
    tiles = (tile.write for tile in tile_cover(plane.shape, sides))
    boxes = [box for box in tiles if all(2 * n >= side for n, side in zip(box.shape, sides, strict=True))]
    if sketch is None:
        return _Grid(annotated=(), free=tuple(boxes))
    opened = open_sketch_file(sketch, shape=plane.section, reading=reading).sketch
    extents = [_extent(event) for event in opened.marks]
    drawn = set()
    for box in boxes:
        if any(extent.intersect(box).size for extent in extents):  # only boxes near a stroke are rasterised
            raster = opened.rasterize(box)
            if (raster.labels >= 0).any() or raster.boundary.any():
                drawn.add(box)
    return _Grid(annotated=tuple(b for b in boxes if b in drawn), free=tuple(b for b in boxes if b not in drawn))


def _extent(event: Any) -> Box:
    low, high = extent_of(event)
    reach = 2 + (math.ceil(event.radius_px) if isinstance(event, Stroke) else 0)
    return Box((math.floor(low[0]), math.floor(low[1])), (math.ceil(high[0]), math.ceil(high[1]))).grow(reach)


def _plan(
    jobs: Sequence[SegmentJob], sources: tuple[Source, ...], grids: Sequence[_Grid], options: NextOptions
) -> Plan[BoxTask]:
    tasks = [
        BoxTask(source=number, box=box, annotated=annotated)
        for number, grid in enumerate(grids)
        for annotated, boxes in ((True, grid.annotated), (False, grid.free))
        for box in _spread(boxes, options.sample)
    ]
    models = [job.model for job in jobs]
    pixel_bytes = max(m.declares.bytes_per_pixel + 8 * m.config.network.channels + 40 for m in models)
    return Plan(
        stage="look",
        fn=look_at_box,
        tasks=tuple(sorted(tasks, key=lambda task: task.key)),
        config=LookConfig(sources=sources, size=options.size),
        task_bytes=max(_tile_side(options.size, s.scale) for s in sources) ** 2 * pixel_bytes * len(FLIPS),
        worker_bytes=2 * max(sum(p.numel() * 4 for p in job.model.network.parameters()) for job in jobs),
        needs=Needs(warm=True, gpu=any(needs_of(source.recipe).gpu for source in sources)),
    )


def _spread(boxes: Sequence[Box], most: int) -> Sequence[Box]:
    """Return at most `most` boxes, evenly spaced in raster order."""
    if len(boxes) <= most:
        return boxes
    return [boxes[(2 * i + 1) * len(boxes) // (2 * most)] for i in range(most)]


def look_at_box(task: BoxTask, config: LookConfig) -> Json:
    """Return the uncertainty of a box (None where it is annotated, as it is not needed) and its look."""
    source = config.sources[task.source]
    pixels, views = predict_box(source, task.box, config.size)
    uncertainty = None if task.annotated else round(float(uncertainty_of(views, source.threshold).mean()), 6)
    return {"uncertainty": uncertainty, "look": list(look_of(pixels, mean_fields(views), source.threshold))}


def predict_box(source: Source, box: Box, size: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the normalised pixels (c, y, x) of a box, and its fields through each flip, (flips, 3, y, x).

    Both are on the network's grid.

    Args:
        size: the box's largest side, px of the image.
    """
    scale = source.scale
    read = box.grow(math.ceil(_MARGIN / scale)).clip(source.plane.shape)
    side = _tile_side(size, scale)
    tile = pad_tile(resampled_box(read_plane(source.plane, read, source.channels), scale), (side, side))
    backend = load_backend(source.model, source.model_sha256, source.recipe)
    inside = box.relative_to(read.start)
    ends = zip(inside.start, inside.stop, strict=True)
    inner = (slice(None), *(slice(round(a * scale), max(1, round(b * scale))) for a, b in ends))
    fields = run_tiles(backend, [flip_tile(tile, flip) for flip in FLIPS], source.ranges)
    views = [unflip_fields(seen, flip)[inner] for seen, flip in zip(fields, FLIPS, strict=True)]
    return normalize(tile[inner], source.ranges), np.stack(views)


def _tile_side(size: int, scale: float) -> int:
    """Return the side, px of the network, that holds a box with its margin, rounded outwards."""
    widest = size if scale == 1 else scaled_length(size + 2, scale) + 2
    return _STEP * math.ceil((widest + 2 * _MARGIN) / _STEP)


def _ranked(plan: Plan[BoxTask], looks: Sequence[Json], grids: Sequence[_Grid], options: NextOptions) -> NextResult:
    pairs = list(zip(plan.tasks, looks, strict=True))
    free = [(task, look) for task, look in pairs if not task.annotated]
    known = [look["look"] for task, look in pairs if task.annotated]
    uncertainty = [look["uncertainty"] for _, look in free]
    typical = float(np.median(uncertainty)) if uncertainty else 0.0
    places = []
    for rank, choice in enumerate(choose_places(uncertainty, [look["look"] for _, look in free], known, options.n), 1):
        task, look = free[choice.index]
        places.append(
            Place(
                rank=rank,
                image=plan.config.sources[task.source].image,
                y0=task.box.start[0],
                x0=task.box.start[1],
                y1=task.box.stop[0],
                x1=task.box.stop[1],
                score=round(choice.score, 6),
                uncertainty=look["uncertainty"],
                novelty=round(choice.novelty, 6),
                reason=_reason(look["uncertainty"], typical, choice.novelty, bool(known)),
            )
        )
    annotated = sum(len(grid.annotated) for grid in grids)
    boxes = annotated + sum(len(grid.free) for grid in grids)
    return NextResult(places=tuple(places), boxes=boxes, annotated=annotated, looked_at=len(free))


def _reason(uncertainty: float, typical: float, novelty: float, annotated: bool) -> str:
    """Return why a box was chosen: clearly more uncertain than most, unlike the rest, both, or the best left."""
    words = []
    if uncertainty > 1.1 * typical:
        words.append("uncertain" if typical == 0 else f"uncertain ({uncertainty / typical:.1f} x the usual)")
    if novelty >= 1:
        words.append("unlike anything drawn" if annotated else "unlike the other places")
    return ", ".join(words) or "the best of what is left"
