"""Segment a plane or a volume: prediction, integration, pyramid, audit, commit.

Stages are plans; the ledger records each task.

    histogram ─▶ predict ─▶ blend ─▶ outline ─▶ merge ─▶ relabel ─▶ audit ─▶ pyramid ─▶ commit
    (ranges)     (tiles)    (fields) (provisional ids)   (labels level 0)             (labels visible)

    with --fill-holes or --flow-error, after merge:      join ─▶ audit ─▶ inspect ─▶ number ─▶ relabel ─▶ pyramid ─▶ ...
                                                         (merged labels)  (each object, whole)

Scratch arrays and the ledger live in `.sketchscale/segment-<labels>` inside the image; the scratch is removed when the
labels are committed, the ledger stays for `verify` and `status`. Nothing is listed under `labels/` before the commit.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from sketchscale import __version__
from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine.base import Json, Plan
from sketchscale.geometry import Tile
from sketchscale.inference.plan import BlendConfig, PredictConfig, plan_blend, plan_predict
from sketchscale.inference.views import TileTask
from sketchscale.integration.audit import SeamAudit
from sketchscale.integration.plan import BlockTask, plan_relabel
from sketchscale.integration.refine_plan import number_refined, plan_finish, plan_inspect
from sketchscale.integration.ways import way_of
from sketchscale.intensity import channel_levels, plan_histogram
from sketchscale.io.ome_zarr.arrays import ArrayRef
from sketchscale.io.ome_zarr.new_images import commit_labels, create_labels, delete_labels, label_arrays
from sketchscale.io.ome_zarr.planes import count_absent
from sketchscale.io.runs.ledger import StoreLedger
from sketchscale.workflow.runner import (
    Runner,
    StageLine,
    ensure_array,
    forget_run_if_unfit,
    open_run,
    quiet,
    refuse_foreign_labels,
)
from sketchscale.workflow.segment.empty_results import empty_facts
from sketchscale.workflow.segment.job import SegmentJob, prepare, shared_model
from sketchscale.workflow.segment.unknown_kinds import kind_record, kind_warning, levels_of, stored_statistics
from sketchscale.workflow.verbs import verb

__all__ = ["SegmentResult", "plan_segment", "segment"]


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentResult:
    """The result of a segmentation.

    Attributes:
        image, labels: address and label name.
        n: objects.
        audit: what the seam audit compared.
        stages: tasks, declared memory and seconds of each stage.
        absent_chunks: input chunks that a sparse image does not store; read as zeros.
        empty: facts on why nothing was found, see `workflow.empty_results`; empty when something was.
        warning: that the model does not know this kind of image; empty where it does.
        scale: network px per image px.
    """

    image: str
    labels: str
    n: int
    audit: SeamAudit
    stages: tuple[StageLine, ...]
    absent_chunks: int
    empty: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """Labels of level 0: how many, the result of the audit, and the options and result of refinement."""

    count: int
    audit: SeamAudit
    refined: dict[str, Any]


@verb({"histogram": 1, "predict": 24, "blend": 2, "outline": 6, "join": 1, "inspect": 2, "relabel": 2, "level": 1})
def segment(
    image: str,
    options: SegmentOptions | None = None,
    execution: Execution | None = None,
    on_event: Any = quiet,
    *,
    cancel: threading.Event | None = None,
) -> SegmentResult:
    """Outline every object of an image and store the labels in it.

    Args:
        image: address of an OME-Zarr image (one field of a plate, too).

    Raises:
        InputError: image, model or options do not fit, or the memory budget is too small; nothing was written.
        OutputExistsError: the labels are there; overwrite or resume.
        QualityError: the seam audit found a difference; the labels are not committed.
    """
    execution = execution or Execution()
    job = prepare(image, options or SegmentOptions(), execution)
    if execution.budget_bytes is not None:
        _dry_run(job, execution)
    with Runner(execution, on_event) as runner:
        return _Segmentation(job, runner).run()


@verb()
def plan_segment(
    image: str, options: SegmentOptions | None = None, execution: Execution | None = None
) -> tuple[StageLine, ...]:
    """Return the stages that `segment` would run, with tasks and declared memory; nothing is written."""
    execution = execution or Execution()
    return _dry_run(prepare(image, options or SegmentOptions(), execution), execution)


def _dry_run(job: SegmentJob, execution: Execution) -> tuple[StageLine, ...]:
    with Runner(execution) as runner:
        return _Segmentation(job, runner).dry_run()


class _Segmentation:
    """The stages of one image, in order."""

    def __init__(self, job: SegmentJob, runner: Runner) -> None:
        self.job, self.runner, self.way = job, runner, way_of(job.integration)

    def dry_run(self) -> tuple[StageLine, ...]:
        """Make the plans of `run` over empty arrays in memory; return their stages."""
        job, nowhere = self.job, f"memory://plan-{uuid.uuid4()}"
        tiles, fields = self._scratch_arrays(nowhere)
        target = self._label_array(nowhere, "labels")
        outline = self._outline_plan(fields, nowhere)
        plans: list[Plan[Any]] = [
            plan_histogram(job.pixels, job.block, job.channels),
            self._predict_plan(tiles, ((0.0, 1.0),) * len(job.channels), job.model_folder),
            self._blend_plan(tiles, fields),
            outline,
        ]
        if job.refine.active:
            merged = self._label_array(nowhere, "merged")
            plans += [plan_relabel(outline, merged, stage="join"), plan_inspect(outline, None, merged, job.refine)]
        for plan in (*plans, plan_finish(outline, target) if job.refine.active else plan_relabel(outline, target)):
            self.runner.dry(plan)
        return tuple(self.runner.stages)

    def run(self) -> SegmentResult:
        """Run all stages, or return the committed result."""
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
            scale=job.views[0].zoom,
            warning=kind_warning(
                job.image.address, job.model_folder, committed.get("kind", {}), objects=committed["n"]
            ),
        )

    def _outline_everything(self, ledger: StoreLedger) -> dict[str, Any]:
        job = self.job
        with forget_run_if_unfit(ledger):
            levels = channel_levels(
                lambda plan: self.runner.run(plan, ledger),
                job.pixels,
                job.block,
                job.channels,
                low=job.model.config.low,
                high=job.model.config.high,
            )
            absent = count_absent(job.pixels)
        ranges = tuple(one.range for one in levels)
        fields, blended = self._fields(ledger, ranges, shared_model(job.model_folder, ledger))
        kind = kind_record(stored_statistics(levels, blended), job.model.config) if job.is_tested else {}
        pyramid = self._label_levels(ledger)
        outline = self._outline_plan(fields, ledger.scratch)
        outcome = self.runner.run(outline, ledger)
        found = self._labels(outline, outcome, pyramid[0], ledger)
        self.runner.run_pyramid(pyramid, ledger)
        provenance = self._provenance(ranges, found.count, found.refined) | ({"kind": kind} if kind else {})
        commit_labels(job.image, job.options.labels, attributes={"sketchscale": provenance})
        result = {"n": found.count, "audit": asdict(found.audit), "absent_chunks": absent, "block": list(job.block)}
        result["kind"] = kind
        if not result["n"]:
            result["empty"] = empty_facts(fields, job.integration, job.model.provenance)
        ledger.commit("result", {**result, "metadata": job.image.metadata_digest()})
        return result

    def _labels(
        self, outline: Plan[BlockTask], outcome: Sequence[Json], target: ArrayRef, ledger: StoreLedger
    ) -> _Labelled:
        """Write merged, audited and, where asked for, refined labels to the target."""
        objects = self._timed("merge", lambda: self.way.merge(outline))
        if not self.job.refine.active:
            self.runner.run(plan_relabel(outline, target), ledger)
            audit = self._timed("audit", lambda: self.way.audit(outline, outcome, objects, target))
            return _Labelled(count=objects.count, audit=audit, refined={})
        merged = self._label_array(ledger.scratch, "merged")
        self.runner.run(plan_relabel(outline, merged, stage="join"), ledger)
        audit = self._timed("audit", lambda: self.way.audit(outline, outcome, objects, merged))
        inspect = plan_inspect(outline, objects, merged, self.job.refine)
        inspected = self.runner.run(inspect, ledger)
        refined = self._timed("number", lambda: number_refined(inspect, objects))
        self.runner.run(plan_finish(outline, target), ledger)
        counts = {"dropped": refined.dropped, "filled_px": sum(result["filled"] for result in inspected)}
        return _Labelled(count=refined.count, audit=audit, refined=asdict(self.job.refine) | counts)

    def _label_array(self, store: str, name: str) -> ArrayRef:
        """Return an array of labels in the scratch, such as those before refinement."""
        shape, chunks = self.job.pixels.shape, self.job.chunks
        return ensure_array(ArrayRef(store=store, path=name), shape=shape, chunks=chunks, dtype="uint32")

    def _label_levels(self, ledger: StoreLedger) -> tuple[ArrayRef, ...]:
        """Return the label arrays: created once, and kept by a resumed run."""
        image, name = self.job.image, self.job.options.labels
        if ledger.committed("arrays") is None:
            delete_labels(image, name)
            create_labels(image, name, chunks=self.job.chunks, shards=self.job.shards)
            ledger.commit("arrays", {"levels": len(label_arrays(image, name))})
        return label_arrays(image, name)

    def _fields(
        self, ledger: StoreLedger, ranges: tuple[tuple[float, float], ...], model: str
    ) -> tuple[ArrayRef, Sequence[Json]]:
        """Return the blended fields, and the records of the blending tasks."""
        tiles, fields = self._scratch_arrays(ledger.scratch)
        self.runner.run(self._predict_plan(tiles, ranges, model), ledger)
        return fields, self.runner.run(self._blend_plan(tiles, fields), ledger)

    def _blend_plan(self, tiles: tuple[ArrayRef, ...], fields: ArrayRef) -> Plan[Tile]:
        job = self.job
        levels = levels_of(job.model.config, job.views[0].zoom) if self.job.is_tested else None
        return plan_blend(BlendConfig(views=job.views, tiles=tiles, fields=fields, levels=levels), job.block)

    def _scratch_arrays(self, store: str) -> tuple[tuple[ArrayRef, ...], ArrayRef]:
        """Create raw tiles, an array per view, and blended fields; uncompressed, because they hardly compress."""
        job, channels = self.job, self.job.axes + 1
        tiles = tuple(
            ensure_array(
                ArrayRef(store=store, path=f"tiles-{view.name}"),
                shape=view.tiles_shape,
                chunks=view.tiles_chunks(job.recipe.batch),
                dtype="float16",
                compress=False,
            )
            for view in job.views
        )
        fields = ensure_array(
            ArrayRef(store=store, path="fields"),
            shape=(channels, *job.pixels.shape),
            chunks=(channels, *job.chunks),
            dtype="float16",
            compress=False,
        )
        return tiles, fields

    def _predict_plan(
        self, tiles: tuple[ArrayRef, ...], ranges: tuple[tuple[float, float], ...], model: str
    ) -> Plan[TileTask]:
        job = self.job
        config = PredictConfig(
            image=job.pixels,
            channels=job.channels,
            ranges=ranges,
            model=model,
            model_sha256=job.model.sha256,
            recipe=job.recipe,
            views=job.views,
            tiles=tiles,
        )
        weights = sum(p.numel() * 4 for p in job.model.network.parameters())
        activations = job.model.declares.bytes_per_pixel
        return plan_predict(config, activation_bytes=activations, weight_bytes=2 * weights)

    def _timed(self, stage: str, work: Callable[[], Result]) -> Result:
        """Do work on the driver, and record its time as a stage."""
        started = time.perf_counter()
        result = work()
        self.runner.timed(stage, time.perf_counter() - started)
        return result

    def _outline_plan(self, fields: ArrayRef, store: str) -> Plan[BlockTask]:
        job = self.job
        provisional = ensure_array(
            ArrayRef(store=store, path="provisional"), shape=job.pixels.shape, chunks=job.block, dtype="uint32"
        )
        return self.way.outline(fields, provisional, store, job.integration, block=job.block)

    def _provenance(self, ranges: tuple[tuple[float, float], ...], n: int, refined: dict[str, Any]) -> dict[str, Any]:
        """Return everything that the labels may depend on, and nothing else (no times, no paths)."""
        job = self.job
        return {
            "stage": "segment",
            "version": __version__,
            "n": n,
            "input": job.image.identity(),
            "model": {"name": job.model_folder.rstrip("/").rpartition("/")[2], "sha256": job.model.sha256},
            "plane": {"index": dict(job.pixels.index), "channels": list(job.channels)},
            "ranges": [list(r) for r in ranges],
            "recipe": asdict(job.recipe),
            "grid": job.grid_record(),
            "integration": job.rule_record(),
            "refine": refined,
        } | ({} if job.axes == 2 else {"anisotropy": job.ratio})
