"""Is the integration of planes as fast in one checkout of this package as in another?

    python benchmarks/kernel_ratio.py OLD NEW [--side 2048] [--rounds 15] [--old-python P] [--new-python P]

Two processes, one for each checkout, integrate the same fields in turn (old, new, old, ...), one thread each, so that
whatever else the machine does hits both. Printed are the medians and the median of the ratios of neighbouring rounds;
exit code 1 where the labels differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

WORKER = """
import hashlib, sys, time
import numpy as np
from sketchscale.integration.config import IntegrationConfig
from sketchscale.integration.plan import integrate

side = int(sys.argv[1])
y, x = np.indices((side, side))
down, right = y % 32 - 15.5, x % 32 - 15.5
distance = 14 - np.sqrt(down**2 + right**2)
fields = np.stack([-down / 16, -right / 16, np.where(distance > 0, distance, -5)])
fields[:2] += np.random.default_rng(0).normal(size=(2, side, side)) * 0.3
fields = fields.astype(np.float16)
rule = IntegrationConfig(threshold=-2.0)
integrate(fields[:, :256, :256], rule)
for _ in sys.stdin:
    started = time.perf_counter()
    labels = integrate(fields, rule)
    print(time.perf_counter() - started, hashlib.sha256(labels.tobytes()).hexdigest(), flush=True)
"""


def start(checkout: str, python: str, side: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(checkout).resolve()), "OMP_NUM_THREADS": "1"}
    command = [python, "-c", WORKER, str(side)]
    return subprocess.Popen(
        command, env=environment, cwd=checkout, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def once(worker: subprocess.Popen[str]) -> tuple[float, str]:
    """Seconds of one integration, and the digest of its labels."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    seconds, digest = worker.stdout.readline().split()
    return float(seconds), digest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--old-python", default=sys.executable)
    parser.add_argument("--new-python", default=sys.executable)
    options = parser.parse_args()
    workers = [
        start(options.old, options.old_python, options.side),
        start(options.new, options.new_python, options.side),
    ]
    try:
        pairs = [(once(workers[0]), once(workers[1])) for _ in range(options.rounds)]
    finally:
        for worker in workers:
            worker.kill()
    same = len({digest for pair in pairs for _, digest in pair}) == 1
    old, new = (median(pair[i][0] for pair in pairs) for i in (0, 1))
    ratio = median(b[0] / a[0] for a, b in pairs)
    print(f"{options.side} x {options.side} px, {options.rounds} rounds: old {old:.3f} s, new {new:.3f} s")
    print(f"ratio new / old {ratio:.3f}; labels {'the same' if same else 'DIFFER'}")
    return 0 if same else 1


if __name__ == "__main__":
    raise SystemExit(main())
