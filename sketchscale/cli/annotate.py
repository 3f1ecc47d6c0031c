"""Commands on objects and people's judgement of them: `count`, `classify propose`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.objects import classify_group

__all__ = ["register"]

By = Annotated[
    list[str] | None,
    typer.Option("--by", help="class, well, image or none; repeated or with commas; image and class if not given."),
]


def register(app: typer.Typer) -> None:
    app.command()(count)
    classify_group.command("propose")(classify_propose)


@opt.reads_stores
def classify_propose(
    images: opt.Images,
    out: Annotated[str, typer.Option("--out", help="CSV file to write; the column class is to be filled in.")],
    labels: opt.Labels = "nuclei",
    n: Annotated[int, typer.Option("--n", help="Objects to propose.", min=1)] = 50,
    by: Annotated[str, typer.Option("--by", help="random, uncertainty, diversity or both.")] = "random",
    seed: Annotated[int, typer.Option("--seed", help="Another one draws other objects.")] = 0,
    page: Annotated[str | None, typer.Option("--page", help="HTML file on which to judge them, with the keys.")] = None,
    classifier: Annotated[str | None, typer.Option("--classifier", help="Its classes and colours, for --page.")] = None,
    names: Annotated[list[str] | None, typer.Option("--class", help="A class to choose from; repeated.")] = None,
    color: Annotated[list[str] | None, typer.Option("--color", help="name=#RRGGBB of a class; repeated.")] = None,
    show_class: Annotated[
        bool, typer.Option("--show-class", help="Tell what the classifier said on the page.")
    ] = False,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Objects worth a look, as a CSV to fill in and a page to do it on: at random, or where examples teach most."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.judge import class_choices, known_classes, parse_colors, write_page
    from sketchscale.workflow.propose import ProposeOptions, propose, save_proposals
    from sketchscale.workflow.runner import refuse_existing

    refuse_existing(out, overwrite=overwrite)
    if page:
        refuse_existing(page, overwrite=overwrite, option="--page")
    colors, addresses = parse_colors(color or ()), expand(images)
    known = known_classes(classifier, addresses, labels) if page else {}
    result = propose(addresses, labels, ProposeOptions(n=n, by=by, seed=seed))
    written = [save_proposals(result, out)]
    if page:
        choices = class_choices([*(names or ()), *known], {k: v for k, v in known.items() if v} | colors)
        written.append(write_page(result, labels, page, classes=choices, show_class=show_class))
    opt.show(
        {"written": written, **asdict(result)},
        json,
        lambda: f"{', '.join(written)}: {len(result.proposals)} of {result.drawn_from} objects, by {by}",
    )


@opt.reads_stores
def count(
    images: opt.Images,
    labels: opt.Labels = "nuclei",
    by: By = None,
    review: Annotated[str | None, typer.Option("--review", help="Judged random objects: corrected counts.")] = None,
    on_conflict: Annotated[str, typer.Option("--on-conflict", help="In --review: refuse or last.")] = "refuse",
    csv: Annotated[str | None, typer.Option("--csv", help="Write the rows to this file, too.")] = None,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """Objects per image, well and class; with --review, what there are by a person's judgement of a random sample."""
    from sketchscale.errors import UnknownNameError
    from sketchscale.workflow import count as work
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.runner import refuse_existing

    split = work.parse_by(by or (["class"] if review else ["image", "class"]))
    if csv:
        refuse_existing(csv, overwrite=overwrite, option="--csv")
    if review is not None:
        if on_conflict not in ("refuse", "last"):
            raise UnknownNameError.among("--on-conflict", on_conflict, ("refuse", "last"))
        _count_reviewed(images, labels, split, review, on_conflict, csv, json)
        return

    def report(tallies: list[Any]) -> None:
        rows = work.counts_by(tallies, labels, split, missing=work.missing_wells(images) if "well" in split else ())
        if csv:
            work.save_counts(rows, csv)
        opt.show(rows, json, lambda: work.counts_text(rows))

    opt.each(expand(images), lambda image: work.tally(image, labels), report)


def _count_reviewed(
    images: list[str], labels: str, by: tuple[str, ...], path: str, on_conflict: Any, csv: str | None, json: bool
) -> None:
    from sketchscale.errors import InputError
    from sketchscale.workflow.count import save_counts
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.review import review_counts, review_rows, review_text

    if by != ("class",):
        raise InputError.of(
            found=f"--review by {', '.join(by) or 'none'}",
            expected="--by class: a sample of all images says nothing of one",
            fix="leave --by out, or count the images of one well with proposals drawn from it",
        )
    result = review_counts(expand(images), labels, path, on_conflict=on_conflict)
    rows = review_rows(result, labels)
    if csv:
        save_counts(rows, csv)
    opt.show({"counts": rows, **asdict(result)}, json, lambda: review_text(result, labels))
