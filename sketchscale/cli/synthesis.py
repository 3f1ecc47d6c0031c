"""Commands on syntheses: train one on images with centre points, generate pairs, score it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sketchscale.cli import options as opt

if TYPE_CHECKING:
    from sketchscale.config import Execution

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Image and label pairs from centre points.", no_args_is_help=True)
    group.command()(opt.runs_plans(without=opt.NOT_TO_TRAIN)(train))
    group.command()(opt.runs_plans(without=("block",))(generate))
    group.command()(opt.runs_plans(without=("resume",))(score))
    group.command()(opt.runs_plans(without=("resume",))(outline))
    app.add_typer(group, name="synthesize")


def _option(name: str, text: str, group: str, **rules: Any) -> Any:
    return typer.Option(name, help=text, rich_help_panel=group, **rules)


_OBJECTS, _HOW, _RUN = "What objects look like", "How it learns", "Running"


def train(
    images: opt.Images,
    points: Annotated[
        list[str], typer.Option("--points", help="Centres in each image, in order: CSV (y, x), GeoJSON or a sketch.")
    ],
    diameter: Annotated[float, _option("--diameter", "Of an object that stands alone, px.", _OBJECTS, min=2)],
    out: Annotated[str, typer.Option("--out", help="Folder of the synthesis.")],
    channel: opt.Channels = None,
    spread: Annotated[float, _option("--spread", "Of areas: standard deviation over mean.", _OBJECTS)] = 0.45,
    crowding: Annotated[float, _option("--crowding", "How much smaller crowded objects are.", _OBJECTS)] = 1.0,
    size: Annotated[str, _option("--size", "small (laptop), or paper (GPU).", _HOW)] = "small",
    steps: Annotated[int | None, _option("--steps", "3000, or 300000 with --size paper.", _HOW, min=1)] = None,
    batch: Annotated[int | None, _option("--batch", "Crops a step: 4, or 8.", _HOW, min=1)] = None,
    crop: Annotated[int | None, _option("--crop", "Side of a crop, px: 128, or 256.", _HOW, min=64)] = None,
    width: Annotated[int | None, _option("--width", "Of the generator: 8, or 32.", _HOW, min=1)] = None,
    noise: Annotated[int, _option("--noise", "Numbers drawn for each image.", _HOW, min=1)] = 1,
    given: Annotated[float, _option("--given", "Share of layouts on given points; others on drawn.", _HOW)] = 0.5,
    rate: Annotated[float, _option("--rate", "Of Adam.", _HOW)] = 2e-4,
    seed: Annotated[int, _option("--seed", "Of weights, crops and layouts.", _HOW, min=0)] = 0,
    device: opt.Device = "cpu",
    precision: Annotated[str, _option("--precision", "auto (measured), float32 or bfloat16.", _RUN)] = "auto",
    threads: Annotated[int | None, _option("--threads", "Of torch on the CPU.", _RUN, min=1)] = None,
    sheet_every: Annotated[int, _option("--sheet-every", "Steps between sample sheets, 0: none.", _RUN, min=0)] = 250,
    save_every: Annotated[float, _option("--save-every", "Seconds between saved states.", _RUN, min=0)] = 60.0,
    engine: opt.TrainEngine = "local",
    json: opt.Json = False,
    *,
    execution: Execution,
) -> None:
    """Learn to paint images of any layout of objects, from images with one point in each object. Ends after `--steps`,
    or when OUT/run/stop appears; Ctrl-C saves the state, and `--resume` goes on. Several GPUs: by torchrun, or by
    `--engine ray`."""
    from sketchscale.config import parse
    from sketchscale.training.distributed import is_first_process
    from sketchscale.workflow.synthesize import SynthesisOptions, synthesize_train

    given_options = {
        "images": tuple(images),
        "points": tuple(points),
        "out": out,
        "channels": tuple(channel) if channel else None,
        "diameter": diameter,
        "spread": spread,
        "crowding": crowding,
        "size": size,
        "steps": steps,
        "batch": batch,
        "crop": crop,
        "width": width,
        "noise": noise,
        "given": given,
        "rate": rate,
        "precision": precision,
        "threads": threads,
        "save_every_s": save_every,
        "sheet_every": sheet_every,
        "seed": seed,
        "device": device,
    }
    settings = parse(SynthesisOptions, given_options, source="options")
    result = synthesize_train(settings, opt.where_to_train("synthesize train", engine, execution), on_step=opt.say)
    if is_first_process():
        opt.show(asdict(result), json, lambda: result.summary)


def generate(
    synthesis: Annotated[
        str, typer.Argument(help="Folder that `synthesize train` wrote.", metavar="SYNTHESIS", show_default=False)
    ],
    out: Annotated[str, typer.Option("--out", help="New folder for the pairs.")],
    images: Annotated[int, typer.Option("--images", help="How many pairs.", min=1)] = 100,
    size: Annotated[int, typer.Option("--size", help="Side of an image, px.")] = 512,
    seed: Annotated[int, typer.Option("--seed", help="Of layouts and noise.", min=0)] = 0,
    points: Annotated[
        list[str] | None,
        typer.Option("--points", help="Centres to stand on instead of drawn ones: CSV, GeoJSON, sketch; repeatable."),
    ] = None,
    labels: opt.Labels = "nuclei",
    device: opt.Device = "cpu",
    precision: opt.NetworkPrecision = "auto",
    json: opt.Json = False,
    dry_run: opt.DryRun = False,
    *,
    execution: Execution,
) -> None:
    """Pairs of image and labels as a folder of OME-Zarr images. The same seed makes the same pairs, and more `--images`
    begin with them."""
    from sketchscale.config import parse
    from sketchscale.workflow import synthesize_generate as work

    given_options = {
        "synthesis": synthesis,
        "out": out,
        "images": images,
        "size": size,
        "seed": seed,
        "points": tuple(points or ()),
        "labels": labels,
        "device": device,
        "precision": precision,
    }
    settings = parse(work.GenerateOptions, given_options, source="options")
    if dry_run:
        stages = work.plan_generate(settings, execution)
        opt.show([asdict(s) for s in stages], json, lambda: opt.stage_table(stages))
        return
    with opt.progress() as on_event:
        result = work.generate(settings, execution, on_event)
    opt.show(asdict(result), json, lambda: result.summary)


def score(
    synthesis: Annotated[
        str, typer.Argument(help="Folder that `synthesize train` wrote.", metavar="SYNTHESIS", show_default=False)
    ],
    images: opt.Images,
    points: Annotated[
        list[str], typer.Option("--points", help="Centres in each image, in order: CSV (y, x), GeoJSON or a sketch.")
    ],
    channel: opt.Channels = None,
    crops: Annotated[int, typer.Option("--crops", help="Of the real images; half as many are painted.")] = 200,
    crop: Annotated[int | None, typer.Option("--crop", help="Their side, px; that of training when not given.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of crops, layouts and noise.", min=0)] = 0,
    out: Annotated[str | None, typer.Option("--out", help="Write every figure to this JSON file.")] = None,
    picture: Annotated[str | None, typer.Option("--picture", help="PNG of some, painted and read.")] = None,
    device: opt.Device = "cpu",
    precision: opt.NetworkPrecision = "auto",
    json: opt.Json = False,
    *,
    execution: Execution,
) -> None:
    """Painted crops against real ones: distances beside their floor, diversity, objects read back, order of bright and
    dark. What counts is a model trained on the pairs: `generate`, `train`, `evaluate`."""
    from sketchscale.config import parse
    from sketchscale.workflow.synthesize_score import ScoreOptions, score_synthesis

    given_options = {
        "synthesis": synthesis,
        "images": tuple(images),
        "points": tuple(points),
        "channels": tuple(channel) if channel else None,
        "crops": crops,
        "crop": crop,
        "seed": seed,
        "device": device,
        "precision": precision,
        "out": out,
        "picture": picture,
    }
    settings = parse(ScoreOptions, given_options, source="options")
    with opt.progress() as on_event:
        result = score_synthesis(settings, execution, on_event)
    opt.show(result.as_dict(), json, lambda: result.text)


def outline(
    synthesis: Annotated[
        str, typer.Argument(help="Folder that `synthesize train` wrote.", metavar="SYNTHESIS", show_default=False)
    ],
    images: opt.Images,
    points: Annotated[
        list[str], typer.Option("--points", help="Centres in each image, in order: CSV (y, x), GeoJSON or a sketch.")
    ],
    out: Annotated[str, typer.Option("--out", help="Folder for the sketches, one for each image.")],
    channel: opt.Channels = None,
    sketch: Annotated[
        list[str] | None, typer.Option("--sketch", help="Strokes on each image, in order; they overrule what is seen.")
    ] = None,
    kind: opt.SketchKind = None,
    classes: opt.SketchClasses = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Segmentation model that reads along, as one trained with strokes.")
    ] = None,
    foreground: Annotated[float, typer.Option("--foreground", help="Least probability of an object's pixel.")] = 0.2,
    background: Annotated[float, typer.Option("--background", help="Largest probability of background.")] = 0.2,
    all_clicked: Annotated[
        bool, typer.Option("--all-clicked", help="No object is without a point: all the rest is background.")
    ] = False,
    device: opt.Device = "cpu",
    precision: opt.NetworkPrecision = "auto",
    json: opt.Json = False,
    *,
    execution: Execution,
) -> None:
    """Sketches from clicks: every clicked object as the synthesis sees it; what it is unsure of stays unknown. For
    `train IMAGE... --sketch ... --synthetic SYNTHESIS`."""
    from sketchscale.config import parse
    from sketchscale.workflow.sketches import sketch_reading
    from sketchscale.workflow.synthesize_outline import OutlineOptions, synthesize_outline

    given_options = {
        "synthesis": synthesis,
        "images": tuple(images),
        "points": tuple(points),
        "out": out,
        "channels": tuple(channel) if channel else None,
        "sketches": tuple(sketch or ()),
        "reading": sketch_reading(kind, classes),
        "model": model,
        "foreground": foreground,
        "background": background,
        "all_clicked": all_clicked,
        "device": device,
        "precision": precision,
    }
    settings = parse(OutlineOptions, given_options, source="options")
    with opt.progress() as on_event:
        found = synthesize_outline(settings, execution, on_event)
    opt.show([asdict(sketch) for sketch in found], json, lambda: "\n".join(sketch.line for sketch in found))
