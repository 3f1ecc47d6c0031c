"""Options that many commands share, declared once, and what turns them into an `Execution`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sketchscale.errors import SketchscaleError

if TYPE_CHECKING:
    from sketchscale.config import Execution
    from sketchscale.engine.base import Event

Images = Annotated[list[str], typer.Argument(help="OME-Zarr images or plates.", metavar="IMAGE...", show_default=False)]
Image = Annotated[str, typer.Argument(help="An OME-Zarr image.", metavar="IMAGE", show_default=False)]
Labels = Annotated[str, typer.Option("--labels", help="Name of the label image.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print stages, tasks and memory; change nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted run finished.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove what is there first.")]
Engine = Annotated[str, typer.Option("--engine", help="serial, threads or processes.")]
Workers = Annotated[int | None, typer.Option("--workers", help="Tasks at once; all cores when not given.", min=1)]
Block = Annotated[int, typer.Option("--block", help="Side of a block, pixels; no effect on results.", min=1)]
Memory = Annotated[float | None, typer.Option("--memory", help="Refuse a plan that needs more, GB.", min=0.001)]
Channels = Annotated[
    list[str] | None, typer.Option("--channel", help="Channel to read, name or index; once per channel, in order.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or mps.")]


class SomeFailedError(Exception):
    """Finished, but some images failed (exit code 3), or all did (that of the last)."""

    def __init__(self, message: str, exit_code: int = 3) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(text: str) -> None:
    """A line on stderr."""
    typer.echo(text, err=True)


def show(result: Any, as_json: bool, text: Callable[[], str]) -> None:
    """The result on stdout, as JSON or as text."""
    typer.echo(json.dumps(result, indent=2, default=str) if as_json else text())


def execution(
    engine: str = "threads",
    workers: int | None = None,
    block: int = 2048,
    memory: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Execution:
    from sketchscale.config import Execution

    return Execution(engine=engine, workers=workers, block=block, memory_gb=memory, resume=resume, overwrite=overwrite)


@contextmanager
def progress(title: str = "") -> Iterator[Callable[[Event], None]]:
    """A bar per stage on stderr; on a terminal it moves, in a log file each stage is one line."""
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
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        if title and console.is_terminal:
            console.print(title)

        def on_event(event: Event) -> None:
            if event.stage not in bars:
                bars[event.stage] = bar.add_task(event.stage, total=event.total)
            bar.update(bars[event.stage], completed=event.done, total=event.total)
            if event.kind == "end" and not console.is_terminal:
                say(f"{event.stage}: {event.done} of {event.total} tasks")

        yield on_event


def each(images: Sequence[str], work: Callable[[str], Any], report: Callable[[list[Any]], None]) -> None:
    """Do one thing for every image and report what came out; one of several that fails does not stop the others.

    Raises:
        SomeFailedError: some or all of several images failed; after all were tried and the others reported.
        SketchscaleError: the only image failed.
    """
    results: list[Any] = []
    failures: list[tuple[str, SketchscaleError]] = []
    for image in images:
        try:
            results.append(work(image))
        except SketchscaleError as error:
            if len(images) == 1:
                raise
            say(f"error: {image}: {error}")
            failures.append((image, error))
    if results:
        report(results)
    if failures:
        names = ", ".join(image for image, _ in failures)
        code = 3 if results else failures[-1][1].exit_code
        raise SomeFailedError(f"{len(failures)} of {len(images)} images failed: {names}", code)


def stage_table(stages: Sequence[Any]) -> str:
    """Stages of a dry run as aligned text."""
    lines = [f"{'stage':<12}{'tasks':>8}{'MB/task':>10}{'MB in all':>11}"]
    lines += [f"{s.stage:<12}{s.tasks:>8}{s.task_mb:>10.1f}{s.peak_mb:>11.1f}" for s in stages]
    return "\n".join(lines)
