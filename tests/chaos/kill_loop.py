"""Commands killed before each change of a file, resumed, and compared byte for byte with a run that was left alone.

A process that has everything imported (`python -m tests.chaos.kill_loop`) forks for every run, so that hundreds take
minutes. A forked run counts its changes of files below the image (opening one to write, rename, link, remove, making or
removing a folder) and dies in place of the one it was told to, as by SIGKILL: no handler runs, nothing is cleaned up.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_CHANGES = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """What is run, and where it is killed.

    Attributes:
        folder: of the test; each run works on its `image.zarr`, a copy of its `pristine.zarr` where there is one.
        commands: of the command line, in order; all of them are resumed.
        first, step: killed before the changes number first, first + step, ... until the commands finish.
        renames_only: other changes are not counted.
    """

    folder: str
    commands: list[list[str]]
    first: int = 1
    step: int = 1
    renames_only: bool = False


def run_loop(loop: Loop, timeout_s: float) -> dict[str, Any]:
    """Run a loop in a process of its own: `killed`, at which changes, and `wrong`, what was found after which."""
    script = [sys.executable, "-W", "ignore", "-m", "tests.chaos.kill_loop", json.dumps(asdict(loop))]
    done = subprocess.run(script, capture_output=True, text=True, check=False, timeout=timeout_s)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def tree(image: Path) -> dict[str, bytes]:
    """Every file but those that say which process ran."""
    files = (p for p in sorted(image.rglob("*")) if p.is_file() and p.parent.name != "owner")
    return {str(p.relative_to(image)): p.read_bytes() for p in files}


def _die_before(number: int, folder: str, renames_only: bool) -> None:
    left = [number]
    changes = {"os.rename", "os.link"} if renames_only else _CHANGES

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        change = event in changes or (
            event == "open" and not renames_only and isinstance(arguments[2], int) and bool(arguments[2] & _WRITES)
        )
        if change and folder in str(arguments[0]):
            left[0] -= 1
            if left[0] == 0:
                os._exit(137)

    sys.addaudithook(watch)


def _in_child(loop: Loop, number: int | None) -> int:
    """The exit code of the commands, 137 when killed."""
    from sketchscale.cli import run

    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(2, 1)
            if number is not None:
                _die_before(number, f"{loop.folder}/image.zarr", loop.renames_only)
            code = max(run([*command, "--resume"]) for command in loop.commands)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fresh(loop: Loop) -> Path:
    image, pristine = Path(loop.folder) / "image.zarr", Path(loop.folder) / "pristine.zarr"
    shutil.rmtree(image, ignore_errors=True)
    if pristine.exists():
        shutil.copytree(pristine, image, copy_function=shutil.copy2)
    return image


def _difference(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return [
        f"{name}: {_words(name, found, expected)}"
        for name in sorted({*found, *expected})
        if _words(name, found, expected)
    ]


def _words(name: str, found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    if name not in found:
        return "is missing"
    if name not in expected:
        return "is too much"
    return "" if found[name] == expected[name] else f"{found[name][:300]!r} for {expected[name][:300]!r}"


def _main() -> None:
    import sketchscale.workflow.classify.apply
    import sketchscale.workflow.convert
    import sketchscale.workflow.measure.measure
    import sketchscale.workflow.segment.segment  # noqa: F401  all that the commands import later

    loop = Loop(**json.loads(sys.argv[1]))
    image = _fresh(loop)
    if _in_child(loop, None):
        sys.exit("the commands do not run")
    expected = tree(image)
    number, killed, wrong = loop.first, [], []
    while True:
        image = _fresh(loop)
        code = _in_child(loop, number)
        if code != 137:
            break
        killed.append(number)
        code = _in_child(loop, None)
        if code or (difference := _difference(tree(image), expected)):
            wrong.append([number, code or difference])
            sys.stderr.write(f"{wrong[-1]}\n")
        number += loop.step
    if code:
        wrong.append([number, f"failed with {code} before it was killed"])
    sys.stdout.write(json.dumps({"killed": killed, "wrong": wrong}) + "\n")


if __name__ == "__main__":
    _main()
