"""Commands that judge: what labels are worth (evaluate), and where a model needs help (where-next)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sketchscale.cli import options as opt

if TYPE_CHECKING:
    from sketchscale.config import Execution

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(evaluate)
    app.command("where-next")(where_next)


@opt.runs_plans(without=("resume",))
def evaluate(
    images: opt.Images,
    truth: Annotated[
        list[str] | None,
        typer.Option("--truth", help="True label image of each image, in order: TIFF, PNG, NPY, OME-Zarr, or a glob."),
    ] = None,
    truth_labels: Annotated[
        str | None, typer.Option("--truth-labels", help="Or: name of the true label image beside each image.")
    ] = None,
    labels: opt.Labels = "nuclei",
    iou: Annotated[str | None, typer.Option("--iou", help="Thresholds, as in 0.5,0.75; else 0.5 to 0.95.")] = None,
    csv: Annotated[str | None, typer.Option("--csv", help="Write every figure to this table.")] = None,
    components: opt.Components = "auto",
    *,
    execution: Execution,
    json: opt.Json = False,
) -> None:
    """Labels against the truth, by image and pooled: AP, F1, precision, recall, PQ, AJI, Dice, count error."""
    from sketchscale.workflow.evaluate import compare, pair_truths, summarize, write_scores
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.runner import refuse_existing

    thresholds, addresses = _thresholds(iou), expand(images)
    truth_of = dict(zip(addresses, pair_truths(addresses, truth or (), truth_labels), strict=True))
    if csv is not None:
        refuse_existing(csv, overwrite=execution.overwrite, option="--csv")

    def report(found: list[Any]) -> None:
        for one in found:
            if one.note:
                opt.say(f"{one.truth}: {one.note}")
        summary = summarize(found, thresholds)
        if csv is not None:
            write_scores(summary, csv)
        opt.show(summary, json, lambda: _table(summary))

    with opt.progress() as on_event:
        opt.each(
            addresses,
            lambda image: compare(image, labels, truth_of[image], execution, on_event, components=components),
            report,
        )


def _thresholds(text: str | None) -> tuple[float, ...]:
    from sketchscale.errors import InputError
    from sketchscale.metrics import THRESHOLDS

    if text is None:
        return THRESHOLDS
    try:
        chosen = tuple(sorted({float(part) for part in text.split(",")}))
    except ValueError:
        chosen = ()
    if not chosen or not all(0 < t <= 1 for t in chosen):
        raise InputError.of(found=f"--iou {text}", expected="numbers in (0, 1]", fix="write --iou 0.5,0.75")
    return chosen


def _table(summary: dict[str, Any]) -> str:
    """A line for each image; with several, their mean and the pooled figures below."""
    records = summary.get("images", [summary])
    thresholds = list(records[0]["ap"])
    shown = [t for t in thresholds if t in ("0.5", "0.75")] or thresholds[:2]
    names = [f"AP {t}" for t in shown] + ["AP mean", f"F1 {shown[0]}", f"PQ {shown[0]}", "AJI", "Dice"]
    lines = ["".join(f"{name:>9}" for name in [*names, "true", "found"]) + "  image"]
    rows = [(record, record["image"]) for record in records]
    if len(rows) > 1:
        rows += [(summary["by_image"], f"mean of {len(rows)} images"), (summary["pooled"], "all objects together")]
    for record, name in rows:
        figures = [record["ap"][t] for t in shown] + [record["ap_mean"]]
        figures += [record["f1"][shown[0]], record["pq"][shown[0]], record["aji"], record["dice"]]
        counts = [str(record.get(n, "")) for n in ("n_true", "n_pred")]
        lines.append("".join(f"{f:>9.4f}" for f in figures) + "".join(f"{n:>9}" for n in counts) + f"  {name}")
    return "\n".join(lines)


@opt.runs_plans(without=("block", "resume"))
def where_next(
    images: opt.Images,
    model: Annotated[str, typer.Option("--model", help="The model that is being taught.")] = "nuclei-fluo",
    sketch: Annotated[
        list[str] | None, typer.Option("--sketch", help="Sketch of the first, second ... image; the rest has none.")
    ] = None,
    kind: opt.SketchKind = None,
    classes: opt.SketchClasses = None,
    n: Annotated[int, typer.Option("--n", help="Boxes to propose.", min=1)] = 10,
    size: Annotated[int, typer.Option("--size", help="Side of a box, px.", min=32)] = 256,
    sample: Annotated[int, typer.Option("--sample", help="Boxes to look at in an image, at most.", min=1)] = 256,
    out: Annotated[str | None, typer.Option("--out", help=".geojson (one for each image), .csv or .json.")] = None,
    picture: Annotated[str | None, typer.Option("--picture", help="PNG of the boxes with predicted outlines.")] = None,
    channel: opt.Channels = None,
    t: Annotated[int | None, typer.Option("--t", help="Time point, where there are several.", min=0)] = None,
    z: Annotated[int | None, typer.Option("--z", help="Section, where there are several.", min=0)] = None,
    device: opt.Device = "cpu",
    precision: opt.Precision = "auto",
    *,
    execution: Execution,
    json: opt.Json = False,
) -> None:
    """The most informative places to draw over all images: where the model is unsure, and unlike what was drawn."""
    from sketchscale.config import SegmentOptions, parse
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.next_files import check_extension, draw_places, save_places
    from sketchscale.workflow.runner import refuse_existing
    from sketchscale.workflow.sketches import sketch_reading
    from sketchscale.workflow.where_next import NextOptions
    from sketchscale.workflow.where_next import where_next as work

    given = {
        "model": model,
        "channels": tuple(channel) if channel else None,
        "t": t,
        "z": z,
        "device": device,
        "precision": precision,
    }
    segment = parse(SegmentOptions, given, source="options")
    reading = sketch_reading(kind, classes)
    options = NextOptions(segment=segment, sketches=tuple(sketch or ()), reading=reading, n=n, size=size, sample=sample)
    for option, file in (("--out", out), ("--picture", picture)):
        if file is not None:
            refuse_existing(file, overwrite=execution.overwrite, option=option)
    if out is not None:
        check_extension(out)
    with opt.progress() as on_event:
        result = work(expand(images), options, execution, on_event)
    for written in save_places(result, out) if out is not None else ():
        opt.say(written)
    if picture is not None:
        opt.say(draw_places(result, options, picture))
    opt.show(asdict(result), json, lambda: _places(result))


def _places(result: Any) -> str:
    lines = [f"{'rank':>4}{'score':>8}{'y0':>8}{'x0':>8}{'y1':>8}{'x1':>8}  image  reason"]
    lines += [
        f"{p.rank:>4}{p.score:>8.4f}{p.y0:>8}{p.x0:>8}{p.y1:>8}{p.x1:>8}  {p.image}  {p.reason}" for p in result.places
    ]
    free = result.boxes - result.annotated
    lines.append(f"looked at {result.looked_at} of {free} boxes without annotation; {result.annotated} have some")
    return "\n".join(lines)
