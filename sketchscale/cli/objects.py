"""Commands on objects: `classify train`, `classify apply`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sketchscale.cli import options as opt

if TYPE_CHECKING:
    from sketchscale.config import Execution

__all__ = ["classify_group", "register"]

classify_group = typer.Typer(help="Give every object a class, from a few annotated ones.", no_args_is_help=True)
"""Other files add their commands to it before `register`."""

Kind = Annotated[
    str, typer.Option("--kind", help="light, resnet18, random-forest, gradient-boosting or ensemble (light + forest).")
]
Side = Annotated[int | None, typer.Option("--side", help="Of a patch, px; estimated from the objects.", min=4)]
Depth = Annotated[int, typer.Option("--depth", help="Convolutions of a light network, 2 to 4.")]
Kernel = Annotated[int, typer.Option("--kernel", help="Side of its convolutions: 3 or 5.")]
Width = Annotated[int | None, typer.Option("--width", help="Filters of its first convolution.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Optimiser steps.", min=1)]
Rate = Annotated[float | None, typer.Option("--rate", help="Learning rate at the start.")]
Loss = Annotated[str | None, typer.Option("--loss", help="Name of a loss, such as cross-entropy.")]
Weights = Annotated[str, typer.Option("--weights", help="balanced: every class weighs the same; or none.")]
Normalize = Annotated[
    str, typer.Option("--normalize", help="plane: percentiles of the image; min-max or max: of each patch; or none.")
]
Context = Annotated[
    float | None, typer.Option("--context-radius", help="Hide what is farther from the object, px.", min=0)
]
Mask = Annotated[bool, typer.Option("--mask/--no-mask", help="Show the network which pixels are the object's.")]
HoldOut = Annotated[float, typer.Option("--hold-out", help="Share of the annotated objects that is scored first.")]
Init = Annotated[str | None, typer.Option("--init", help="Classifier folder whose weights are the start.")]
Colors = Annotated[
    list[str] | None, typer.Option("--color", help="NAME=#RRGGBB of a class, in images and gallery; repeat it.")
]
OnConflict = Annotated[str, typer.Option("--on-conflict", help="Two classes for one object: refuse, or last.")]
Masks = Annotated[bool, typer.Option("--masks", help="Also labels/NAME_CLASS: the objects of each class alone.")]
Gallery = Annotated[str | None, typer.Option("--gallery", help="HTML file of thumbnails by class and probability.")]
Attention = Annotated[
    bool, typer.Option("--attention", help="Beside each thumbnail, where the network looked (Grad-CAM).")
]


def register(app: typer.Typer) -> None:
    classify_group.command("train")(classify_train)
    classify_group.command("apply")(classify_apply)
    app.add_typer(classify_group, name="classify")


@opt.reads_stores
def classify_train(
    images: opt.Images,
    annotations: Annotated[
        str, typer.Option("--annotations", help="CSV, Parquet or GeoJSON: label or y,x; class; image if several.")
    ],
    out: Annotated[str, typer.Option("--out", help="Folder of the classifier.")],
    labels: opt.Labels = "nuclei",
    kind: Kind = "light",
    side: Side = None,
    depth: Depth = 2,
    kernel: Kernel = 3,
    width: Width = None,
    steps: Steps = None,
    rate: Rate = None,
    loss: Loss = None,
    weights: Weights = "balanced",
    normalize: Normalize = "plane",
    context_radius: Context = None,
    mask: Mask = True,
    hold_out: HoldOut = 0.2,
    init: Init = None,
    color: Colors = None,
    on_conflict: OnConflict = "refuse",
    seed: Annotated[int, typer.Option("--seed")] = 0,
    device: opt.Device = "cpu",
    precision: opt.NetworkPrecision = "auto",
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Train on annotated objects; the score on held-out ones is printed, its confusion matrix lies in the folder."""
    from sketchscale.config import ClassifyOptions, parse
    from sketchscale.workflow.classify import train_classes
    from sketchscale.workflow.judge import parse_colors

    given = {
        "kind": kind,
        "side": side,
        "depth": depth,
        "kernel": kernel,
        "width": width,
        "steps": steps,
        "rate": rate,
        "loss": loss,
        "weights": weights,
        "normalize": normalize,
        "context_radius": context_radius,
        "mask": mask,
        "hold_out": hold_out,
        "init": init,
        "colors": parse_colors(color or ()),
        "on_conflict": on_conflict,
        "seed": seed,
        "device": device,
        "precision": precision,
    }
    settings = parse(ClassifyOptions, given, source="options")
    result = train_classes(images, labels, annotations, out, settings, overwrite=overwrite)
    opt.show(asdict(result), json, lambda: result.summary)


@opt.runs_plans()
def classify_apply(
    images: opt.Images,
    classifier: Annotated[str, typer.Option("--classifier", help="Folder written by `classify train`.")],
    labels: opt.Labels = "nuclei",
    masks: Masks = False,
    gallery: Gallery = None,
    attention: Attention = False,
    precision: opt.NetworkPrecision = "auto",
    *,
    execution: Execution,
    json: opt.Json = False,
) -> None:
    """Class and probability of every object into the table, and a class image beside the labels."""
    from sketchscale.config import ClassifyOptions, parse
    from sketchscale.workflow.classify import apply_classes
    from sketchscale.workflow.classify_gallery import check_gallery, write_gallery
    from sketchscale.workflow.images import expand

    settings = parse(ClassifyOptions, {"precision": precision}, source="options")
    check_gallery(gallery, classifier, attention=attention, overwrite=execution.overwrite or execution.resume)

    def report(results: list[Any]) -> None:
        opt.show([asdict(r) for r in results], json, lambda: "\n".join(f"{r.image}: {r.counts}" for r in results))
        for r in results:
            if r.cropped:
                opt.say(
                    f"warning: {r.image}: {r.cropped} of {sum(r.counts.values())} objects are larger than the patch of "
                    f"{r.side} px (patch_cropped in the table); a larger --side in `classify train` sees them whole"
                )
        if gallery is not None:
            path = write_gallery(
                [r.image for r in results], labels, classifier, gallery, execution=execution, attention=attention
            )
            opt.say(f"gallery: {path}")

    with opt.progress() as on_event:
        opt.each(
            expand(images),
            lambda image: apply_classes(
                image, labels, classifier, execution, on_event, masks=masks, precision=settings.precision
            ),
            report,
        )
