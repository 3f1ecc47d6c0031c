"""Training by the command line on several processes, started by Ray Train or torchrun, killed or not: one model.

The commands run in processes of their own, each with a cluster of its own on loopback, and within a deadline.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from sketchscale.networks.checkpoint import load_model
from tests.training.several_processes import ROOT, free_port
from tests.workflow.train.test_train import image_and_sketch

pytestmark = pytest.mark.slow

pytest.importorskip("ray")

DEADLINE_S = 240.0
STEPS = 12
RAY = ["-m", "sketchscale", "train", "--engine", "ray", "--workers", "2"]


def torchrun(restarts: int = 0) -> list[str]:
    meeting = ["--nproc-per-node", "2", "--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    run = ["-m", "torch.distributed.run", *meeting, "--max-restarts", str(restarts)]
    return [*run, "-m", "sketchscale", "train"]


def start(command: list[str], folder: Path, pair: tuple[str, str], *more: str) -> subprocess.Popen[str]:
    options = ["--width", "4", "--batch", "3", "--patch", "32", "--precision", "float32", "--threads", "1"]
    options += ["--preview-every", "0", "--save-every", "0"]
    what = [pair[0], "--sketch", pair[1], "--out", str(folder), "--steps", str(STEPS), *options, "--json", *more]
    return launch([*command, *what], folder.parent)


def launch(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    """This Python, on loopback, with one thread."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    return subprocess.Popen(
        [sys.executable, *arguments],
        env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def ended(process: subprocess.Popen[str], began: float) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, before the deadline."""
    try:
        out, said = process.communicate(timeout=began + DEADLINE_S - time.monotonic())
    finally:
        for child in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            child.kill()
        process.kill()
    return process.returncode, out, said


def wait_for_steps(process: subprocess.Popen[str], log: Path, count: int) -> None:
    """Until the log has so many lines."""
    began = time.monotonic()
    while not log.exists() or len(log.read_text().splitlines()) < count:
        assert process.poll() is None, process.communicate()
        if time.monotonic() - began > DEADLINE_S:
            ended(process, began)
        time.sleep(0.05)


def kill_a_worker(process: subprocess.Popen[str], log: Path, *, after: int) -> None:
    """SIGKILL one of the training processes once the log has so many lines."""
    wait_for_steps(process, log, after)
    below = psutil.Process(process.pid).children(recursive=True)
    ours = [p for p in below if p.name().startswith("ray::") or "sketchscale" in p.cmdline()]
    workers = [p for p in ours if "RayTrainWorker" in " ".join([p.name(), *p.cmdline()]) or "train" in p.cmdline()]
    assert len(workers) >= 2, [p.cmdline() for p in below]
    os.kill(workers[-1].pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return image_and_sketch(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, str]) -> dict[str, torch.Tensor]:
    """Weights of a training by torchrun that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed") / "model"
    code, _, said = ended(start(torchrun(), out, pair), time.monotonic())
    assert code == 0, said
    return load_model(str(out)).network.state_dict()


def check_same(out: Path, weights: dict[str, torch.Tensor]) -> None:
    model = load_model(str(out))
    assert model.provenance["processes"] == 2
    assert model.provenance["steps"] == STEPS
    found = model.network.state_dict()
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    log = (out / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("engine", ["ray", pytest.param("torchrun", marks=pytest.mark.nightly)])
def test_a_killed_worker_changes_nothing(
    tmp_path: Path, pair: tuple[str, str], undisturbed: dict[str, torch.Tensor], engine: str
) -> None:
    began, out = time.monotonic(), tmp_path / "model"
    process = start(RAY if engine == "ray" else torchrun(restarts=2), out, pair)
    kill_a_worker(process, out / "run" / "log.jsonl", after=3)
    code, answer, said = ended(process, began)
    assert code == 0, said
    assert json.loads(answer)["steps"] == STEPS
    assert engine == "torchrun" or "a worker died" in said
    check_same(out, undisturbed)
    assert {p.name for p in (out / "run").iterdir()} == {"log.jsonl", "state.safetensors"}


@pytest.mark.nightly
def test_workers_that_die_too_often_end_with_the_way_to_go_on(tmp_path: Path, pair: tuple[str, str]) -> None:
    began, out = time.monotonic(), tmp_path / "model"
    process = start(RAY, out, pair, "--attempts", "1")
    kill_a_worker(process, out / "run" / "log.jsonl", after=2)
    code, _, said = ended(process, began)
    assert code == 1
    assert "--resume" in said.splitlines()[-1]
    assert (out / "run" / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--workers", "4"], 2, "--batch 4"),
        (["--batch", "500", "--workers", "500"], 5, "500 workers"),
        (["--device", "cuda", "--workers", "1"], 5, "GPU"),
        (["--address", "127.0.0.1:1", "--wait", "1"], 5, "127.0.0.1:1"),
        (["--device", "cuda", "--gpus-per-worker", "0.5"], 2, "--gpus-per-worker 1"),
        (["--engine", "dask"], 2, "local, ray"),
        (["--engine", "local"], 2, "torchrun"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    tmp_path: Path, pair: tuple[str, str], capsys: pytest.CaptureFixture[str], more: list[str], code: int, words: str
) -> None:
    from sketchscale.cli import run

    if "cuda" in more and code == 5 and torch.cuda.is_available():
        pytest.skip("has a GPU")
    out = tmp_path / "model"
    given = ["train", pair[0], "--sketch", pair[1], "--out", str(out), "--engine", "ray", "--workers", "2"]
    assert run([*given, "--batch", "3", *more]) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not out.exists()


def test_an_error_in_the_workers_is_raised_as_it_was_there(tmp_path: Path, pair: tuple[str, str]) -> None:
    began, out = time.monotonic(), tmp_path / "model"
    code, _, said = ended(start(RAY, out, (str(tmp_path / "none.zarr"), pair[1])), began)
    assert code == 2
    assert "none.zarr" in said.splitlines()[-1]
