"""No backward pass of ours writes beyond its memory: tests/heap_check.py under glibc's checking allocator."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
ALLOCATOR = "libc_malloc_debug.so.0"


def checked(code: list[str]) -> subprocess.CompletedProcess[str]:
    """Python under the checking allocator, with the kernels of a processor that has AVX2 and no more."""
    try:
        ctypes.CDLL(ALLOCATOR)
    except OSError:
        pytest.skip(f"{ALLOCATOR} is absent: it comes with glibc 2.34 and later (Debian and Ubuntu: package libc6)")
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **limits, "LD_PRELOAD": ALLOCATOR, "MALLOC_CHECK_": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "faulthandler", *code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=900, check=False)


def test_a_training_step_of_every_network_loss_and_classifier_leaves_the_heap_whole() -> None:
    result = checked(["-m", "tests.heap_check"])
    assert result.returncode == 0, f"after {result.stdout.splitlines()[-1:]}: {result.stderr[:2000]}"
    assert result.stdout.endswith("done\n")


def test_the_allocator_sees_a_byte_written_beyond_a_buffer() -> None:
    """The control: without it the test above would pass on a machine whose allocator checks nothing."""
    write = "import ctypes, torch; x = torch.empty(1000); ctypes.memset(x.data_ptr() + {}, 255, 8); del x"
    assert checked(["-c", write.format(4000)]).returncode != 0
    assert checked(["-c", write.format(3992)]).returncode == 0
