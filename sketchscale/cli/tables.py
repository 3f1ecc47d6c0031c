"""Commands on tables of objects: `table export`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import command
from sketchscale.cli.messages import say
from sketchscale.options import TableOptions

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Tables of objects for other tools.", no_args_is_help=True)
    group.callback()(lambda: None)  # with a single command, its name would be left out
    command(group, "export")(table_export)
    app.add_typer(group, name="table")


def table_export(
    image: Annotated[str, typer.Argument(help="An OME-Zarr image or plate.", metavar="IMAGE", show_default=False)],
    out: Annotated[str, typer.Option("--out", help="File to write: .csv, .parquet or .h5ad.")],
    options: TableOptions,
    execution: opt.StoresToFile,
    json: opt.Json = False,
) -> None:
    """Write a measured table as CSV, Parquet, AnnData, or under pycytominer's names; of a plate, all its images."""
    from sketchscale.workflow.measure.export_table import export_table

    chosen = asdict(options)
    result = export_table(image, chosen.pop("labels"), out, overwrite=execution.overwrite, **chosen)
    for line in result.missing:
        say(f"left out: {line}")
    of = f" of {result.images} images" if result.images > 1 else ""
    opt.show(asdict(result), json, lambda: f"{result.path}: {result.n} rows{of}")
