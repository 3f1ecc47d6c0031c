"""A cluster over three network namespaces of one machine; the link of one worker is cut while a plan runs.

    head and driver ── bridge ── worker 1
                          └───── worker 2      this link goes down

Without gRPC's keepalive, results of the cut node are awaited for ever (Ray) or for minutes (defaults of both).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

pytest.importorskip("ray")

from tests.chaos.copying import in_series, written

pytestmark = pytest.mark.slow

DEADLINE_S = 120

_SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def can_make_namespaces() -> str:
    """ "" or why not."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("ip") is None:
        return "network namespaces need root and iproute2"
    name = f"sk{os.getpid()}try"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        ip("netns", "del", name)
    return made.stderr.strip()


class Net:
    """Namespaces 0 (head), 1 and 2 on a bridge, with addresses 10.201.0.1, .2 and .3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bridge = f"skb{os.getpid()}"
        self.names = [f"sk{os.getpid()}n{i}" for i in range(3)]

    def open(self) -> None:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("link", "set", self.bridge, "up")
        for i, name in enumerate(self.names):
            outer = f"skv{os.getpid()}{i}"
            ip("netns", "add", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outer, "master", self.bridge, "up")
            ip("-n", name, "addr", "add", f"10.201.0.{i + 1}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")

    def cut(self, i: int) -> None:
        ip("link", "set", f"skv{os.getpid()}{i}", "down")

    def start(self, i: int, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[i], *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **_SETTINGS},
        )

    def ray_start(self, i: int, *options: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        own = (f"--node-ip-address=10.201.0.{i + 1}", f"--object-store-memory={80 * 2**20}", "--disable-usage-stats")
        process = self.start(i, ray, "start", *own, *options)
        output = process.communicate(timeout=90)
        assert process.returncode == 0, output

    def close(self) -> None:
        for name in self.names:
            for pid in subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
            ).stdout.split():
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(int(pid)).kill()
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    if reason := can_make_namespaces():
        pytest.skip(f"no network namespaces here: {reason}")
    net = Net(tmp_path)
    try:
        net.open()
        yield net
    finally:
        net.close()


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["plain", "warm"])
def test_a_cut_link_ends_in_the_same_bytes_within_the_deadline(kind: str, net: Net, tmp_path: Path) -> None:
    count = 60
    expected = in_series(tmp_path / "series", count)
    temporary = f"--temp-dir=/tmp/skr{os.getpid()}{kind}"
    net.ray_start(0, "--head", "--port=6399", "--num-cpus=0", "--include-dashboard=false", temporary)
    for i in (1, 2):
        net.ray_start(i, "--address=10.201.0.1:6399", "--num-cpus=1")
    folder = tmp_path / "run"
    folder.mkdir()
    script = "tests.chaos.link_cut_run"
    run = net.start(0, sys.executable, "-m", script, str(folder), "10.201.0.1:6399", str(count), kind)
    try:
        while run.poll() is None and not (folder / "started").exists():
            time.sleep(0.05)
        cut = time.monotonic()
        net.cut(2)
        output, errors = run.communicate(timeout=DEADLINE_S)
        seconds = time.monotonic() - cut
    finally:
        run.kill()
        shutil.rmtree(temporary.partition("=")[2], ignore_errors=True)
    found = json.loads(output.splitlines()[-1]) if output else pytest.fail(errors)
    sys.stderr.write(f"{kind}: {count} tasks, link cut at 8, ended {seconds:.1f} s later; {found}\n")
    assert not found["error"]
    assert written(folder) == expected
