"""Commands on annotations and models: sketch import/export/simulate/show, train."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sketchscale.cli import options as opt
from sketchscale.errors import InputError

if TYPE_CHECKING:
    from sketchscale.config import Execution

__all__ = ["register"]

Out = Annotated[str, typer.Option("--out", help="The file to write.")]


def register(app: typer.Typer) -> None:
    app.command()(opt.runs_plans(without=opt.NOT_TO_TRAIN)(train))
    group = typer.Typer(help="Sketches: strokes, outlines, boxes and points on an image.", no_args_is_help=True)
    for command in (sketch_import, sketch_export, sketch_simulate, sketch_show):
        group.command(command.__name__.removeprefix("sketch_"))(command)
    app.add_typer(group, name="sketch")


def _option(name: str, text: str, group: str, **rules: Any) -> Any:
    return typer.Option(name, help=text, rich_help_panel=group, **rules)


_HELD, _HOW, _RUN = "Held-out annotation", "How it learns", "Running"


def train(
    out: Annotated[str, typer.Option("--out", help="Folder of the model.")],
    images: Annotated[
        list[str] | None, typer.Argument(help="OME-Zarr images.", metavar="[IMAGE...]", show_default=False)
    ] = None,
    sketch: Annotated[
        list[str] | None,
        typer.Option("--sketch", help="Sketch of each image, in order: any file that `sketch import` reads."),
    ] = None,
    kind: opt.SketchKind = None,
    classes: opt.SketchClasses = None,
    synthetic: Annotated[
        list[str] | None,
        typer.Option("--synthetic", help="Synthesis, or folder of pairs, to learn from beside or instead; repeatable."),
    ] = None,
    synthetic_share: Annotated[
        float | None, typer.Option("--synthetic-share", help="Of the patches, 0.5; all of them without images.")
    ] = None,
    channel: opt.Channels = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", help="Of the whole: reading, steps, calibration, saving.", min=0.01)
    ] = 5.0,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps instead of minutes.", min=1)] = None,
    loss: Annotated[
        str, typer.Option("--loss", help="sketchpose, sketchpose-1, eikonal, dense or hover.")
    ] = "sketchpose",
    init: Annotated[str, typer.Option("--init", help="random, a model, or a Cellpose/Omnipose file.")] = "random",
    validate: Annotated[
        list[str] | None, _option("--validate", "Image to score, not to learn from; repeatable.", _HELD)
    ] = None,
    validate_sketch: Annotated[
        list[str] | None, _option("--validate-sketch", "Sketch of each --validate image, in order.", _HELD)
    ] = None,
    hold_out: Annotated[float | None, _option("--hold-out", "Share of objects to score instead: 0.2.", _HELD)] = None,
    patience: Annotated[int, _option("--patience", "Scores without a better one before it ends.", _HELD, min=1)] = 10,
    validate_every: Annotated[int, _option("--validate-every", "Steps between scores.", _HELD, min=1)] = 25,
    network: Annotated[str, _option("--network", "Kind of network: unet.", _HOW)] = "unet",
    width: Annotated[
        str, _option("--width", "Channels of the first level: 8, 16 or 32; auto: by --minutes.", _HOW)
    ] = "auto",
    rate: Annotated[float, _option("--rate", "Peak of the learning rate.", _HOW)] = 3e-3,
    batch: Annotated[str, _option("--batch", "Patches a step; auto: by --minutes.", _HOW)] = "auto",
    patch: Annotated[str, _option("--patch", "Side of a patch, px; auto: by --minutes.", _HOW)] = "auto",
    optimizer: Annotated[str, _option("--optimizer", "adamw or radam.", _HOW)] = "adamw",
    seed: Annotated[int, _option("--seed", "Of weights and patches.", _HOW, min=0)] = 0,
    on_conflict: Annotated[str, _option("--on-conflict", "refuse, or last: the later wins.", _HOW)] = "refuse",
    device: opt.Device = "cpu",
    precision: Annotated[
        str, _option("--precision", "auto (measured), float32, bfloat16, or float16 (CUDA).", _RUN)
    ] = "auto",
    compile: Annotated[str, _option("--compile", "on, off, or auto: on CUDA.", _RUN)] = "auto",
    threads: Annotated[int | None, _option("--threads", "Of torch on the CPU.", _RUN, min=1)] = None,
    preview_every: Annotated[int, _option("--preview-every", "Steps between pictures, 0: none.", _RUN, min=0)] = 100,
    save_every: Annotated[float, _option("--save-every", "Seconds between saved states.", _RUN, min=0)] = 180.0,
    engine: opt.TrainEngine = "local",
    json: opt.Json = False,
    *,
    execution: Execution,
) -> None:
    """Learn from sketches, synthetic scenes, or both. Ends after `--minutes`, when held-out annotation stops improving,
    or when OUT/run/stop appears, with a model; Ctrl-C saves the state, and `--resume` goes on. Strokes added meanwhile
    are taken in."""
    from sketchscale.config import TrainOptions, parse
    from sketchscale.training.distributed import is_first_process
    from sketchscale.workflow.sketches import parse_classes
    from sketchscale.workflow.train import train as work

    if synthetic_share is not None and not synthetic:
        raise InputError.of(found="--synthetic-share alone", expected="--synthetic, too", fix="name a synthesis")
    given = {
        "images": tuple(images or ()),
        "sketches": tuple(sketch or ()),
        "sketch_kind": kind,
        "sketch_classes": parse_classes(classes or ()),
        "synthetic": tuple(synthetic or ()),
        "synthetic_share": 0.5 if synthetic_share is None else synthetic_share,
        "validate": tuple(validate or ()),
        "validate_sketches": tuple(validate_sketch or ()),
        "hold_out": hold_out,
        "validate_every": validate_every,
        "patience": patience,
        "out": out,
        "channels": tuple(channel) if channel else None,
        "loss": loss,
        "network": network,
        "width": width,
        "init": init,
        "minutes": None if steps else minutes,
        "steps": steps,
        "rate": rate,
        "batch": batch,
        "patch": patch,
        "optimizer": optimizer,
        "precision": precision,
        "compile": compile,
        "threads": threads,
        "save_every_s": save_every,
        "preview_every": preview_every,
        "seed": seed,
        "device": device,
        "on_conflict": on_conflict,
    }
    settings = parse(TrainOptions, given, source="options")
    result = work(settings, opt.where_to_train("train", engine, execution), on_step=opt.say)
    if is_first_process():
        opt.show(asdict(result), json, lambda: result.summary)


def sketch_import(
    source: Annotated[
        str, typer.Argument(help="GeoJSON, painted label image (TIFF, PNG, NPY), points or boxes (CSV), Sketchpose's.")
    ],
    out: Out,
    image: Annotated[str | None, typer.Option("--image", help="The image it belongs to.")] = None,
    kind: opt.SketchKind = None,
    classes: opt.SketchClasses = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Bring other tools' annotations into a stroke log, and say how they were understood. Training, and everything else
    that takes a sketch, reads the same files directly."""
    from sketchscale.workflow.sketches import import_sketch, sketch_reading

    typer.echo(import_sketch(source, out, image=image, reading=sketch_reading(kind, classes), overwrite=overwrite))


def sketch_export(
    sketch: Annotated[str, typer.Argument(help="Stroke log, or any file that `sketch import` reads.")],
    out: Out,
    image: Annotated[str | None, typer.Option("--image", help="The image it belongs to.")] = None,
    kind: opt.SketchKind = None,
    classes: opt.SketchClasses = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """A sketch as GeoJSON."""
    from sketchscale.workflow.sketches import export_sketch, sketch_reading

    typer.echo(export_sketch(sketch, out, image=image, reading=sketch_reading(kind, classes), overwrite=overwrite))


def sketch_simulate(
    truth: Annotated[str, typer.Argument(help="Label image with every object.")],
    out: Out,
    style: Annotated[str, typer.Option("--style", help="fill, half, scribble, or gp.")] = "fill",
    objects: Annotated[int, typer.Option("--objects", help="Objects to annotate by strokes.", min=1)] = 20,
    percent: Annotated[float, typer.Option("--percent", help="Annotated pixels with style gp.")] = 10.0,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    overwrite: opt.Overwrite = False,
) -> None:
    """Partial annotation from full masks: strokes as a person draws them, or Gaussian-process masks."""
    from sketchscale.workflow.sketches import simulate_sketch

    typer.echo(
        simulate_sketch(truth, out, style=style, n_objects=objects, percent=percent, seed=seed, overwrite=overwrite)
    )


@opt.reads_stores
def sketch_show(
    sketch: Annotated[str, typer.Argument(help="Stroke log, or any file that `sketch import` reads.")],
    image: Annotated[
        str | None, typer.Option("--image", help="The image it belongs to: cut brushes at its edge, draw over it.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="PNG to write; without it, a summary.")] = None,
    kind: opt.SketchKind = None,
    classes: opt.SketchClasses = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="First move the torn last line of a stroke log to SKETCH.torn.")
    ] = False,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """What a sketch holds: pixels per class, objects, whether it has boundaries; or a picture of it."""
    from sketchscale.workflow.sketches import repair_sketch, show_sketch, sketch_reading

    if repair:
        opt.say(repair_sketch(sketch))
    summary = show_sketch(sketch, image=image, out=out, reading=sketch_reading(kind, classes), overwrite=overwrite)
    opt.show(summary, json, lambda: "\n".join(f"{key}: {value}" for key, value in summary.items()))
