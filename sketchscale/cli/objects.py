"""Commands on objects: `classify train`, `classify apply`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import Only, Required, Without, command
from sketchscale.cli.messages import say
from sketchscale.options import ClassifyOptions, Execution

__all__ = ["classify_group", "register"]

classify_group = typer.Typer(help="Give every object a class, from a few annotated ones.", no_args_is_help=True)
"""Other files add their commands to it before `register`."""

Gallery = Annotated[str | None, typer.Option("--gallery", help="HTML file of thumbnails by class and probability.")]
Attention = Annotated[
    bool, typer.Option("--attention", help="Show next to each thumbnail where the network looked (Grad-CAM).")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(classify_group, "train")(classify_train)
    command(classify_group, "apply")(classify_apply)
    app.add_typer(classify_group, name="classify")


def classify_train(
    images: opt.Images,
    out: Annotated[str, typer.Option("--out", help="Folder of the classifier.")],
    named: opt.Labels,
    options: Annotated[ClassifyOptions, Without("classifier", "masks"), Required("annotations")],
    execution: opt.StoresToFile,
    json: opt.Json = False,
) -> None:
    """Train on annotated objects; prints the score on held-out ones, and saves their confusion matrix in the folder."""
    from sketchscale.workflow.classify.apply import train_classes

    marks, overwrite = options.annotations or "", execution.overwrite
    result = train_classes(images, named.labels, marks, out, options, overwrite=overwrite)
    opt.show(asdict(result), json, lambda: result.summary)


def classify_apply(
    images: opt.Images,
    named: opt.Labels,
    options: Annotated[ClassifyOptions, Only("classifier", "masks", "precision"), Required("classifier")],
    execution: Execution,
    gallery: Gallery = None,
    attention: Attention = False,
    json: opt.Json = False,
) -> None:
    """Write class and probability of every object into the table, and a class image next to the labels."""
    from sketchscale.workflow.classify.apply import apply_classes
    from sketchscale.workflow.classify.gallery import check_gallery, write_gallery
    from sketchscale.workflow.images import expand

    labels, classifier = named.labels, options.classifier or ""
    check_gallery(gallery, classifier, attention=attention, overwrite=execution.overwrite or execution.resume)

    def report(results: list[Any]) -> None:
        opt.show([asdict(r) for r in results], json, lambda: "\n".join(f"{r.image}: {r.counts}" for r in results))
        for r in results:
            if r.cropped:
                say(
                    f"warning: {r.image}: {r.cropped} of {sum(r.counts.values())} objects are larger than the patch of "
                    f"{r.side} px (patch_cropped in the table); a larger --side in `classify train` sees them whole"
                )
        if gallery is not None:
            path = write_gallery(
                [r.image for r in results], labels, classifier, gallery, execution=execution, attention=attention
            )
            say(f"gallery: {path}")

    how: dict[str, Any] = {"masks": options.masks, "precision": options.precision}
    with opt.progress() as on_event:
        opt.each(
            expand(images), lambda image: apply_classes(image, labels, classifier, execution, on_event, **how), report
        )
