"""Commands on images: convert, segment, measure, report, plan, status, verify."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import Without, command
from sketchscale.cli.messages import say
from sketchscale.options import ConvertConfig, Execution, MeasureOptions, ReportOptions, SegmentOptions
from sketchscale.workflow.compiling import INTEGRATION, MEASUREMENT

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for one in (convert, segment, measure, report, plan, status, verify):
        command(app)(one)


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="TIFF, OME-TIFF, PNG, JPEG, NPY, or a folder of them.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The OME-Zarr to write.")],
    options: ConvertConfig,
    execution: Annotated[Execution, Without("block")],
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
) -> None:
    """Convert TIFF and plain images to OME-Zarr, tile by tile: the image need not fit in memory."""
    from sketchscale.workflow import convert as work

    if dry_run:
        opt.show_stages(work.plan_images(source, target, options, execution, say=say), json)
        return
    with opt.progress() as on_event:
        results = work.convert_images(source, target, options, execution, on_event, say=say)
    opt.show(results, json, lambda: "\n".join(f"{r['address']}: {r['summary']}" for r in results))


def segment(
    images: opt.Images,
    options: SegmentOptions,
    execution: Execution,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
) -> None:
    """Outline every object: predict fields, integrate them exactly, store labels and their pyramid in the image."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.segment.empty_results import why_empty
    from sketchscale.workflow.segment.segment import plan_segment
    from sketchscale.workflow.segment.segment import segment as work

    addresses = expand(images)
    if dry_run:
        opt.show_stages([s for image in addresses for s in plan_segment(image, options, execution)], json)
        return
    with opt.progress() as on_progress:
        on_event = opt.announcing_compilation(on_progress, "outline", *INTEGRATION)

        def outline(image: str) -> Any:
            result = work(image, options, execution, on_event)
            if result.warning:
                say(f"warning: {result.warning}", logging.WARNING)
            return result

        def report(results: list[Any]) -> None:
            for r in results:
                if r.n == 0:
                    say(f"{r.image}: {why_empty(r.empty)}", logging.WARNING)
            lines = (
                f"{r.image}: {r.n} objects in labels/{r.labels}; seam audit: {r.audit.windows} windows, "
                f"{r.audit.objects} objects compared, {r.audit.crossing} cross a block, no difference"
                + ("" if r.scale == 1 else f"; at scale {r.scale:.3g} for the network")
                for r in results
            )
            opt.show([asdict(r) for r in results], json, lambda: "\n".join(lines))

        opt.each(addresses, outline, report)


def measure(images: opt.Images, options: MeasureOptions, execution: Execution, json: opt.Json = False) -> None:
    """Write a table of objects: position, shape, intensity, texture, neighbours, ring; in pixels and um."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.measure.measure import measure as work

    def report(results: list[Any]) -> None:
        lines = [f"{r.image}: {r.n} rows, {r.columns} columns in tables/{r.table}" for r in results]
        opt.show([asdict(r) for r in results], json, lambda: "\n".join(lines))

    chosen: dict[str, Any] = asdict(options)
    labels = chosen.pop("labels")
    with opt.progress() as on_progress:
        on_event = opt.announcing_compilation(on_progress, "measure", *MEASUREMENT)
        opt.each(expand(images), lambda image: work(image, labels, execution, on_event, **chosen), report)


def report(images: opt.Images, options: ReportOptions, execution: opt.StoresToFile) -> None:
    """Write one self-contained HTML page: counts, sizes, outlines over the image, seam audit, provenance."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.report.report import write_report

    o = options
    how: dict[str, Any] = {"title": o.title, "model": o.model, "truths": o.truth, "overwrite": execution.overwrite}
    typer.echo(write_report(expand(images), o.labels, o.out, **how))


def plan(
    images: opt.Images,
    options: SegmentOptions,
    execution: Annotated[Execution, Without("resume", "overwrite")],
    json: opt.Json = False,
) -> None:
    """Show what `segment` would do with the same options: stages, tasks and memory; nothing is written."""
    segment(images, options, execution, dry_run=True, json=json)


def status(images: opt.Images, execution: opt.Stores, json: opt.Json = False) -> None:
    """Show the progress of every run on an image, from any machine: its stage, its owner, whether it is committed."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.verify import status as work

    rows = [row for image in expand(images) for row in work(image)]
    opt.show(rows, json, lambda: "\n".join(map(_status_line, rows)) or "nothing has run here yet")


def _status_line(row: dict[str, Any]) -> str:
    owner, now = row["owner"], ""
    if row["state"] != "committed" and row["stage"]:
        now = f"{row['stage']} {row['done']} of {row['total']} tasks"
        now += f", {row['tasks_per_s']:g} per s" if row["tasks_per_s"] else ""
    by = f"{owner['host']} process {owner['pid']} since {owner['started']}" if owner else ""
    stages = " ".join(f"{stage}:{n}" for stage, n in row["stages"].items())
    return "\t".join((row["image"], row["run"], row["state"], now, by, stages))


def verify(
    images: opt.Images,
    execution: Annotated[Execution, Without("block", "gpus_per_worker", "scratch", "resume", "overwrite")],
    json: opt.Json = False,
) -> None:
    """Check stored results again: every block's checksum, ids against the table, and that the input is the same."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.runner import keep_engines
    from sketchscale.workflow.verify import verify as work

    with opt.progress() as on_event, keep_engines():
        checks = [check for image in expand(images) for check in work(image, on_event, execution)]
    opt.show(
        checks,
        json,
        lambda: "\n".join(f"{'ok ' if c['ok'] else 'BAD'} {c['image']}: {c['check']}: {c['found']}" for c in checks),
    )
    if not all(check["ok"] for check in checks):
        raise typer.Exit(4)
