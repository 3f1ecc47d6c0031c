"""Check the environment: one line for each thing that it has or lacks, with the fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["examine", "instruction_sets"]

_OPTIONAL = {"distributed": "dask", "ray": "ray", "boto3": "s3", "s3fs": "s3", "anndata": "anndata"}
"""Import name to the extra that installs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the result; the environment is unfit only where a required check fails."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    required: bool = False


def examine() -> list[dict[str, Any]]:
    """Check Python, packages, processor, precision, memory, GPU, disk, codecs, shipped model and extras."""
    python = f"{platform.python_version()} on {platform.machine()}"
    version = importlib.metadata.version("torch")
    recent = tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= (2, 10)
    fix = "" if recent else "pip install 'torch>=2.10'"
    checks = [
        Check(name="python", ok=True, found=python, required=True),
        Check(name="torch", ok=recent, found=version, fix=fix, required=True),
        _processor(),
        *_precisions(),
        *_machine(),
        *_installation(),
    ]
    return [asdict(check) for check in checks]


_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 bf16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX bf16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "Arm bf16",
}
"""Flag in /proc/cpuinfo to the name of an instruction set that makes networks faster."""

_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables that keep torch and oneDNN from using instructions that the processor has."""


def instruction_sets(cpuinfo: str) -> list[str]:
    """Return the instruction sets that matter here, from the text of /proc/cpuinfo, for its first processor.

    >>> instruction_sets("flags : fpu avx2 avx512f")
    ['AVX2', 'AVX-512']
    """
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    flags = next((words.split() for name, _, words in lines if name.strip().lower() in ("flags", "features")), [])
    return [name for flag, name in _INSTRUCTIONS.items() if flag in flags]


def _processor() -> Check:
    import torch  # heavy: only when asked

    path = Path("/proc/cpuinfo")
    sets = instruction_sets(path.read_text("utf-8", "replace")) if path.is_file() else []
    known = ", ".join(sets) if sets else "instruction sets unknown on this system"
    uses = torch.backends.cpu.get_cpu_capability()
    limits = [f"{name}={os.environ[name]}" for name in _LIMITS if os.environ.get(name)]
    limited = f", limited by {', '.join(limits)}" if limits else ""
    fix = f"unset {' '.join(limit.partition('=')[0] for limit in limits)}" if limits else ""
    return Check(name="processor", ok=not limits, found=f"{known}; torch uses {uses}{limited}", fix=fix)


def _precisions() -> Iterator[Check]:
    """Yield the choice of `--precision auto` for each device and use, with the measured rates."""
    import torch  # heavy: only when asked

    from sketchscale.networks.precision import Use, choose_precision

    uses: tuple[Use, ...] = ("inference", "training")
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for use in uses:
            chosen = choose_precision("auto", device, use)
            found, rates = f"auto is {chosen.name}", chosen.rates
            if rates is not None:
                found += f" (float32 {rates.float32:.3g} GFLOP/s, bfloat16 {rates.bfloat16:.3g} GFLOP/s)"
            yield Check(name=f"precision of {use} on {device}", ok=True, found=found)


def _machine() -> Iterator[Check]:
    """Yield GPU, memory and disk."""
    import torch  # heavy: only when asked

    if torch.cuda.is_available():
        yield Check(name="gpu", ok=True, found=torch.cuda.get_device_name(0))
    elif torch.backends.mps.is_available():
        yield Check(name="gpu", ok=True, found="Apple GPU (mps)")
    else:
        yield Check(name="gpu", ok=False, found="none; everything runs on the processor, slower")
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        yield Check(name="memory", ok=True, found="unknown on this system")
    else:
        gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
        fix = "" if gigabytes >= 4 else "use --block 1024 and --workers 1"
        yield Check(name="memory", ok=gigabytes >= 4, found=f"{gigabytes:.0f} GB, {os.cpu_count()} cores", fix=fix)
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    yield Check(name="disk", ok=free > 5, found=f"{free:.0f} GB free in {tempfile.gettempdir()}")


def _installation() -> Iterator[Check]:
    """Yield codecs, shipped model and optional packages."""
    from sketchscale.errors import SketchscaleError
    from sketchscale.networks.checkpoint import load_model

    unsafe = "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE" in os.environ
    fix = "unset NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE" if unsafe else ""
    found = "may execute code from a hostile file" if unsafe else f"numcodecs {importlib.metadata.version('numcodecs')}"
    yield Check(name="codecs", ok=not unsafe, found=found, fix=fix, required=True)
    try:
        model = load_model("nuclei-fluo")
        yield Check(name="model", ok=True, found=f"nuclei-fluo {model.sha256[:12]}", required=True)
    except SketchscaleError as error:
        yield Check(name="model", ok=False, found=str(error), fix="install sketchscale again", required=True)
    for module, extra in _OPTIONAL.items():
        here = importlib.util.find_spec(module) is not None
        found = importlib.metadata.version(module) if here else "not installed (optional)"
        fix = "" if here else f"pip install 'sketchscale[{extra}]'"
        yield Check(name=module, ok=here, found=found, fix=fix)
