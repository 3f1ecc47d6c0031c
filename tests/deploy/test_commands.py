"""Options rot: every command line in deploy/ is read by the parser of the program that it starts."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest
import typer

from sketchscale.cli import UsageError, app
from tests.deploy.artefacts import ARTEFACTS, DEPLOY, command_lines


def parse(command: Any, arguments: list[str]) -> None:
    """Read arguments as the program would, without running anything."""
    context = command.make_context(command.name, list(arguments))
    rest = [*context._protected_args, *context.args]
    if hasattr(command, "commands"):
        name, below, rest = command.resolve_command(context, rest)
        inner = below.make_context(name, rest, parent=context)
        while hasattr(below, "commands"):
            name, below, rest = below.resolve_command(inner, [*inner._protected_args, *inner.args])
            inner = below.make_context(name, rest, parent=inner)


OURS = command_lines("sketchscale")


@pytest.mark.parametrize(("file", "arguments"), OURS, ids=[file for file, _ in OURS])
def test_every_sketchscale_command_is_one(file: str, arguments: list[str]) -> None:
    if arguments[-1] in ("--help", "--version"):
        arguments = arguments[:-1]
    if arguments:
        parse(typer.main.get_command(app), arguments)


def test_every_file_that_must_call_sketchscale_does() -> None:
    callers = {file for file, _ in OURS}
    expected = {str(p.relative_to(DEPLOY)) for p in ARTEFACTS if p.name not in ("Dockerfile", "namespace.yaml")}
    assert expected <= callers


@pytest.mark.parametrize("wrong", ["--adress", "--worker", "--gpu-per-worker"])
def test_a_misspelt_option_is_seen(wrong: str) -> None:
    with pytest.raises(UsageError):
        parse(typer.main.get_command(app), ["segment", "image.zarr", wrong, "1"])


@pytest.mark.parametrize("file", ["aws/ray-cluster.yaml", "kubernetes/ray-job.yaml", "slurm/dask.sbatch"])
def test_a_cluster_goes_on_with_what_is_finished(file: str) -> None:
    (command,) = [arguments for name, arguments in OURS if name == file and "--engine" in arguments]
    assert "--resume" in command
    assert command[command.index("--engine") + 1] == ("dask" if "dask" in file else "ray")


RAY = command_lines("ray")


@pytest.mark.parametrize(("file", "arguments"), RAY, ids=[f"{file}-{a[0]}" for file, a in RAY])
def test_every_ray_command_is_one(file: str, arguments: list[str]) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="ray is absent: pip install 'sketchscale[ray]'")
    arguments = [a for a in arguments if not a.startswith("sketchscale ")]
    parse(scripts.cli, [*arguments, "nothing"] if arguments[0] == "exec" else arguments)


DASK = command_lines("dask")


@pytest.mark.parametrize(("file", "arguments"), DASK, ids=[f"{file}-{a[0]}" for file, a in DASK])
def test_every_dask_command_is_one(file: str, arguments: list[str]) -> None:
    pytest.importorskip("distributed", reason="distributed is absent: pip install 'sketchscale[dask]'")
    name, *rest = arguments
    module = importlib.import_module(f"distributed.cli.dask_{name}")
    parse(module.main, rest)


def test_clusters_are_started_by_commands_that_were_read() -> None:
    assert {(file, a[0]) for file, a in DASK} >= {
        ("slurm/dask.sbatch", "scheduler"),
        ("slurm/dask.sbatch", "worker"),
        ("kubernetes/dask-job.yaml", "scheduler"),
        ("kubernetes/dask-job.yaml", "worker"),
    }
    starts = [file for file, a in RAY if a[0] == "start"]
    assert (starts.count("slurm/ray.sbatch"), starts.count("aws/ray-cluster.yaml")) == (2, 2)


@pytest.mark.parametrize("file", ["kubernetes/dask-job.yaml", "slurm/dask.sbatch"])
def test_dask_workers_declare_the_share_of_a_gpu_that_is_asked_for(file: str) -> None:
    (worker,) = [a for name, a in DASK if name == file and a[0] == "worker"]
    share = worker[worker.index("--resources") + 1].removeprefix("GPU=")
    asked = re.findall(r"--gpus-per-worker,? \"?([\d.]+)", (DEPLOY / file).read_text())
    assert asked == [share]
    assert float(share) * int(worker[worker.index("--nworkers") + 1]) == 1
    assert worker[worker.index("--nthreads") + 1] == "1"
