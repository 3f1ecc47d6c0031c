"""Segment an image: prediction, integration, pyramid, audit, commit. Stages are plans; the ledger remembers each task.

    histogram ─▶ predict ─▶ blend ─▶ outline ─▶ merge ─▶ relabel ─▶ pyramid ─▶ audit ─▶ commit
    (ranges)     (tiles)    (fields) (provisional ids)   (labels level 0)                (labels visible)

Scratch arrays and the ledger live in `.sketchscale/segment-<labels>` beside the image; the scratch goes when the labels
are committed, the ledger stays for `verify` and `status`. Nothing is listed under `labels/` before the commit.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from sketchscale import __version__
from sketchscale.config import Execution, SegmentOptions, as_json
from sketchscale.engine.base import Plan
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.geometry import block_shape
from sketchscale.integration.audit import SeamAudit, audit_seams
from sketchscale.integration.euler import IntegrationConfig
from sketchscale.integration.plan import BlockTask, merge_blocks, plan_outline, plan_relabel
from sketchscale.intensity import channel_ranges, plan_histogram
from sketchscale.io.arrays import ArrayRef
from sketchscale.io.image import (
    Image,
    PlaneRef,
    commit_labels,
    count_absent,
    create_labels,
    delete_labels,
    label_arrays,
    open_image,
)
from sketchscale.io.ledger import StoreLedger
from sketchscale.io.pyramid import plan_level
from sketchscale.networks.checkpoint import Model, ModelConfig, load_model
from sketchscale.prediction.blend import TileGrid
from sketchscale.prediction.plan import FIELDS, BlendConfig, PredictConfig, plan_blend, plan_predict
from sketchscale.prediction.predictor import Recipe, check_device
from sketchscale.prediction.rescale import Zoom
from sketchscale.workflow.runner import (
    Runner,
    StageLine,
    ensure_array,
    forgotten_if_unfit,
    open_run,
    quiet,
    refuse_foreign_labels,
)

__all__ = [
    "SegmentResult",
    "choose_channels",
    "integration_config",
    "plan_segment",
    "recipe_of",
    "scale_of",
    "segment",
    "tile_grid",
    "zoom_of",
]


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentResult:
    """What a segmentation found.

    Attributes:
        image, labels: address and label name.
        n: objects.
        audit: what the seam audit looked at and found.
        stages: tasks, declared memory and seconds of each stage.
        absent_chunks: input chunks that a sparse image does not store; read as zeros.
    """

    image: str
    labels: str
    n: int
    audit: SeamAudit
    stages: tuple[StageLine, ...]
    absent_chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Everything that is known before the first pixel is read."""

    image: Image
    plane: PlaneRef
    channels: tuple[int, ...]
    model: Model
    model_folder: str
    options: SegmentOptions
    recipe: Recipe
    zoom: Zoom
    grid: TileGrid
    integration: IntegrationConfig
    block: tuple[int, int]
    chunks: tuple[int, int]

    @property
    def run(self) -> str:
        return f"segment-{self.options.labels}"

    def fingerprint(self) -> dict[str, str]:
        """What the labels depend on; two runs with the same fingerprint write the same bytes."""
        return {
            "code": __version__,
            "input": self.image.identity(),
            "model": self.model.sha256,
            "plane": json.dumps([self.plane.index, self.channels]),
            "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
            "grid": json.dumps([asdict(self.grid), self.zoom.scale], sort_keys=True),
            "integration": as_json(self.integration),
            # not a matter of the result: blocks of another size are other tasks
            "block": json.dumps(self.block),
        }


def segment(
    image: str, options: SegmentOptions | None = None, execution: Execution | None = None, on_event: Any = quiet
) -> SegmentResult:
    """Outline every object of an image and store the labels beside it.

    Args:
        image: address of an OME-Zarr image (one field of a plate, too).

    Raises:
        InputError: image, model or options do not fit, or the memory budget is too small; nothing was written.
        OutputExistsError: the labels are there; overwrite or resume.
        QualityError: the seam audit found a difference; the labels are not committed.
    """
    execution = execution or Execution()
    job = _prepare(image, options or SegmentOptions(), execution)
    if execution.budget_bytes is not None:
        _dry_run(job, execution)
    with Runner(execution, on_event) as runner:
        return _Segmentation(job, runner).run()


def plan_segment(
    image: str, options: SegmentOptions | None = None, execution: Execution | None = None
) -> tuple[StageLine, ...]:
    """The stages that `segment` would run, with tasks and declared memory; nothing is written."""
    execution = execution or Execution()
    return _dry_run(_prepare(image, options or SegmentOptions(), execution), execution)


def _dry_run(job: _Job, execution: Execution) -> tuple[StageLine, ...]:
    with Runner(execution) as runner:
        return _Segmentation(job, runner).dry_run()


def _prepare(address: str, options: SegmentOptions, execution: Execution) -> _Job:
    image = open_image(address)
    plane = image.plane(t=options.t, z=options.z)
    check_device(options.device)
    model = load_model(options.model)
    channels = _model_channels(plane, options, model.config)
    chunks = _label_chunks(plane)
    zoom = zoom_of(plane.shape, model, options)
    return _Job(
        image=image,
        plane=plane,
        channels=channels,
        model=model,
        model_folder=options.model,
        options=options,
        recipe=recipe_of(options),
        zoom=zoom,
        grid=tile_grid(zoom.scaled_shape, model, options),
        integration=integration_config(model, options),
        block=_block(plane.shape, chunks, execution),
        chunks=chunks,
    )


def recipe_of(options: SegmentOptions) -> Recipe:
    """How the network runs; on a GPU eight tiles at once."""
    batch = options.batch or (1 if options.device == "cpu" else 8)
    return Recipe(device=options.device, precision=options.precision, batch=batch, flips=options.flips)


def scale_of(model: Model, options: SegmentOptions) -> float:
    """Network pixels per image pixel: `rescale`, or the model's diameter over the given one; else 1.

    Raises:
        InputError: both were given, a diameter that is no length, or a model that does not know its own.
    """
    if options.diameter is None:
        return 1.0 if options.rescale is None else options.rescale
    if options.rescale is not None:
        raise InputError("--diameter and --rescale exclude each other: give the objects' size, or the scale itself")
    if not (0 < options.diameter < float("inf") and model.config.diameter > 0):
        raise InputError.of(
            found=f"diameter {options.diameter:g} px, and {model.config.diameter:g} px of model {options.model}",
            expected="both above 0",
            fix="--rescale, if the model does not know its diameter",
        )
    return model.config.diameter / options.diameter


def zoom_of(shape: tuple[int, int], model: Model, options: SegmentOptions) -> Zoom:
    """The scaled plane that the network sees."""
    return Zoom(shape=shape, scale=scale_of(model, options))


def tile_grid(shape: tuple[int, int], model: Model, options: SegmentOptions) -> TileGrid:
    """The network's tiles over a (scaled) plane: the model's size unless the options say another."""
    config = model.config
    return TileGrid(
        shape=shape,
        tile=config.tile if options.tile is None else options.tile,
        overlap=config.overlap if options.overlap is None else options.overlap,
    )


def integration_config(model: Model, options: SegmentOptions) -> IntegrationConfig:
    """The rule from fields to labels: the model's threshold and sizes unless the options say others.

    Thresholds are on the network's distances, whatever the scale, and so is the model's own minimum size; sizes that
    the options give are pixels of the image.
    """
    config, scale = model.config, scale_of(model, options)
    return IntegrationConfig(
        threshold=(config.threshold if options.threshold is None else options.threshold) / scale,
        min_size=round(config.min_size / scale**2) if options.min_size is None else options.min_size,
        max_size=options.max_size,
        method=options.method,
        steps=options.steps,
        link_radius=config.link_radius if options.link_radius is None else options.link_radius,
        saddle=config.saddle if options.saddle is None else options.saddle,
    )


def _label_chunks(plane: PlaneRef) -> tuple[int, int]:
    """Chunks of labels follow the image's where these are of a sensible size; else 512 px."""
    y, x = (c if 64 <= c <= 1024 else 512 for c in plane.chunks)
    return min(y, plane.shape[0]), min(x, plane.shape[1])


def _block(shape: tuple[int, int], chunks: tuple[int, int], execution: Execution) -> tuple[int, int]:
    y, x = block_shape(shape, chunks, execution.block)
    return y, x


def _model_channels(plane: PlaneRef, options: SegmentOptions, config: ModelConfig) -> tuple[int, ...]:
    """Indices of the channels the network reads.

    Raises:
        InputError: the image has another number than the model reads and none were chosen.
    """
    least, most = config.network.channels - config.absent_channels, config.network.channels
    wanted = str(most) if least == most else f"{least} to {most}"
    if options.channels is None and not least <= len(plane.channels) <= most:
        raise InputError.of(
            found=f"{plane.array} has {len(plane.channels)} channels ({', '.join(plane.channels)})",
            expected=f"{wanted}, which model {options.model} reads",
            fix="name them with --channel, or use a model for this kind of image",
        )
    chosen = choose_channels(plane, options.channels if options.channels is not None else range(len(plane.channels)))
    if not least <= len(chosen) <= most:
        raise InputError(f"{len(chosen)} channels were chosen; expected: {wanted}, which model {options.model} reads")
    return chosen


def choose_channels(plane: PlaneRef, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Indices of channels by name or index.

    Raises:
        UnknownNameError: lists the image's channels.
    """
    found = []
    for name in map(str, wanted):
        if name in plane.channels:
            found.append(plane.channels.index(name))
        elif name.isdigit() and int(name) < len(plane.channels):
            found.append(int(name))
        else:
            raise UnknownNameError.among("channel", name, plane.channels)
    return tuple(found)


class _Segmentation:
    """The stages of one image, in order."""

    def __init__(self, job: _Job, runner: Runner) -> None:
        self.job, self.runner = job, runner

    def dry_run(self) -> tuple[StageLine, ...]:
        """The plans of `run`, made over empty arrays in memory."""
        job, nowhere = self.job, f"memory://plan-{uuid.uuid4()}"
        tiles, fields = self._scratch_arrays(nowhere)
        target = ensure_array(
            ArrayRef(store=nowhere, path="labels"), shape=job.plane.shape, chunks=job.chunks, dtype="uint32"
        )
        outline = self._outline_plan(fields, nowhere)
        for plan in (
            plan_histogram(job.plane, job.block, job.channels),
            plan_predict(self._predict_config(tiles, ((0.0, 1.0),) * len(job.channels)), **self._network_bytes()),
            plan_blend(BlendConfig(grid=job.grid, zoom=job.zoom, tiles=tiles, fields=fields), job.block),
            outline,
            plan_relabel(outline, target),
        ):
            self.runner.dry(plan)
        return tuple(self.runner.stages)

    def run(self) -> SegmentResult:
        job, execution = self.job, self.runner.execution
        refuse_foreign_labels(job.image, job.run, job.options.labels, execution)
        outputs = (f"labels/{job.options.labels}",)
        ledger = open_run(job.image, job.run, job.fingerprint(), execution, outputs=outputs)
        committed = ledger.committed("result")
        if committed is None:
            committed = self._outline_everything(ledger)
        ledger.clear_scratch()
        return SegmentResult(
            image=job.image.address,
            labels=job.options.labels,
            n=committed["n"],
            audit=SeamAudit(**committed["audit"]),
            stages=tuple(self.runner.stages),
            absent_chunks=committed["absent_chunks"],
        )

    def _outline_everything(self, ledger: StoreLedger) -> dict[str, Any]:
        job = self.job
        with forgotten_if_unfit(ledger):
            ranges, absent = self._ranges(ledger)
        fields = self._fields(ledger, ranges)
        levels = self._label_levels(ledger)
        outline = self._outline_plan(fields, ledger.scratch)
        outcome = self.runner.run(outline, ledger)
        objects = self._timed("merge", lambda: merge_blocks(outline))
        self.runner.run(plan_relabel(outline, levels[0]), ledger)
        for source, target in itertools.pairwise(levels):
            self.runner.run(plan_level(source, target, "nearest"), ledger)
        audit = self._timed("audit", lambda: audit_seams(outline, outcome, objects, levels[0]))
        result = {"n": objects.count, "audit": asdict(audit), "absent_chunks": absent, "block": list(self.job.block)}
        commit_labels(
            job.image, job.options.labels, attributes={"sketchscale": self._provenance(ranges, objects.count)}
        )
        ledger.commit("result", result)
        return result

    def _label_levels(self, ledger: StoreLedger) -> tuple[ArrayRef, ...]:
        """The label arrays: made once, and kept by a resumed run."""
        image, name = self.job.image, self.job.options.labels
        if ledger.committed("arrays") is None:
            delete_labels(image, name)
            create_labels(image, name, chunks=self.job.chunks)
            ledger.commit("arrays", {"levels": len(label_arrays(image, name))})
        return label_arrays(image, name)

    def _ranges(self, ledger: StoreLedger) -> tuple[tuple[tuple[float, float], ...], int]:
        job = self.job
        config = job.model.config
        ranges = channel_ranges(
            lambda plan: self.runner.run(plan, ledger),
            job.plane,
            job.block,
            job.channels,
            low=config.low,
            high=config.high,
        )
        return ranges, count_absent(job.plane)

    def _fields(self, ledger: StoreLedger, ranges: tuple[tuple[float, float], ...]) -> ArrayRef:
        job = self.job
        tiles, fields = self._scratch_arrays(ledger.scratch)
        self.runner.run(plan_predict(self._predict_config(tiles, ranges), **self._network_bytes()), ledger)
        self.runner.run(
            plan_blend(BlendConfig(grid=job.grid, zoom=job.zoom, tiles=tiles, fields=fields), job.block), ledger
        )
        return fields

    def _scratch_arrays(self, store: str) -> tuple[ArrayRef, ArrayRef]:
        """Raw tiles, one chunk per batch, and blended fields; uncompressed, because they are noise to a codec."""
        job = self.job
        side = job.grid.tile
        tiles = ensure_array(
            ArrayRef(store=store, path="tiles"),
            shape=(len(job.grid), FIELDS, side, side),
            chunks=(job.recipe.batch, FIELDS, side, side),
            dtype="float16",
            compress=False,
        )
        fields = ensure_array(
            ArrayRef(store=store, path="fields"),
            shape=(FIELDS, *job.plane.shape),
            chunks=(FIELDS, *job.chunks),
            dtype="float16",
            compress=False,
        )
        return tiles, fields

    def _predict_config(self, tiles: ArrayRef, ranges: tuple[tuple[float, float], ...]) -> PredictConfig:
        job = self.job
        return PredictConfig(
            plane=job.plane,
            channels=job.channels,
            ranges=ranges,
            model=job.model_folder,
            model_sha256=job.model.sha256,
            recipe=job.recipe,
            grid=job.grid,
            zoom=job.zoom,
            tiles=tiles,
        )

    def _network_bytes(self) -> dict[str, int]:
        """What the network holds: its weights, and the finest level's maps, eight of which are alive at once."""
        job = self.job
        weights = sum(p.numel() * 4 for p in job.model.network.parameters())
        activations = job.grid.tile**2 * job.model.config.network.widths[0] * 4 * 8
        return {"activation_bytes": activations, "weight_bytes": 2 * weights}

    def _timed(self, stage: str, work: Callable[[], Result]) -> Result:
        """Work of the driver, with its time among the stages."""
        started = time.perf_counter()
        result = work()
        self.runner.timed(stage, time.perf_counter() - started)
        return result

    def _outline_plan(self, fields: ArrayRef, store: str) -> Plan[BlockTask]:
        job = self.job
        provisional = ensure_array(
            ArrayRef(store=store, path="provisional"), shape=job.plane.shape, chunks=job.block, dtype="uint32"
        )
        return plan_outline(fields, provisional, store, job.integration, block=job.block)

    def _provenance(self, ranges: tuple[tuple[float, float], ...], n: int) -> dict[str, Any]:
        """What made these labels: everything a result may depend on, and nothing else (no times, no paths)."""
        job = self.job
        return {
            "stage": "segment",
            "version": __version__,
            "n": n,
            "input": job.image.identity(),
            "model": {"name": job.model_folder.rstrip("/").rpartition("/")[2], "sha256": job.model.sha256},
            "plane": {"index": dict(job.plane.index), "channels": list(job.channels)},
            "ranges": [list(r) for r in ranges],
            "recipe": asdict(job.recipe),
            "grid": {"tile": job.grid.tile, "overlap": job.grid.overlap, "scale": job.zoom.scale},
            "integration": asdict(job.integration),
        }
