"""Commands on sketches and training: sketch import/export/simulate/show, train."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import Required, command
from sketchscale.cli.messages import say
from sketchscale.options import SimulateOptions, SketchOptions, TrainOptions

__all__ = ["register"]

Out = Annotated[str, typer.Option("--out", help="The file to write.")]
SketchFile = Annotated[str, typer.Argument(help="Stroke log, or any file that `sketch import` reads.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(train)
    group = typer.Typer(help="Sketches: strokes, outlines, boxes and points on an image.", no_args_is_help=True)
    for one in (sketch_import, sketch_export, sketch_simulate, sketch_show):
        command(group, one.__name__.removeprefix("sketch_"))(one)
    app.add_typer(group, name="sketch")


def train(
    options: Annotated[TrainOptions, Required("out")],
    execution: opt.Training,
    engine: opt.TrainEngine = "local",
    json: opt.Json = False,
) -> None:
    """Train on sketches, synthetic scenes, or both. Ends with a model after `--minutes`, when the score on held-out
    annotation stops improving, or when the file OUT/run/stop appears. Ctrl-C saves the state, and `--resume`
    continues. Strokes added meanwhile are used."""
    from sketchscale.training.distributed import is_first_process
    from sketchscale.workflow.train.train import train as work

    settings = replace(options, minutes=None) if options.steps else options
    result = work(settings, opt.where_to_train("train", engine, execution), on_step=say)
    if is_first_process():
        opt.show(asdict(result), json, lambda: result.summary)


def sketch_import(
    source: Annotated[
        str, typer.Argument(help="GeoJSON, painted label image (TIFF, PNG, NPY), points or boxes (CSV), Sketchpose's.")
    ],
    out: Out,
    options: SketchOptions,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write other tools' annotations as a stroke log, and report how they were understood. Training, and everything
    else that takes a sketch, reads the same files directly."""
    from sketchscale.workflow.sketches import import_sketch, sketch_reading

    reading = sketch_reading(options)
    typer.echo(import_sketch(source, out, image=options.image, reading=reading, overwrite=overwrite))


def sketch_export(sketch: SketchFile, out: Out, options: SketchOptions, overwrite: opt.Overwrite = False) -> None:
    """Write a sketch as GeoJSON."""
    from sketchscale.workflow.sketches import export_sketch, sketch_reading

    reading = sketch_reading(options)
    typer.echo(export_sketch(sketch, out, image=options.image, reading=reading, overwrite=overwrite))


def sketch_simulate(
    truth: Annotated[str, typer.Argument(help="Label image with every object.")],
    out: Out,
    options: SimulateOptions,
    overwrite: opt.Overwrite = False,
) -> None:
    """Make partial annotation from full masks: strokes as a person draws them, or Gaussian-process masks."""
    from sketchscale.workflow.sketches import simulate_sketch

    chosen = asdict(options)
    typer.echo(simulate_sketch(truth, out, n_objects=chosen.pop("objects"), overwrite=overwrite, **chosen))


def sketch_show(
    sketch: SketchFile,
    options: SketchOptions,
    execution: opt.Stores,
    out: Annotated[str | None, typer.Option("--out", help="PNG to write; without it, a summary.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="First move an incomplete last line of a stroke log to SKETCH.torn.")
    ] = False,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Show what a sketch holds: pixels per class, objects, whether it has boundaries; or draw a picture of it."""
    from sketchscale.workflow.sketches import repair_sketch, show_sketch, sketch_reading

    if repair:
        say(repair_sketch(sketch))
    reading = sketch_reading(options)
    summary = show_sketch(sketch, image=options.image, out=out, reading=reading, overwrite=overwrite)
    opt.show(summary, json, lambda: "\n".join(f"{key}: {value}" for key, value in summary.items()))
