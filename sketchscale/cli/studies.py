"""Commands on the whole: demo, doctor, run, schema."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sketchscale.cli import options as opt

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    for command in (demo, doctor, run, schema):
        app.command()(command)


def demo(
    out: Annotated[str, typer.Option("--out", help="Folder for everything the demo makes.")] = "sketchscale-demo",
    minutes: Annotated[float, typer.Option("--minutes", help="Training time.", min=0.01)] = 1.25,
    precision: opt.NetworkPrecision = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Of the model and of the classifier.", min=0)] = 0,
    overwrite: opt.Overwrite = False,
    json: opt.Json = False,
) -> None:
    """The whole main job on shipped images: sketch, train, segment, measure, classify, report."""
    from sketchscale.config import ClassifyOptions, parse
    from sketchscale.workflow.demo import demo as work

    networks = parse(ClassifyOptions, {"precision": precision, "seed": seed}, source="options")
    result = work(out, minutes=minutes, precision=networks.precision, seed=seed, overwrite=overwrite, say=opt.say)
    opt.show(result, json, lambda: f"open {result['report']} in a browser: every image with its outlines, counts, AP")


def doctor(json: opt.Json = False) -> None:
    """What this environment has and lacks, with a fix per line."""
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
    override: Annotated[list[str] | None, typer.Option("--set", help="Override a key: segment.min_size=30.")] = None,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
    json: opt.Json = False,
) -> None:
    """All of it for a study: train, segment, measure, classify, count, report; resumable."""
    from sketchscale.config import load_study
    from sketchscale.workflow.study import plan_study, run_study

    settings = load_study(study, override or ())
    if dry_run:
        stages = plan_study(settings, study)
        opt.show([asdict(s) for s in stages], json, lambda: opt.stage_table(stages))
        return
    with opt.progress() as on_event:
        result = run_study(settings, study, resume=resume, overwrite=overwrite, on_event=on_event, say=opt.say)
    opt.show(result, json, lambda: f"report: {result['report']}")
    if result["failed"]:
        raise opt.SomeFailedError(f"{len(result['failed'])} images failed: {', '.join(result['failed'])}")


def schema() -> None:
    """The JSON schema of a study file."""
    from sketchscale.config import schema as work

    opt.show(work(), True, str)
