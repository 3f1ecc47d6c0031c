"""Commands on label images: labels import, export."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import command
from sketchscale.options import Execution, LabelOptions

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Label images of other programs, in and out.", no_args_is_help=True)
    command(group, "import")(labels_import)
    command(group, "export")(labels_export)
    app.add_typer(group, name="labels")


def labels_import(
    source: Annotated[str, typer.Argument(metavar="MASK", help="TIFF, PNG or NPY, or a label image of a store.")],
    image: opt.Image,
    options: LabelOptions,
    execution: Execution,
    json: opt.Json = False,
) -> None:
    """Copy a mask of another program into its image, to be measured and classified. Ids are kept; a mask of one value
    is split into its connected components."""
    from sketchscale.workflow.labels.labels import import_labels

    labels = options.labels
    with opt.progress() as on_event:
        result = import_labels(source, image, labels, execution, on_event, components=options.components)
    size = " x ".join(map(str, result.shape))
    note = f"; {source}: {result.note}" if result.note else ""
    line = f"{result.image}: labels {labels}, {size}, ids up to {result.largest}{note}"
    opt.show(asdict(result), json, lambda: line)


def labels_export(
    image: opt.Image,
    out: Annotated[str, typer.Option("--out", help="The TIFF to write.")],
    named: opt.Labels,
    execution: opt.StoresToFile,
) -> None:
    """Write labels as a tiled 32-bit OME-TIFF with their pixel size, for programs that do not read OME-Zarr."""
    from sketchscale.workflow.labels.labels import export_labels

    typer.echo(export_labels(image, named.labels, out, overwrite=execution.overwrite))
