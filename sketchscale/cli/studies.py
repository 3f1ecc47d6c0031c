"""Commands for everything at once, and about the installation: demo, doctor, run, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from sketchscale.cli import options as opt
from sketchscale.cli.flags import Only, Without, command
from sketchscale.cli.messages import say
from sketchscale.options import DemoOptions, Execution

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for one in (demo, doctor, run, schema):
        command(app)(one)


def demo(
    options: Annotated[DemoOptions, Without("device")],
    execution: Annotated[Execution, Only("overwrite")],
    json: opt.Json = False,
) -> None:
    """Run everything on shipped images: sketch, train, segment, measure, classify, report."""
    from sketchscale.workflow.demo import demo as work

    o = options
    result = work(o.out, minutes=o.minutes, precision=o.precision, seed=o.seed, overwrite=execution.overwrite, say=say)
    opt.show(result, json, lambda: f"open {result['report']} in a browser: every image with its outlines, counts, AP")


def doctor(json: opt.Json = False) -> None:
    """Show what this environment has and lacks, with a fix per line."""
    from sketchscale.workflow.doctor import examine

    checks = examine()
    opt.show(
        checks,
        json,
        lambda: "\n".join(
            f"{'ok  ' if c['ok'] else 'miss'} {c['name']}: {c['found']}" + (f"; to fix: {c['fix']}" if c["fix"] else "")
            for c in checks
        ),
    )
    if not all(c["ok"] for c in checks if c["required"]):
        raise typer.Exit(5)


def run(
    study: Annotated[str, typer.Argument(help="A study file.", metavar="STUDY.toml")],
    execution: Annotated[Execution, Only("resume", "overwrite")],
    override: Annotated[list[str] | None, typer.Option("--set", help="Override a key: segment.min_size=30.")] = None,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
) -> None:
    """Run a study: train, segment, measure, classify, count, report; resumable."""
    from sketchscale.config import load_study
    from sketchscale.workflow.study import plan_study, run_study

    settings = load_study(study, override or ())
    if dry_run:
        opt.show_stages(plan_study(settings, study), json)
        return
    with opt.progress() as on_event:
        result = run_study(
            settings, study, resume=execution.resume, overwrite=execution.overwrite, on_event=on_event, say=say
        )
    opt.show(result, json, lambda: f"report: {result['report']}")
    if result["failed"]:
        raise opt.SomeFailedError(f"{len(result['failed'])} images failed: {', '.join(result['failed'])}")


def schema() -> None:
    """Print the JSON schema of a study file."""
    from sketchscale.config import schema as work

    opt.show(work(), True, str)
