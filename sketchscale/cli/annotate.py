"""Commands to count objects and to propose objects for review: `count`, `classify propose`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import command
from sketchscale.cli.objects import classify_group
from sketchscale.options import CountOptions, JudgeOptions, ProposeOptions

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(count)
    command(classify_group, "propose")(classify_propose)


def classify_propose(
    images: opt.Images,
    out: Annotated[str, typer.Option("--out", help="CSV file to write; the column class is to be filled in.")],
    named: opt.Labels,
    options: ProposeOptions,
    judge: JudgeOptions,
    execution: opt.StoresToFile,
    json: opt.Json = False,
) -> None:
    """Propose objects to review or annotate, as a CSV and a page: at random, or where examples help most."""
    from sketchscale.objects.annotation.mark_files import check_colors
    from sketchscale.workflow.classify.judging_page import class_choices, known_classes, write_page
    from sketchscale.workflow.classify.propose import propose, save_proposals
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.runner import refuse_existing

    page, labels, overwrite = judge.page, named.labels, execution.overwrite
    refuse_existing(out, overwrite=overwrite)
    if page:
        refuse_existing(page, overwrite=overwrite, option="--page")
    colors, addresses = check_colors(judge.colors), expand(images)
    known = known_classes(judge.classifier, addresses, labels) if page else {}
    result = propose(addresses, labels, options)
    written = [save_proposals(result, out)]
    if page:
        choices = class_choices([*judge.classes, *known], {k: v for k, v in known.items() if v} | colors)
        written.append(write_page(result, labels, page, classes=choices, show_class=judge.show_class))
    opt.show(
        {"written": written, **asdict(result)},
        json,
        lambda: f"{', '.join(written)}: {len(result.proposals)} of {result.drawn_from} objects, by {options.by}",
    )


def count(images: opt.Images, options: CountOptions, execution: opt.StoresToFile, json: opt.Json = False) -> None:
    """Count objects per image, well and class; with --review, correct the counts by a reviewed random sample."""
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.measure import count as work
    from sketchscale.workflow.runner import refuse_existing

    labels, csv = options.labels, options.csv
    split = work.parse_by(options.by or (["class"] if options.review else ["image", "class"]))
    if csv:
        refuse_existing(csv, overwrite=execution.overwrite, option="--csv")
    if options.review is not None:
        _count_reviewed(images, options, split, json)
        return

    def report(tallies: list[Any]) -> None:
        rows = work.counts_by(tallies, labels, split, missing=work.missing_wells(images) if "well" in split else ())
        if csv:
            work.save_counts(rows, csv)
        opt.show(rows, json, lambda: work.counts_text(rows))

    opt.each(expand(images), lambda image: work.tally(image, labels), report)


def _count_reviewed(images: list[str], options: CountOptions, by: tuple[str, ...], json: bool) -> None:
    from sketchscale.errors import InputError
    from sketchscale.workflow.classify.review import review_counts, review_rows, review_text
    from sketchscale.workflow.images import expand
    from sketchscale.workflow.measure.count import save_counts

    if by != ("class",):
        raise InputError.of(
            found=f"--review by {', '.join(by) or 'none'}",
            expected="--by class: a sample of all images does not represent one",
            fix="leave --by out, or count the images of one well with proposals drawn from it",
        )
    labels = options.labels
    result = review_counts(expand(images), labels, options.review or "", on_conflict=options.on_conflict)
    rows = review_rows(result, labels)
    if options.csv:
        save_counts(rows, options.csv)
    opt.show({"counts": rows, **asdict(result)}, json, lambda: review_text(result, labels))
