"""Commands on objects: `classify train`, `classify apply`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt

__all__ = ["classify_group", "register"]

classify_group = typer.Typer(help="Give every object a class, from a few annotated ones.", no_args_is_help=True)
"""Other files add their commands to it before `register`."""


def register(app: typer.Typer) -> None:
    classify_group.command("train")(classify_train)
    classify_group.command("apply")(classify_apply)
    app.add_typer(classify_group, name="classify")


def classify_train(
    image: opt.Image,
    annotations: Annotated[str, typer.Option("--annotations", help="CSV: label,class or y,x,class.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the classifier.")],
    labels: opt.Labels = "nuclei",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Train the SVETLANA network on annotated objects; its accuracy on held-out ones is printed."""
    from sketchscale.workflow.classify import train_classes

    result = train_classes(image, labels, annotations, out, seed=seed, overwrite=overwrite)
    opt.show(asdict(result), json, lambda: result.summary)


def classify_apply(
    images: opt.Images,
    classifier: Annotated[str, typer.Option("--classifier", help="Folder written by `classify train`.")],
    labels: opt.Labels = "nuclei",
    engine: opt.Engine = "threads",
    workers: opt.Workers = None,
    block: opt.Block = 2048,
    memory: opt.Memory = None,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Class and probability of every object into the table, and a class image beside the labels."""
    from sketchscale.workflow.classify import apply_classes
    from sketchscale.workflow.images import expand

    execution = opt.execution(engine, workers, block, memory, resume, overwrite)

    def report(results: list[Any]) -> None:
        opt.show([asdict(r) for r in results], json, lambda: "\n".join(f"{r.image}: {r.counts}" for r in results))

    with opt.progress() as on_event:
        opt.each(expand(images), lambda image: apply_classes(image, labels, classifier, execution, on_event), report)
