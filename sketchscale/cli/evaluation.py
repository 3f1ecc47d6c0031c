"""Commands that show how good labels are (evaluate), and where a model needs more strokes (where-next)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import Without, command
from sketchscale.cli.messages import say
from sketchscale.options import EvaluateOptions, Execution, NextOptions

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(evaluate)
    command(app, "where-next")(where_next)


def evaluate(
    images: opt.Images,
    options: EvaluateOptions,
    execution: Annotated[Execution, Without("resume")],
    json: opt.Json = False,
) -> None:
    """Compare labels with the truth, by image and pooled: AP, F1, precision, recall, PQ, AJI, Dice, count error."""
    from sketchscale.evaluation import THRESHOLDS
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.measure.evaluate import compare, pair_truths, summarize, write_scores
    from sketchscale.workflow.runner import refuse_existing

    labels, csv, components = options.labels, options.csv, options.components
    thresholds, addresses = tuple(sorted(set(options.iou))) or THRESHOLDS, expand(images)
    truth_of = dict(zip(addresses, pair_truths(addresses, options.truth, options.truth_labels), strict=True))
    if csv is not None:
        refuse_existing(csv, overwrite=execution.overwrite, option="--csv")

    def report(found: list[Any]) -> None:
        for one in found:
            if one.note:
                say(f"{one.truth}: {one.note}")
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


def _table(summary: dict[str, Any]) -> str:
    """Return a line for each image; for several, also their mean and the pooled figures."""
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


def where_next(
    images: opt.Images,
    options: NextOptions,
    execution: Annotated[Execution, Without("block", "resume")],
    out: Annotated[str | None, typer.Option("--out", help=".geojson (one for each image), .csv or .json.")] = None,
    picture: Annotated[str | None, typer.Option("--picture", help="PNG of the boxes with predicted outlines.")] = None,
    json: opt.Json = False,
) -> None:
    """Find the most informative places to draw in all images: the model is unsure, and nothing like it was drawn."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.runner import refuse_existing
    from sketchscale.workflow.train.where_next import where_next as work
    from sketchscale.workflow.train.where_next_files import check_extension, draw_places, save_places

    for option, file in (("--out", out), ("--picture", picture)):
        if file is not None:
            refuse_existing(file, overwrite=execution.overwrite, option=option)
    if out is not None:
        check_extension(out)
    with opt.progress() as on_event:
        result = work(expand(images), options, execution, on_event)
    for written in save_places(result, out) if out is not None else ():
        say(written)
    if picture is not None:
        say(draw_places(result, options, picture))
    opt.show(asdict(result), json, lambda: _places(result))


def _places(result: Any) -> str:
    lines = [f"{'rank':>4}{'score':>8}{'y0':>8}{'x0':>8}{'y1':>8}{'x1':>8}  image  reason"]
    lines += [
        f"{p.rank:>4}{p.score:>8.4f}{p.y0:>8}{p.x0:>8}{p.y1:>8}{p.x1:>8}  {p.image}  {p.reason}" for p in result.places
    ]
    free = result.boxes - result.annotated
    lines.append(f"looked at {result.looked_at} of {free} boxes without annotation; {result.annotated} have some")
    return "\n".join(lines)
