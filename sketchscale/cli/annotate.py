"""Commands on objects and people's judgement of them: `count`, `classify propose`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt

__all__ = ["register"]

By = Annotated[
    list[str] | None,
    typer.Option("--by", help="class, well, image or none; repeated or with commas; image and class if not given."),
]


def register(app: typer.Typer) -> None:
    app.command()(count)


def count(
    images: opt.Images,
    labels: opt.Labels = "nuclei",
    by: By = None,
    json: opt.Json = False,
) -> None:
    """Objects per image, well and class, from the tables that `measure` and `classify` wrote."""
    from sketchscale.workflow import count as work
    from sketchscale.workflow.images import expand

    split = work.parse_by(by or ["image", "class"])

    def report(tallies: list[Any]) -> None:
        rows = work.counts_by(tallies, labels, split, missing=work.missing_wells(images) if "well" in split else ())
        opt.show(rows, json, lambda: work.counts_text(rows))

    opt.each(expand(images), lambda image: work.tally(image, labels), report)
