"""What the environment has and lacks, one line each, with the fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["examine"]

_OPTIONAL = {
    "distributed": "dask",
    "ray": "ray",
    "s3fs": "s3",
    "napari": "napari",
    "starlette": "web",
    "openvino": "fast",
}
"""Import name to the extra that installs it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the examination; only a required check that fails makes the environment unfit."""

    name: str
    ok: bool
    found: str
    fix: str = ""
    required: bool = False


def examine() -> list[dict[str, Any]]:
    """Python, packages, processor, memory, GPU, disk, codecs, shipped model and extras."""
    checks = [_python(), _torch(), _device(), _memory(), _disk(), _codecs(), _model(), *_extras()]
    return [asdict(check) for check in checks]


def _python() -> Check:
    return Check(name="python", ok=True, found=f"{platform.python_version()} on {platform.machine()}", required=True)


def _torch() -> Check:
    version = importlib.metadata.version("torch")
    ok = tuple(int(part) for part in version.split("+")[0].split(".")[:2]) >= (2, 10)
    fix = "" if ok else "pip install 'torch>=2.10'"
    return Check(name="torch", ok=ok, found=version, fix=fix, required=True)


def _device() -> Check:
    import torch  # heavy: only when asked

    if torch.cuda.is_available():
        return Check(name="gpu", ok=True, found=torch.cuda.get_device_name(0))
    if torch.backends.mps.is_available():
        return Check(name="gpu", ok=True, found="Apple GPU (mps)")
    return Check(name="gpu", ok=False, found="none; everything runs on the processor, slower")


def _memory() -> Check:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return Check(name="memory", ok=True, found="unknown on this system")
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    fix = "" if gigabytes >= 4 else "use --block 1024 and --workers 1"
    return Check(name="memory", ok=gigabytes >= 4, found=f"{gigabytes:.0f} GB, {os.cpu_count()} cores", fix=fix)


def _disk() -> Check:
    free = shutil.disk_usage(tempfile.gettempdir()).free / 1e9
    return Check(name="disk", ok=free > 5, found=f"{free:.0f} GB free in {tempfile.gettempdir()}", fix="")


def _codecs() -> Check:
    unsafe = "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE" in os.environ
    fix = "unset NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE" if unsafe else ""
    found = "may execute code from a hostile file" if unsafe else f"numcodecs {importlib.metadata.version('numcodecs')}"
    return Check(name="codecs", ok=not unsafe, found=found, fix=fix, required=True)


def _model() -> Check:
    from sketchscale.errors import SketchscaleError
    from sketchscale.networks.checkpoint import load_model

    try:
        model = load_model("nuclei-fluo")
    except SketchscaleError as error:
        return Check(name="model", ok=False, found=str(error), fix="install sketchscale again", required=True)
    return Check(name="model", ok=True, found=f"nuclei-fluo {model.sha256[:12]}", required=True)


def _extras() -> list[Check]:
    checks = []
    for module, extra in _OPTIONAL.items():
        here = importlib.util.find_spec(module) is not None
        found = importlib.metadata.version(module) if here else "not installed (optional)"
        fix = "" if here else f"pip install 'sketchscale[{extra}]'"
        checks.append(Check(name=module, ok=here, found=found, fix=fix))
    return checks
