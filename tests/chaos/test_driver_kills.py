"""Drivers that are killed again and again, or told to stop: the same bytes, and work left that only gets less."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from sketchscale.workflow.verify import status
from tests.chaos.driver import records, start, wait_until
from tests.chaos.kill_loop import tree
from tests.pipeline import draw_nuclei, store_image

pytestmark = pytest.mark.slow

_PER_START_S = 60
"""What one start of a driver, with all it imports, may take on a busy machine of two cores."""


@pytest.fixture
def pristine(tmp_path: Path) -> Path:
    return Path(store_image(tmp_path / "pristine.zarr", draw_nuclei((200, 330))))


def copied(pristine: Path, name: str) -> Path:
    return Path(shutil.copytree(pristine, pristine.parent / name, copy_function=shutil.copy2))


def command(image: Path, model: str, engine: str) -> list[str]:
    options = ["--model", model, "--block", "64", "--engine", engine, "--precision", "float32", "--resume"]
    return ["segment", str(image), *options, *(["--workers", "2"] if engine != "serial" else [])]


def undisturbed(pristine: Path, model: str) -> Path:
    image = copied(pristine, "whole.zarr")
    process = start(*command(image, model, "serial"))
    _, said = process.communicate(timeout=2 * _PER_START_S)
    assert process.returncode == 0, said
    return image


def kill_and_finish(pristine: Path, model: str, engine: str, kills: int) -> None:
    whole = undisturbed(pristine, model)
    total, image, chance = records(whole), copied(pristine, "killed.zarr"), random.Random(kills)
    deadline = time.monotonic() + _PER_START_S * (kills + 2)
    left = [total]
    for _ in range(kills):
        process = start(*command(image, model, engine))
        wanted = records(image) + chance.randint(1, max(1, (total - records(image)) // (kills + 1)))
        assert wait_until(lambda wanted=wanted: records(image) >= wanted, process, deadline), process.communicate()[1]  # type: ignore[misc]
        process.kill()
        process.communicate()
        left.append(total - records(image))
    assert all(later < earlier for earlier, later in itertools.pairwise(left)), left
    (row,) = (row for row in status(str(image)) if row["run"] == "segment-nuclei")
    assert (row["state"], row["owner"]["epoch"]) == ("stopped", kills)
    process = start(*command(image, model, engine))
    _, said = process.communicate(timeout=max(1, deadline - time.monotonic()))
    assert process.returncode == 0, said
    assert tree(image / "labels") == tree(whole / "labels")
    assert not list(image.rglob("*.partial"))
    assert not list(image.rglob("scratch"))


def test_a_driver_killed_twice_loses_nothing(pristine: Path, model: str) -> None:
    kill_and_finish(pristine, model, "processes", 2)


@pytest.mark.nightly
@pytest.mark.parametrize("engine", ["serial", "processes", "dask", "ray"])
def test_a_driver_killed_twenty_times_loses_nothing(pristine: Path, model: str, engine: str) -> None:
    pytest.importorskip({"dask": "distributed", "ray": "ray"}.get(engine, "sketchscale"))
    kill_and_finish(pristine, model, engine, 20)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_driver_told_to_stop_lets_its_tasks_end_and_says_how_to_go_on(
    pristine: Path, model: str, number: int, code: int
) -> None:
    image, deadline = copied(pristine, "stopped.zarr"), time.monotonic() + 3 * _PER_START_S
    process = start(*command(image, model, "processes"))
    assert wait_until(lambda: records(image) > 3, process, deadline)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.send_signal(number)
    _, said = process.communicate(timeout=deadline - time.monotonic())
    assert (process.returncode, said.splitlines()[-1]) == (
        code,
        "interrupted; what finished is kept: run again with --resume",
    )
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlived their driver"
        time.sleep(0.1)
    assert not list(image.rglob("*.partial"))
    kept = records(image)
    (row,) = status(str(image))
    assert row["state"] == "stopped"
    process = start(*command(image, model, "processes"))
    _, said = process.communicate(timeout=deadline - time.monotonic())
    assert process.returncode == 0, said
    assert records(image) > kept


def test_workers_of_a_killed_driver_end_with_it(pristine: Path, model: str) -> None:
    image, deadline = copied(pristine, "orphans.zarr"), time.monotonic() + 2 * _PER_START_S
    process = start(*command(image, model, "processes"))
    assert wait_until(lambda: records(image) > 3, process, deadline)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Processes that another one started."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
