"""Segment a whole volume (z, y, x): the stages of segment.py over blocks with depth.

    histogram ─▶ predict ─▶ blend ─▶ outline ─▶ merge ─▶ relabel ─▶ audit ─▶ pyramid ─▶ commit

A network of two dimensions sees the planes of three directions, one of three dimensions sees 3-D tiles
(prediction/volume.py). The labels are (z, y, x) beside the image; the levels of their pyramid keep the depth, as those
of our images do. Scratch, ledger, commit and resume are those of segment.py, with the same names.

What options mean here, where a model of two dimensions says nothing else: sizes are voxels; the model's minimum area
becomes that of the ball with this cross-section, 0.75 A^1.5, divided by the anisotropy; the link radius is 2, and no
piece is joined by its ends; crowds (integration/volume_merge.py) follow the model's diameter. A block of N px is a cube
with as many voxels as a square of N.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sketchscale import __version__
from sketchscale.config import Execution, VolumeOptions, as_json
from sketchscale.engine.base import Plan
from sketchscale.errors import InputError
from sketchscale.geometry import block_shape, whole
from sketchscale.integration.audit import SeamAudit
from sketchscale.integration.plan import BlockTask, plan_relabel
from sketchscale.integration.volume import VolumeConfig
from sketchscale.integration.volume_audit import audit_volume_seams
from sketchscale.integration.volume_plan import integrate_volume, merge_volume_blocks, plan_volume_outline
from sketchscale.intensity import array_ranges, channel_ranges, plan_histogram
from sketchscale.io.arrays import ArrayRef
from sketchscale.io.image import Image, open_image
from sketchscale.io.ledger import StoreLedger
from sketchscale.io.new_images import commit_labels, create_labels, delete_labels, label_arrays
from sketchscale.io.planes import VolumeRef, count_absent
from sketchscale.io.pyramid import plan_level
from sketchscale.networks.checkpoint import Model, load_model
from sketchscale.prediction.predictor import Recipe, load_network
from sketchscale.prediction.volume import (
    FIELDS,
    Grids,
    VolumeBlendConfig,
    VolumePredictConfig,
    blend_volume,
    plan_tasks,
    plan_volume_blend,
    plan_volume_predict,
    run_part,
    tiles_shape,
    volume_grids,
    write_box_of,
)
from sketchscale.workflow.empty_results import empty_facts
from sketchscale.workflow.precision import kept_by_run
from sketchscale.workflow.runner import (
    Runner,
    StageLine,
    ensure_array,
    forgotten_if_unfit,
    open_run,
    quiet,
    refuse_foreign_labels,
)
from sketchscale.workflow.segment import SegmentResult
from sketchscale.workflow.segment_job import (
    check_placement,
    flow_rule,
    model_channels,
    recipe_of,
    run_name,
    shared_model,
)
from sketchscale.workflow.verbs import verb

__all__ = ["plan_volume", "predict_volume_array", "segment_volume", "segment_volume_array"]

Result = TypeVar("Result")

_KNOWN = frozenset({
    "anisotropy", "batch", "channels", "crowd", "device", "flips", "join_radius", "join_share", "labels", "link_radius",
    "max_size", "min_size", "model", "overlap", "precision", "saddle", "steps", "t", "threshold", "tile",
})  # fmt: skip
"""Options that mean something for a volume; any other that is set is refused, not ignored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Everything that is known before the first voxel is read."""

    image: Image
    volume: VolumeRef
    channels: tuple[int, ...]
    model: Model
    options: VolumeOptions
    ratio: float
    recipe: Recipe
    grids: Grids
    integration: VolumeConfig
    block: tuple[int, ...]
    chunks: tuple[int, ...]

    @property
    def run(self) -> str:
        return run_name(self.options)

    def fingerprint(self) -> dict[str, str]:
        """What the labels depend on; two runs with the same fingerprint write the same bytes."""
        return {
            "code": __version__,
            "input": self.image.identity(),
            "model": self.model.sha256,
            "plane": json.dumps(["volume", self.volume.index, self.channels]),
            "recipe": json.dumps(asdict(self.recipe), sort_keys=True),
            "grid": _grids_json(self.grids),
            "integration": as_json(self.integration),
            # not a matter of the result: blocks of another size are other tasks
            "block": json.dumps(self.block),
        }


def _grids_json(grids: Grids) -> str:
    many = grids if isinstance(grids, tuple) else (grids,)
    return json.dumps([asdict(one) for one in many], sort_keys=True)


@verb({"histogram": 1, "predict": 24, "blend": 2, "outline": 6, "relabel": 2, "level": 1})
def segment_volume(
    image: str,
    options: VolumeOptions | None = None,
    execution: Execution | None = None,
    on_event: Any = quiet,
    *,
    cancel: threading.Event | None = None,
) -> SegmentResult:
    """Outline every object of a volume and store label volumes beside the image.

    Args:
        image: address of an OME-Zarr image whose axes end with zyx.

    Raises:
        InputError: image, model or options do not fit, or the memory budget is too small; nothing was written.
        OutputExistsError: the labels are there; overwrite or resume.
        QualityError: the seam audit found a difference; the labels are not committed.
    """
    execution = execution or Execution()
    job = _prepare(image, options or VolumeOptions(), execution)
    if execution.budget_bytes is not None:
        _dry_run(job, execution)
    with Runner(execution, on_event) as runner:
        return _VolumeSegmentation(job, runner).run()


@verb()
def plan_volume(
    image: str, options: VolumeOptions | None = None, execution: Execution | None = None
) -> tuple[StageLine, ...]:
    """The stages that `segment_volume` would run, with tasks and declared memory; nothing is written."""
    execution = execution or Execution()
    return _dry_run(_prepare(image, options or VolumeOptions(), execution), execution)


def _dry_run(job: _Job, execution: Execution) -> tuple[StageLine, ...]:
    with Runner(execution) as runner:
        return _VolumeSegmentation(job, runner).dry_run()


def _prepare(address: str, options: VolumeOptions, execution: Execution) -> _Job:
    _refuse_unknown(options)
    check_placement(options.device, execution)
    image = open_image(address)
    volume = image.volume(t=options.t)
    model = load_model(options.model)
    ratio = volume.spacing[0] / volume.spacing[1] if options.anisotropy is None else options.anisotropy
    chunks = tuple(min(c if 8 <= c <= 128 else 64, n) for c, n in zip(volume.chunks, volume.shape, strict=True))
    return _Job(
        image=image,
        volume=volume,
        channels=model_channels(volume, options, model.config),
        model=model,
        options=options,
        ratio=ratio,
        recipe=recipe_of(options, kept_by_run(image.address, run_name(options), resume=execution.resume)),
        grids=_grids(volume.shape, model, options, ratio),
        integration=_integration(model, options, ratio),
        block=block_shape(volume.shape, chunks, max(1, round(execution.block ** (2 / 3)))),
        chunks=chunks,
    )


def _refuse_unknown(options: VolumeOptions) -> None:
    """Refuse options without a meaning in three dimensions, rather than ignore them."""
    for field in fields(options):
        if field.name not in _KNOWN and getattr(options, field.name) != field.default:
            raise InputError.of(
                found=f"{field.name} {getattr(options, field.name)} for a volume",
                expected=f"only {', '.join(sorted(_KNOWN))}",
                fix=f"leave out --{field.name.replace('_', '-')}",
            )


def _grids(shape: tuple[int, int, int], model: Model, options: VolumeOptions, ratio: float) -> Grids:
    if model.config.network.dim == 3 and options.flips != 1:
        raise InputError.of(found=f"flips {options.flips} with a 3-D network", expected="1", fix="leave out --flips")
    return volume_grids(
        shape,
        model,
        tile=model.config.tile if options.tile is None else options.tile,
        overlap=model.config.overlap if options.overlap is None else options.overlap,
        ratio=ratio,
    )


def _integration(model: Model, options: VolumeOptions, ratio: float) -> VolumeConfig:
    """The model's own rule where it has three dimensions; else what the module says."""
    rule = flow_rule(model, options, "volumes")
    if model.config.network.dim == 2:
        radius = 2 if options.link_radius is None else options.link_radius
        smallest = round(0.75 * model.config.min_size**1.5 / ratio) if options.min_size is None else options.min_size
        rule = replace(rule, min_size=smallest, link_radius=radius, join_share=options.join_share)
    return VolumeConfig(**asdict(rule), crowd=_crowd(model) if options.crowd is None else options.crowd)


def _crowd(model: Model) -> int:
    """Trajectories that make a crowd: 20 for objects up to 20 px across, fewer for larger ones, which gather less."""
    diameter = model.config.diameter
    return 8 if diameter <= 0 else max(4, min(20, round(20 * (20 / diameter) ** 3)))


def segment_volume_array(image: npt.ArrayLike, options: VolumeOptions | None = None) -> npt.NDArray[np.uint32]:
    """Labels of a volume in memory; the same as `segment_volume` stores for the same voxels.

    Args:
        image: (z, y, x) or (c, z, y, x). Channels as the model reads them.
        options: `anisotropy` None is 1.

    Returns:
        uint32 (z, y, x), 0 background, objects numbered in raster order of their first voxel.

    Raises:
        InputError: another shape, NaN or Inf voxels, a constant channel, or channels that the model does not read.

    >>> import numpy as np
    >>> noise = np.random.default_rng(0).poisson(9, (4, 40, 40)).astype(np.uint8)
    >>> segment_volume_array(noise).shape
    (4, 40, 40)
    """
    options = options or VolumeOptions()
    model = load_model(options.model)
    rule = _integration(model, options, options.anisotropy or 1.0)
    return integrate_volume(predict_volume_array(_voxels(image, model), model, options), rule)


def predict_volume_array(voxels: npt.NDArray[Any], model: Model, options: VolumeOptions) -> npt.NDArray[np.float16]:
    """Blended fields (4, z, y, x) of voxels (c, z, y, x), in one piece."""
    _refuse_unknown(options)
    ranges = array_ranges(voxels, low=model.config.low, high=model.config.high)
    shape = (voxels.shape[1], voxels.shape[2], voxels.shape[3])
    grids, recipe = _grids(shape, model, options, options.anisotropy or 1.0), recipe_of(options)
    network = load_network(options.model, model.sha256, recipe)
    tiles = [np.empty(size, np.float16) for size, _ in tiles_shape(grids)]
    for task in plan_tasks(grids, recipe.batch):
        part = run_part(task, grids, network, recipe, ranges, lambda box: voxels[(slice(None), *box.slices)])
        array, box = write_box_of(task, part.shape)
        tiles[array][box.slices] = part.reshape(box.shape)
    return blend_volume(grids, whole(shape), lambda array, box: tiles[array][box.slices][0]).astype(np.float16)


def _voxels(image: npt.ArrayLike, model: Model) -> npt.NDArray[Any]:
    voxels = np.asarray(image)
    voxels = voxels[None] if voxels.ndim == 3 else voxels
    most = model.config.network.channels
    least = most - model.config.absent_channels
    if voxels.ndim != 4 or not least <= voxels.shape[0] <= most or 0 in voxels.shape:
        raise InputError.of(
            found=f"an array of shape {np.shape(image)}",
            expected=f"(z, y, x) or (c, z, y, x) with {least} to {most} channels, not empty",
            fix="choose and order the channels",
        )
    return voxels


class _VolumeSegmentation:
    """The stages of one volume, in order."""

    def __init__(self, job: _Job, runner: Runner) -> None:
        self.job, self.runner = job, runner

    def dry_run(self) -> tuple[StageLine, ...]:
        """The plans of `run`, made over empty arrays in memory."""
        job, nowhere = self.job, f"memory://plan-{uuid.uuid4()}"
        tiles, stored = self._scratch_arrays(nowhere)
        target = ensure_array(
            ArrayRef(store=nowhere, path="labels"), shape=job.volume.shape, chunks=job.chunks, dtype="uint32"
        )
        outline = self._outline_plan(stored, nowhere)
        plans: list[Plan[Any]] = [
            plan_histogram(job.volume, job.block, job.channels),
            self._predict_plan(tiles, ((0.0, 1.0),) * len(job.channels), job.options.model),
            self._blend_plan(tiles, stored),
            outline,
            plan_relabel(outline, target),
        ]
        for plan in plans:
            self.runner.dry(plan)
        return tuple(self.runner.stages)

    def run(self) -> SegmentResult:
        job, execution = self.job, self.runner.execution
        refuse_foreign_labels(job.image, job.run, job.options.labels, execution)
        outputs = (f"labels/{job.options.labels}",)
        with open_run(job.image, job.run, job.fingerprint(), execution, outputs=outputs) as ledger:
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
            empty=committed.get("empty", {}),
        )

    def _outline_everything(self, ledger: StoreLedger) -> dict[str, Any]:
        job = self.job
        with forgotten_if_unfit(ledger):
            ranges = self._ranges(ledger)
        absent = count_absent(job.volume)
        tiles, stored = self._scratch_arrays(ledger.scratch)
        model = shared_model(job.options.model, ledger)
        self.runner.run(self._predict_plan(tiles, ranges, model), ledger)
        self.runner.run(self._blend_plan(tiles, stored), ledger)
        levels = self._label_levels(ledger)
        outline = self._outline_plan(stored, ledger.scratch)
        outcome = self.runner.run(outline, ledger)
        objects = self._timed("merge", lambda: merge_volume_blocks(outline))
        self.runner.run(plan_relabel(outline, levels[0]), ledger)
        audit = self._timed("audit", lambda: audit_volume_seams(outline, outcome, objects, levels[0]))
        for source, target in itertools.pairwise(levels):
            self.runner.run(plan_level(source, target, "nearest"), ledger)
        provenance = self._provenance(ranges, objects.count)
        commit_labels(job.image, job.options.labels, attributes={"sketchscale": provenance})
        result = {"n": objects.count, "audit": asdict(audit), "absent_chunks": absent, "block": list(job.block)}
        if not result["n"]:
            result["empty"] = empty_facts(stored, job.integration, job.model.provenance)
        ledger.commit("result", result)
        return result

    def _ranges(self, ledger: StoreLedger) -> tuple[tuple[float, float], ...]:
        job, config = self.job, self.job.model.config
        return channel_ranges(
            lambda plan: self.runner.run(plan, ledger),
            job.volume,
            job.block,
            job.channels,
            low=config.low,
            high=config.high,
        )

    def _label_levels(self, ledger: StoreLedger) -> tuple[ArrayRef, ...]:
        """The label arrays: made once, and kept by a resumed run."""
        image, name = self.job.image, self.job.options.labels
        if ledger.committed("arrays") is None:
            delete_labels(image, name)
            create_labels(image, name, chunks=self.job.chunks)
            ledger.commit("arrays", {"levels": len(label_arrays(image, name))})
        return label_arrays(image, name)

    def _scratch_arrays(self, store: str) -> tuple[tuple[ArrayRef, ...], ArrayRef]:
        """Raw tiles, an array per direction, and blended fields; uncompressed, because they are noise to a codec."""
        job = self.job
        tiles = tuple(
            ensure_array(
                ArrayRef(store=store, path=f"tiles-{number}"),
                shape=size,
                chunks=chunks,
                dtype="float16",
                compress=False,
            )
            for number, (size, chunks) in enumerate(tiles_shape(job.grids))
        )
        stored = ensure_array(
            ArrayRef(store=store, path="fields"),
            shape=(FIELDS, *job.volume.shape),
            chunks=(FIELDS, *job.chunks),
            dtype="float16",
            compress=False,
        )
        return tiles, stored

    def _predict_plan(
        self, tiles: tuple[ArrayRef, ...], ranges: tuple[tuple[float, float], ...], model: str
    ) -> Plan[Any]:
        job = self.job
        config = VolumePredictConfig(
            volume=job.volume,
            channels=job.channels,
            ranges=ranges,
            model=model,
            model_sha256=job.model.sha256,
            recipe=job.recipe,
            grids=job.grids,
            tiles=tiles,
        )
        weights = sum(p.numel() * 4 for p in job.model.network.parameters())
        # the finest level's maps, eight of which are alive at once
        activations = job.model.config.network.widths[0] * 4 * 8
        return plan_volume_predict(config, activation_bytes=activations, weight_bytes=2 * weights)

    def _blend_plan(self, tiles: tuple[ArrayRef, ...], stored: ArrayRef) -> Plan[Any]:
        job = self.job
        config = VolumeBlendConfig(grids=job.grids, tiles=tiles, fields=stored)
        return plan_volume_blend(config, job.volume.shape, job.block)

    def _outline_plan(self, stored: ArrayRef, store: str) -> Plan[BlockTask]:
        job = self.job
        provisional = ensure_array(
            ArrayRef(store=store, path="provisional"), shape=job.volume.shape, chunks=job.block, dtype="uint32"
        )
        return plan_volume_outline(stored, provisional, store, job.integration, block=job.block)

    def _timed(self, stage: str, work: Callable[[], Result]) -> Result:
        """Work of the driver, with its time among the stages."""
        started = time.perf_counter()
        result = work()
        self.runner.timed(stage, time.perf_counter() - started)
        return result

    def _provenance(self, ranges: tuple[tuple[float, float], ...], n: int) -> dict[str, Any]:
        """What made these labels: everything a result may depend on, and nothing else (no times, no paths)."""
        job = self.job
        return {
            "stage": "segment",
            "version": __version__,
            "n": n,
            "input": job.image.identity(),
            "model": {"name": job.options.model.rstrip("/").rpartition("/")[2], "sha256": job.model.sha256},
            "plane": {"index": dict(job.volume.index), "channels": list(job.channels)},
            "ranges": [list(r) for r in ranges],
            "recipe": asdict(job.recipe),
            "grid": json.loads(_grids_json(job.grids)),
            "anisotropy": job.ratio,
            "integration": asdict(job.integration),
        }
