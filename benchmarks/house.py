r"""How large is the house, and does it keep its own rules?

Counts lines, functions, arguments, documentation and odd words of the package, by folder.

    python benchmarks/house.py                          the table
    python benchmarks/house.py --under sketchscale/io --list    every function and line behind the counts
"""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FILE, LONGEST_BODY, MOST_ARGUMENTS, SHORT_BODY = 400, 60, 7, 5
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Counts:
    """What one folder holds."""

    files: int = 0
    lines: int = 0
    bodies: list[int] = field(default_factory=list)
    arguments: list[int] = field(default_factory=list)
    public: int = 0
    documented: int = 0
    named_once: int = 0
    short_once: int = 0
    remarks: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--under", type=Path, default=ROOT / "sketchscale")
    parser.add_argument("--list", action="store_true", help="print what breaks a rule, line by line")
    arguments = parser.parse_args()
    folder = arguments.under.resolve()
    names = Counter(
        name for path in (ROOT / "sketchscale").rglob("*.py") for name in re.findall(r"\b_\w+", path.read_text("utf-8"))
    )
    groups: dict[str, Counts] = {}
    for path in sorted(folder.rglob("*.py")):
        inner = path.relative_to(folder).parts
        count(path, names, groups.setdefault(inner[0] if len(inner) > 1 else ".", Counts()))
    print("\n".join(table(groups)))
    if arguments.list:
        print("\n".join(remark for counts in groups.values() for remark in counts.remarks))


def count(path: Path, names: Counter[str], counts: Counts) -> None:
    """Add one file."""
    text = path.read_text("utf-8")
    place = path.relative_to(ROOT)
    counts.files += 1
    counts.lines += len(text.splitlines())
    if len(text.splitlines()) > LONGEST_FILE:
        counts.remarks.append(f"{place}: {len(text.splitlines())} lines")
    for function, owner in functions(ast.parse(text)):
        length, taken = body_lines(function), argument_count(function, owner)
        counts.bodies.append(length)
        counts.arguments.append(taken)
        line = f"{place}:{function.lineno} {function.name}"
        if length > LONGEST_BODY:
            counts.remarks.append(f"{line}: body of {length} lines")
        if taken > MOST_ARGUMENTS:
            counts.remarks.append(f"{line}: {taken} arguments")
        if not function.name.startswith("_") and not owner.startswith("_") and not is_property_setter(function):
            counts.public += 1
            counts.documented += ast.get_docstring(function) is not None
            if ast.get_docstring(function) is None:
                counts.remarks.append(f"{line}: no docstring")
        if function.name.startswith("_") and not function.name.endswith("__") and names[function.name] == 2:
            counts.named_once += 1
            counts.short_once += length <= SHORT_BODY
            counts.remarks.append(f"{line}: named once, {length} lines")


def functions(tree: ast.Module) -> Iterator[tuple[Function, str]]:
    """(function, class or function around it) at the top of a module and in its classes; not those inside functions."""
    for node in tree.body:
        if isinstance(node, Function):
            yield node, ""
        elif isinstance(node, ast.ClassDef):
            yield from ((inner, node.name) for inner in node.body if isinstance(inner, Function))


def body_lines(function: Function) -> int:
    """Lines of the body without the docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0  # type: ignore[operator]


def argument_count(function: Function, owner: str) -> int:
    """Arguments without self."""
    every = function.args
    return len(every.posonlyargs) + len(every.args) + len(every.kwonlyargs) - (owner != "")


def is_property_setter(function: Function) -> bool:
    return any(
        isinstance(mark, ast.Attribute) and mark.attr in ("setter", "overload") for mark in function.decorator_list
    )


def table(groups: dict[str, Counts]) -> Iterator[str]:
    """A row for each folder, and one for all."""
    yield "| folder | files | lines | body p50 / p90 / max | arguments p90 / max | documented | named once (short) |"
    yield "|---|---|---|---|---|---|---|"
    total = Counts()
    for counts in groups.values():
        for name in Counts.__dataclass_fields__:
            setattr(total, name, getattr(total, name) + getattr(counts, name))
    for name, counts in [*groups.items(), ("all", total)]:
        bodies, arguments = counts.bodies or [0], counts.arguments or [0]
        yield (
            f"| {name} | {counts.files} | {counts.lines} | {share(bodies, 0.5)} / {share(bodies, 0.9)} / {max(bodies)} "
            f"| {share(arguments, 0.9)} / {max(arguments)} | {counts.documented / max(counts.public, 1):.0%} "
            f"| {counts.named_once} ({counts.short_once}) |"
        )


def share(values: Sequence[int], part: float) -> int:
    """The value that this part of all does not exceed."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


if __name__ == "__main__":
    main()
