"""Parts that commands share: parameters, progress, results, and failures of several images."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sketchscale.cli.flags import Only, Without
from sketchscale.cli.messages import is_quiet, say
from sketchscale.errors import InputError, SetupError, SketchscaleError, UnknownNameError
from sketchscale.options import Execution, LabelOptions

if TYPE_CHECKING:
    from sketchscale.engine.base import Event

Images = Annotated[list[str], typer.Argument(help="OME-Zarr images or plates.", metavar="IMAGE...", show_default=False)]
Image = Annotated[str, typer.Argument(help="An OME-Zarr image.", metavar="IMAGE", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print stages, tasks and memory; change nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing output.")]
TrainEngine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="local: this process, or those of torchrun; ray: --workers processes.",
        rich_help_panel="Running",
    ),
]


class SomeFailedError(Exception):
    """Some images failed (exit code 3), or all did (exit code of the last)."""

    def __init__(self, message: str, exit_code: int = 3) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def show(result: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print the result on stdout, as JSON or as text."""
    typer.echo(json.dumps(result, indent=2, default=str) if as_json else text())


Stores = Annotated[Execution, Only("wait_s", "endpoint")]
"""For a command that only reads."""
Labels = Annotated[LabelOptions, Only("labels")]
StoresToFile = Annotated[Execution, Only("wait_s", "endpoint", "overwrite")]
Training = Annotated[Execution, Without("engine", "block", "memory_gb", "scratch", "deadline_s")]
"""A training is no plan of tasks, and has another `--engine`."""


def where_to_train(command: str, engine: str, execution: Execution) -> Execution:
    """Return the execution of a training; refuse options of clusters without one.

    Args:
        command: of `sketchscale`, for the message.
        engine: local or ray.
    """
    if engine not in ("local", "ray"):
        raise UnknownNameError.among("engine to train with", engine, ("local", "ray"))
    asked = {
        "--workers": execution.workers,
        "--address": execution.address,
        "--gpus-per-worker": execution.gpus_per_worker,
    }
    given = [name for name, value in asked.items() if value is not None]
    if engine == "local" and given:
        raise InputError.of(
            found=f"{', '.join(given)} with --engine local",
            expected="one process, or as many as torchrun starts",
            fix=f"--engine ray, or torchrun --nproc-per-node N --no-python sketchscale {command} ...",
        )
    return replace(execution, engine="threads" if engine == "local" else engine)


@contextmanager
def progress(title: str = "") -> Iterator[Callable[[Event], None]]:
    """Show a bar per stage on stderr; on a terminal it moves, in a log file each stage is one line."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bars: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:>12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, disable=is_quiet() or not console.is_terminal) as bar:
        if title and console.is_terminal and not is_quiet():
            console.print(title)

        def on_event(event: Event) -> None:
            if event.kind == "finished":
                return
            if event.stage not in bars:
                bars[event.stage] = bar.add_task(event.stage, total=event.total)
            bar.update(bars[event.stage], completed=event.done, total=event.total)
            if event.kind == "end" and not console.is_terminal:
                say(f"{event.stage}: {event.done} of {event.total} tasks")

        yield on_event


def announcing_compilation(
    on_event: Callable[[Event], None], stage: str, package: str, seconds: int
) -> Callable[[Event], None]:
    """Return a callback that prints, before the first task of a stage, that its kernels have to be compiled, if so.

    Args:
        package, seconds: see workflow.compiling.
    """
    from sketchscale.workflow.compiling import compiling_line

    looked: list[bool] = []

    def forward(event: Event) -> None:
        if event.stage == stage and event.kind == "start" and event.done < event.total and not looked:
            looked.append(True)
            if line := compiling_line(package, seconds):
                say(line)
        on_event(event)

    return forward


def each(images: Sequence[str], work: Callable[[str], Any], report: Callable[[list[Any]], None]) -> None:
    """Do one thing for every image and report the results; one of several that fails does not stop the others.

    Raises:
        SomeFailedError: some or all of several images failed; after all were tried and the others reported.
        SketchscaleError: the only image failed.
        SetupError: store or cluster do not answer, or lack something; every other image would fail too.
    """
    from sketchscale.workflow.runner import keep_engines

    results: list[Any] = []
    failures: list[tuple[str, SketchscaleError]] = []
    try:
        with keep_engines():
            for image in images:
                try:
                    results.append(work(image))
                except SketchscaleError as error:
                    if len(images) == 1 or isinstance(error, SetupError):
                        raise
                    say(f"error: {image}: {error}", logging.ERROR)
                    failures.append((image, error))
    finally:
        if results:
            report(results)
    if failures:
        names = ", ".join(image for image, _ in failures)
        code = 3 if results else failures[-1][1].exit_code
        raise SomeFailedError(f"{len(failures)} of {len(images)} images failed: {names}", code)


def show_stages(stages: Sequence[Any], as_json: bool) -> None:
    """Print the stages of a dry run, as JSON or as an aligned table."""
    lines = [f"{'stage':<12}{'tasks':>8}{'MB/task':>10}{'MB in all':>11}"]
    lines += [f"{s.stage:<12}{s.tasks:>8}{s.task_mb:>10.1f}{s.peak_mb:>11.1f}" for s in stages]
    show([asdict(s) for s in stages], as_json, lambda: "\n".join(lines))
