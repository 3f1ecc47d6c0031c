"""Commands on syntheses: train one on images with centre points, generate pairs, score it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import Without, command
from sketchscale.cli.messages import say
from sketchscale.options import Execution, GenerateOptions, OutlineOptions, ScoreOptions, SynthesisOptions

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Image and label pairs from centre points.", no_args_is_help=True)
    for one in (train, generate, score, outline):
        command(group)(one)
    app.add_typer(group, name="synthesize")


def train(
    options: SynthesisOptions, execution: opt.Training, engine: opt.TrainEngine = "local", json: opt.Json = False
) -> None:
    """Learn to paint images of any layout of objects, from images with one point in each object. Ends after `--steps`,
    or when the file OUT/run/stop appears; Ctrl-C saves the state, and `--resume` continues. Use torchrun or
    `--engine ray` for several GPUs."""
    from sketchscale.training.distributed import is_first_process
    from sketchscale.workflow.synthesize.train import synthesize_train

    result = synthesize_train(options, opt.where_to_train("synthesize train", engine, execution), on_step=say)
    if is_first_process():
        opt.show(asdict(result), json, lambda: result.summary)


def generate(
    options: GenerateOptions,
    execution: Annotated[Execution, Without("block")],
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
) -> None:
    """Write pairs of image and labels as a folder of OME-Zarr images. The same seed makes the same pairs, also with
    more `--images`."""
    from sketchscale.workflow.synthesize import generate as work

    if dry_run:
        opt.show_stages(work.plan_generate(options, execution), json)
        return
    with opt.progress() as on_event:
        result = work.generate(options, execution, on_event)
    opt.show(asdict(result), json, lambda: result.summary)


def score(options: ScoreOptions, execution: Annotated[Execution, Without("resume")], json: opt.Json = False) -> None:
    """Compare painted crops with real ones: distances and their floor, diversity, objects read back, order of bright
    and dark. The real test is a model trained on the pairs: `generate`, `train`, `evaluate`."""
    from sketchscale.workflow.synthesize.score import score_synthesis

    with opt.progress() as on_event:
        result = score_synthesis(options, execution, on_event)
    opt.show(result.as_dict(), json, lambda: result.text)


def outline(
    options: OutlineOptions, execution: Annotated[Execution, Without("resume")], json: opt.Json = False
) -> None:
    """Make sketches from clicks: the outline of every clicked object as the synthesis finds it; uncertain pixels stay
    unknown. For `train IMAGE... --sketch ... --synthetic SYNTHESIS`."""
    from sketchscale.workflow.synthesize.outline import synthesize_outline

    with opt.progress() as on_event:
        found = synthesize_outline(options, execution, on_event)
    opt.show([asdict(sketch) for sketch in found], json, lambda: "\n".join(sketch.line for sketch in found))
