"""Commands on label images: labels import, export."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from sketchscale.cli import options as opt

if TYPE_CHECKING:
    from sketchscale.config import Execution

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Label images of other programs, in and out.", no_args_is_help=True)
    group.command("import")(labels_import)
    group.command("export")(labels_export)
    app.add_typer(group, name="labels")


@opt.runs_plans()
def labels_import(
    source: Annotated[str, typer.Argument(metavar="MASK", help="TIFF, PNG or NPY, or a label image of a store.")],
    image: opt.Image,
    labels: opt.Labels = "nuclei",
    components: opt.Components = "auto",
    *,
    execution: Execution,
    json: opt.Json = False,
) -> None:
    """A mask of another program beside its image, to be measured and classified; ids stay as they are, and a mask of
    one value is split into its connected pieces."""
    from sketchscale.workflow.labels import import_labels

    with opt.progress() as on_event:
        result = import_labels(source, image, labels, execution, on_event, components=components)
    size = " x ".join(map(str, result.shape))
    note = f"; {source}: {result.note}" if result.note else ""
    line = f"{result.image}: labels {labels}, {size}, ids up to {result.largest}{note}"
    opt.show(asdict(result), json, lambda: line)


@opt.reads_stores
def labels_export(
    image: opt.Image,
    out: Annotated[str, typer.Option("--out", help="The TIFF to write.")],
    labels: opt.Labels = "nuclei",
    overwrite: opt.Overwrite = False,
) -> None:
    """Labels as a tiled 32-bit OME-TIFF with their pixel size, for programs that do not read OME-Zarr."""
    from sketchscale.workflow.labels import export_labels

    typer.echo(export_labels(image, labels, out, overwrite=overwrite))
