"""The command `classify import`: annotations and networks of SVETLANA."""

from __future__ import annotations

from typing import Annotated

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.objects import classify_group

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command to the group `classify`; call this before that group is registered."""
    classify_group.command("import")(classify_import)


def classify_import(
    file: Annotated[str, typer.Argument(help="Svetlana/labels, or a network (.pth) of SVETLANA.")],
    out: Annotated[str, typer.Option("--out", help="CSV file for annotations, folder for a network.")],
    classes: Annotated[
        list[str] | None, typer.Option("--class", help="Name of a class, in the order of SVETLANA's keys; repeat it.")
    ] = None,
    channels: Annotated[
        list[str] | None, typer.Option("--channel", help="Channel of the images of a network, in order; repeat it.")
    ] = None,
    side: Annotated[
        int | None, typer.Option("--side", help="Side of a patch, px, if the file does not give it.", min=4)
    ] = None,
    normalize: Annotated[
        str | None, typer.Option("--normalize", help="min-max, max or none, if the file does not give it.")
    ] = None,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Import annotations of SVETLANA as marks for --annotations, or its network. No code in the file is run."""
    from sketchscale.workflow.classify.svetlana import import_svetlana

    found = import_svetlana(
        file,
        out,
        classes=tuple(classes or ()),
        channels=tuple(channels or ()),
        side=side,
        normalization=normalize,
        overwrite=overwrite,
    )
    what = f"{found['n']} marks" if found["kind"] == "marks" else f"classifier, patches of {found['side']} px"
    opt.show(found, json, lambda: f"{out}: {what}; {', '.join(found['classes'])}")
