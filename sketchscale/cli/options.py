"""Options that many commands share, declared once, and what turns them into an `Execution`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from sketchscale.errors import InputError, SetupError, SketchscaleError, UnknownNameError

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
Workers = Annotated[int | None, typer.Option("--workers", help="Tasks at once; all cores when not given.", min=1)]
Block = Annotated[int, typer.Option("--block", help="Side of a block, pixels; no effect on results.", min=1)]
Memory = Annotated[float | None, typer.Option("--memory", help="Refuse a plan that needs more, GB.", min=0.001)]
Channels = Annotated[
    list[str] | None, typer.Option("--channel", help="Channel to read, name or index; once per channel, in order.")
]
Components = Annotated[
    str,
    typer.Option(
        "--components",
        help="auto: where a mask has exactly one value above 0, each connected piece is an object; always: each "
        "piece of every id; never.",
    ),
]
SketchKind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="Of the sketch: strokes, geojson, points, boxes, sketchpose, objects or labels. Recognised by contents if "
        "not given; a painted image counts as objects: where it is 0, nothing is known. labels: every object is "
        "painted, and 0 is background.",
    ),
]
SketchClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--class",
        help="What a class of GeoJSON means, or a value of a painted image: Tumor=foreground, none=foreground (without "
        "a class), 255=background; repeatable.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or mps.")]
Precision = Annotated[
    str, typer.Option("--precision", help="auto (the faster one, measured), float32, bfloat16 or float16.")
]
NetworkPrecision = Annotated[
    str, typer.Option("--precision", help="auto (the faster one, measured), float32 or bfloat16.")
]
TrainEngine = Annotated[
    str,
    typer.Option(
        "--engine",
        help="local: this process, or those of torchrun; ray: --workers processes.",
        rich_help_panel="Running",
    ),
]


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


EXECUTION: dict[str, tuple[Any, Any]] = {
    "engine": (
        Annotated[
            str,
            typer.Option("--engine", help="serial, threads, processes, dask or ray."),
        ],
        "threads",
    ),
    "workers": (Workers, None),
    "address": (
        Annotated[
            str | None,
            typer.Option("--address", help="Of a Dask scheduler or a Ray cluster; else one is started here."),
        ],
        None,
    ),
    "gpus_per_worker": (
        Annotated[
            float | None,
            typer.Option("--gpus-per-worker", help="Of each worker that runs a network; 0.25 puts four on one.", min=0),
        ],
        None,
    ),
    "block": (Block, 2048),
    "memory_gb": (Memory, None),
    "scratch": (
        Annotated[
            str | None,
            typer.Option("--scratch", help="Folder or address for arrays between stages, that all workers see."),
        ],
        None,
    ),
    "attempts": (Annotated[int, typer.Option("--attempts", help="Of a task that fails by accident.", min=1)], 3),
    "deadline_s": (
        Annotated[float | None, typer.Option("--deadline", help="Of one attempt of a task, s.", min=0.1)],
        None,
    ),
    "wait_s": (
        Annotated[float, typer.Option("--wait", help="For a store or cluster that does not answer, s.", min=1)],
        60.0,
    ),
    "endpoint": (
        Annotated[
            str | None,
            typer.Option("--endpoint", help="Of S3-compatible storage: http(s)://host:port."),
        ],
        None,
    ),
    "resume": (Resume, False),
    "overwrite": (Overwrite, False),
}
"""Field of `Execution`: its option and default; the same for every command that has it."""

NOT_TO_TRAIN = ("engine", "block", "memory_gb", "scratch", "deadline_s")
"""What a training is not told: it is no plan of tasks, and has an `--engine` of its own."""


def where_to_train(command: str, engine: str, execution: Execution) -> Execution:
    """Refuses what only a cluster can be asked for.

    Args:
        command: of `sketchscale`, for the way out.
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


def runs_plans(*, without: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of EXECUTION in place of its parameter `execution`, which receives the record.

    Args:
        without: fields that mean nothing to this command.
    """
    table = {name: option for name, option in EXECUTION.items() if name not in without}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(options: dict[str, Any], given: dict[str, Any]) -> None:
            from sketchscale.config import Execution

            command(execution=Execution(**options), **given)

        return _with_options(command, table, run)

    return decorate


def reads_stores(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that only reads what others wrote `--wait` and `--endpoint`."""
    table = {name: EXECUTION[name] for name in ("wait_s", "endpoint")}
    return _with_options(command, table, lambda _, given: command(**given))


def _with_options(
    command: Callable[..., None],
    table: Mapping[str, tuple[Any, Any]],
    call: Callable[[dict[str, Any], dict[str, Any]], None],
) -> Callable[..., None]:
    """`call` with the values of the options of `table` and those of the command's own, its stores set up."""
    hints = get_type_hints(command, localns={"Execution": object}, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "execution"
    ]
    new = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint, default=default)
        for name, (hint, default) in table.items()
    ]

    def run(**given: Any) -> None:
        from sketchscale.io.storage_settings import chosen_settings, using

        options = {name: given.pop(name) for name in table}
        with using(chosen_settings(options["wait_s"], options["endpoint"])):
            call(options, given)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    # a signature of its own, because the parser reads options from it
    setattr(run, "__signature__", inspect.Signature([*own, *new]))  # noqa: B010
    run.__annotations__ = {p.name: p.annotation for p in [*own, *new]}
    return run


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
    """Progress that says, before the first task of a stage, that its kernels are compiled: only where none is yet.

    Args:
        package, seconds: see workflow.compiling.
    """
    from sketchscale.workflow.compiling import compiling_line

    looked: list[bool] = []

    def heard(event: Event) -> None:
        if event.stage == stage and event.kind == "start" and event.done < event.total and not looked:
            looked.append(True)
            if line := compiling_line(package, seconds):
                say(line)
        on_event(event)

    return heard


def each(images: Sequence[str], work: Callable[[str], Any], report: Callable[[list[Any]], None]) -> None:
    """Do one thing for every image and report what came out; one of several that fails does not stop the others.

    Raises:
        SomeFailedError: some or all of several images failed; after all were tried and the others reported.
        SketchscaleError: the only image failed.
        SetupError: store or cluster do not answer, or lack something: so it would be with every other image.
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
                    say(f"error: {image}: {error}")
                    failures.append((image, error))
    finally:
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
