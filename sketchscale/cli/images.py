"""Commands on images: convert, segment, measure, report, plan, status, verify."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sketchscale.cli import options as opt
from sketchscale.workflow.compiling import INTEGRATION, MEASUREMENT

if TYPE_CHECKING:
    from sketchscale.config import Execution

__all__ = ["register"]

Model = Annotated[str, typer.Option("--model", help="A shipped model, or a model folder.")]
Threshold = Annotated[float | None, typer.Option("--threshold", help="Foreground is distance > this, px; or m >= it.")]
MinSize = Annotated[int | None, typer.Option("--min-size", help="Remove smaller objects, px.", min=0)]
MaxSize = Annotated[int | None, typer.Option("--max-size", help="Remove larger objects, px.", min=1)]
Tile = Annotated[int | None, typer.Option("--tile", help="Side of a network tile, px.", min=16)]
Time = Annotated[int | None, typer.Option("--t", help="Time point, where there are several.", min=0)]
Overlap = Annotated[int | None, typer.Option("--overlap", help="What neighbouring tiles share, px.", min=0)]
Diameter = Annotated[
    float | None, typer.Option("--diameter", help="Of this image's objects, px: the network sees them at its own size.")
]
Rescale = Annotated[float | None, typer.Option("--rescale", help="That scale itself: network px per image px.")]
Flips = Annotated[int | None, typer.Option("--flips", help="Mean over 4 or 8 mirrored copies; as many times slower.")]
FillHoles = Annotated[
    float | None, typer.Option("--fill-holes", help="Fill holes of at most this share of the object's area, as 0.03.")
]
FlowError = Annotated[
    float | None, typer.Option("--flow-error", help="Remove objects whose flow is not their shape's, as 0.6; 0 to 4.")
]
JoinShare = Annotated[
    float | None,
    typer.Option("--join-share", help="Join touching pieces when this share of their border ends together; 1: off."),
]
JoinRadius = Annotated[int | None, typer.Option("--join-radius", help="What ends together means, px.", min=1)]
Depth = Annotated[int | None, typer.Option("--z", help="Section, where there are several.", min=0)]

Features = Annotated[
    list[str] | None,
    typer.Option("--features", help="Feature or group: geometry, intensity, texture, neighbours, ring; repeat it."),
]
Without = Annotated[list[str] | None, typer.Option("--without", help="Feature or group to leave out; repeat it.")]
Profile = Annotated[
    str | None, typer.Option("--profile", help="pycytominer: also a table NAME_pycytominer with its column names.")
]

Shard = Annotated[
    int | None, typer.Option("--shard", help="Side of a shard, px, whole chunks: one stored object each.", min=16)
]
Volume = Annotated[bool, typer.Option("--volume", help="Outline whole volumes: every section at once, labels in 3-D.")]
Anisotropy = Annotated[
    float | None, typer.Option("--anisotropy", help="Spacing z / spacing y of a volume, if the file does not say.")
]
Crowd = Annotated[
    int | None, typer.Option("--crowd", help="Trajectories that a sink of a volume gathers; fewer for larger objects.")
]


def register(app: typer.Typer) -> None:
    for command in (convert, segment, measure, report, plan, status, verify):
        app.command()(command)


@opt.runs_plans(without=("block",))
def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="TIFF, OME-TIFF, PNG, JPEG, NPY, or a folder of them.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="The OME-Zarr to write.")],
    axes: Annotated[
        str | None, typer.Option("--axes", help="What the file's axes are, in order: zyx sections, cyx channels, tyx.")
    ] = None,
    spacing: Annotated[float | None, typer.Option("--spacing", help="um per pixel; else what the file says.")] = None,
    z_spacing: Annotated[
        float | None, typer.Option("--z-spacing", help="um from section to section; else what the file says.")
    ] = None,
    ngff: Annotated[str, typer.Option("--ngff", help="OME-Zarr version to write: 0.4 or 0.5.")] = "0.5",
    chunk: Annotated[int, typer.Option("--chunk", help="Side of a chunk, px.", min=16)] = 512,
    shard: Shard = None,
    *,
    execution: Execution,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
) -> None:
    """TIFF and plain images into OME-Zarr, tile by tile: the image never sits whole in memory."""
    from sketchscale.config import parse
    from sketchscale.io.convert import ConvertConfig
    from sketchscale.workflow import convert as work

    given: dict[str, Any] = {"axes": axes, "spacing": (spacing, spacing) if spacing is not None else None}
    given |= {"depth": z_spacing, "version": ngff, "chunk": chunk, "shard": shard}
    settings = parse(ConvertConfig, given, source="options")
    if dry_run:
        stages = work.plan_images(source, target, settings, execution, say=opt.say)
        opt.show([asdict(s) for s in stages], json, lambda: opt.stage_table(stages))
        return
    with opt.progress() as on_event:
        results = work.convert_images(source, target, settings, execution, on_event, say=opt.say)
    opt.show(results, json, lambda: "\n".join(f"{r['address']}: {r['summary']}" for r in results))


@opt.runs_plans()
def segment(
    images: opt.Images,
    model: Model = "nuclei-fluo",
    labels: opt.Labels = "nuclei",
    channel: opt.Channels = None,
    threshold: Threshold = None,
    min_size: MinSize = None,
    max_size: MaxSize = None,
    tile: Tile = None,
    overlap: Overlap = None,
    diameter: Diameter = None,
    rescale: Rescale = None,
    flips: Flips = None,
    fill_holes: FillHoles = None,
    flow_error: FlowError = None,
    join_share: JoinShare = None,
    join_radius: JoinRadius = None,
    t: Time = None,
    z: Depth = None,
    volume: Volume = False,
    anisotropy: Anisotropy = None,
    crowd: Crowd = None,
    device: opt.Device = "cpu",
    precision: opt.Precision = "auto",
    shard: Shard = None,
    *,
    execution: Execution,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
) -> None:
    """Outline every object: the network's fields, exact integration, labels and pyramid beside the image."""
    from sketchscale.config import SegmentOptions, parse
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.segment import plan_segment
    from sketchscale.workflow.segment import segment as work

    given: dict[str, Any] = {
        "model": model,
        "labels": labels,
        "channels": tuple(channel) if channel else None,
        "threshold": threshold,
        "min_size": min_size,
        "max_size": max_size,
        "tile": tile,
        "overlap": overlap,
        "t": t,
        "z": z,
        "volume": volume,
        "anisotropy": anisotropy,
        "crowd": crowd,
        "device": device,
        "precision": precision,
    }
    extras = {
        "diameter": diameter,
        "rescale": rescale,
        "flips": flips,
        "fill_holes": fill_holes,
        "flow_error": flow_error,
        "join_share": join_share,
        "join_radius": join_radius,
        "shard": shard,
    }
    given |= {name: value for name, value in extras.items() if value is not None}
    settings = parse(SegmentOptions, given, source="options")
    addresses = expand(images)
    if dry_run:
        stages = [s for image in addresses for s in plan_segment(image, settings, execution)]
        opt.show([asdict(s) for s in stages], json, lambda: opt.stage_table(stages))
        return
    with opt.progress() as on_progress:
        on_event = opt.announcing_compilation(on_progress, "outline", *INTEGRATION)
        opt.each(
            addresses,
            lambda image: _warned(work(image, settings, execution, on_event)),
            lambda results: _show_segmented(results, json),
        )


def _show_segmented(results: list[Any], json: bool) -> None:
    from sketchscale.workflow.empty_results import why_empty

    for r in results:
        if r.n == 0:
            opt.say(f"{r.image}: {why_empty(r.empty)}")
    opt.show([asdict(r) for r in results], json, lambda: "\n".join(map(_segmented, results)))


def _warned(r: Any) -> Any:
    """The result of an image, after its warning was said."""
    if r.warning:
        opt.say(f"warning: {r.warning}")
    return r


def _segmented(r: Any) -> str:
    return (
        f"{r.image}: {r.n} objects in labels/{r.labels}; seam audit: {r.audit.windows} windows, "
        f"{r.audit.objects} objects compared, {r.audit.crossing} cross a block, no difference"
    )


@opt.runs_plans()
def measure(
    images: opt.Images,
    labels: opt.Labels = "nuclei",
    features: Features = None,
    without: Without = None,
    profile: Profile = None,
    *,
    execution: Execution,
    json: opt.Json = False,
) -> None:
    """A table with one row per object: place, shape, intensity, texture, neighbours, ring; in pixels and um."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.measure import measure as work

    def report(results: list[Any]) -> None:
        lines = [f"{r.image}: {r.n} rows, {r.columns} columns in tables/{r.table}" for r in results]
        opt.show([asdict(r) for r in results], json, lambda: "\n".join(lines))

    with opt.progress() as on_progress:
        on_event = opt.announcing_compilation(on_progress, "measure", *MEASUREMENT)
        opt.each(
            expand(images),
            lambda image: work(
                image,
                labels,
                execution,
                on_event,
                features=_names(features),
                without=_names(without) or (),
                profile=profile,
            ),
            report,
        )


def _names(words: list[str] | None) -> tuple[str, ...] | None:
    """Names that were given one by one or separated by commas."""
    return None if words is None else tuple(name.strip() for word in words for name in word.split(",") if name.strip())


@opt.reads_stores
def report(
    images: opt.Images,
    out: Annotated[str, typer.Option("--out", help="The HTML file to write.")] = "report.html",
    labels: opt.Labels = "nuclei",
    title: Annotated[str, typer.Option("--title")] = "",
    model: Annotated[str | None, typer.Option("--model", help="Model folder, for its training curve.")] = None,
    truth: Annotated[list[str] | None, typer.Option("--truth", help="True labels, one per image.")] = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """One self-contained HTML page: counts, sizes, outlines over the image, seam audit, provenance."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.report import write_report

    truths = tuple(truth or ())
    typer.echo(write_report(expand(images), labels, out, title=title, model=model, truths=truths, overwrite=overwrite))


@opt.runs_plans(without=("resume", "overwrite"))
def plan(
    images: opt.Images,
    model: Model = "nuclei-fluo",
    labels: opt.Labels = "nuclei",
    *,
    execution: Execution,
    json: opt.Json = False,
) -> None:
    """What `segment` would do: stages, tasks, memory and scratch space; nothing is written."""
    from sketchscale.config import SegmentOptions
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.segment import plan_segment

    settings = SegmentOptions(model=model, labels=labels)
    stages = [s for image in expand(images) for s in plan_segment(image, settings, execution)]
    opt.show([asdict(s) for s in stages], json, lambda: opt.stage_table(stages))


@opt.reads_stores
def status(images: opt.Images, json: opt.Json = False) -> None:
    """How far every run on an image is: from any machine, while it goes on; who runs it; whether it is committed."""
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


@opt.runs_plans(without=("block", "gpus_per_worker", "scratch", "resume", "overwrite"))
def verify(images: opt.Images, *, execution: Execution, json: opt.Json = False) -> None:
    """Re-check stored results: every block's checksum, ids against the table, and that the input is the same."""
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
