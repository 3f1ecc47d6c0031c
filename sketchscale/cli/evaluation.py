"""The command that judges results: evaluate."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(evaluate)


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
    engine: opt.Engine = "threads",
    workers: opt.Workers = None,
    block: opt.Block = 2048,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Labels against the truth, by image and pooled: AP, F1, precision, recall, PQ, AJI, Dice, count error."""
    from sketchscale.workflow.evaluate import check_new, compare, pair_truths, summarize, write_scores
    from sketchscale.workflow.images import expand

    thresholds, addresses = _thresholds(iou), expand(images)
    truth_of = dict(zip(addresses, pair_truths(addresses, truth or (), truth_labels), strict=True))
    if csv is not None:
        check_new(csv, overwrite)
    execution = opt.execution(engine, workers, block)

    def report(found: list[Any]) -> None:
        summary = summarize(found, thresholds)
        if csv is not None:
            write_scores(summary, csv)
        opt.show(summary, json, lambda: _table(summary))

    with opt.progress() as on_event:
        opt.each(addresses, lambda image: compare(image, labels, truth_of[image], execution, on_event), report)


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
    shown = [t for t in summary["pooled"]["ap"] if t in ("0.5", "0.75")] or list(summary["pooled"]["ap"])[:2]
    names = [f"AP {t}" for t in shown] + ["AP mean", f"F1 {shown[0]}", f"PQ {shown[0]}", "AJI", "Dice"]
    lines = ["".join(f"{name:>9}" for name in [*names, "true", "found"]) + "  image"]
    rows = [(record, record["image"]) for record in summary["images"]]
    if len(rows) > 1:
        rows += [(summary["by_image"], f"mean of {len(rows)} images"), (summary["pooled"], "all objects together")]
    for record, name in rows:
        figures = [record["ap"][t] for t in shown] + [record["ap_mean"]]
        figures += [record["f1"][shown[0]], record["pq"][shown[0]], record["aji"], record["dice"]]
        counts = [str(record.get(n, "")) for n in ("n_true", "n_pred")]
        lines.append("".join(f"{f:>9.4f}" for f in figures) + "".join(f"{n:>9}" for n in counts) + f"  {name}")
    return "\n".join(lines)
