"""What the files of deploy/ hold: YAML documents, pods, and the command lines that a person or a cluster runs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
YAML_FILES = [*MANIFESTS, *sorted((DEPLOY / "aws").glob("*.yaml"))]
SCRIPTS = sorted((DEPLOY / "slurm").glob("*.sbatch"))
ARTEFACTS = sorted(
    path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix not in (".txt", ".md", ".pyc", ".swp")
)
Document = dict[str, Any]

KEEPALIVE = {
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
    "RAY_health_check_period_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


def documents(path: Path) -> list[Document]:
    """The YAML documents of a file."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is absent: pip install pyyaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML has it
    return [document for document in yaml.load_all(path.read_text(), loader) if document]


def all_documents() -> list[Document]:
    """Those of every Kubernetes manifest."""
    return [document for path in MANIFESTS for document in documents(path)]


def of_kind(kind: str) -> list[Document]:
    """The Kubernetes objects of a kind."""
    return [document for document in all_documents() if document["kind"] == kind]


def ray_specs(document: Document) -> Document:
    """The cluster within a RayCluster or RayJob."""
    spec: Document = document["spec"]
    return spec["rayClusterSpec"] if document["kind"] == "RayJob" else spec


def pod_templates(document: Document) -> dict[str, Document]:
    """Name of each pod that a Ray or Dask object starts, and its template (`spec`, sometimes `metadata`)."""
    if document["kind"] in ("RayCluster", "RayJob"):
        spec = ray_specs(document)
        pods = {"head": spec["headGroupSpec"]["template"]}
        pods |= {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
        submitter = document["spec"].get("submitterPodTemplate")
        return pods | ({"submitter": submitter} if submitter else {})
    if document["kind"] == "DaskJob":
        cluster = document["spec"]["cluster"]["spec"]
        return {
            "driver": document["spec"]["job"],
            "scheduler": {"spec": cluster["scheduler"]["spec"]},
            "worker": {"spec": cluster["worker"]["spec"]},
        }
    return {}


def all_pods() -> list[tuple[str, Document]]:
    """Every pod of every manifest, with a name to show."""
    return [
        (f"{document['kind']}/{document['metadata']['name']}/{name}", template["spec"])
        for document in all_documents()
        for name, template in pod_templates(document).items()
    ]


def environment_of(container: Document) -> dict[str, str]:
    """The variables a container gets, by name and from config maps."""
    maps = {document["metadata"]["name"]: document["data"] for document in of_kind("ConfigMap")}
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        found |= maps[source["configMapRef"]["name"]]
    return found | {entry["name"]: entry.get("value", "") for entry in container.get("env", [])}


def command_lines(program: str) -> list[tuple[str, list[str]]]:
    """Every line of deploy/ that starts a program: the file, and the program's arguments.

    Placeholders of shells, Snakemake and Nextflow become a 4, which is a name and a number alike.
    """
    start = re.compile(rf"(?:^|[\s\"])(?<!-n )(?<!--engine ){re.escape(program)} (?=[a-z-])")
    found = []
    for path in [*(path for path in ARTEFACTS if path.name != "Dockerfile"), DEPLOY / "README.md"]:
        for line in _lines(path):
            match = start.search(line)
            if match and not _is_prose(line, match.end()):
                found.append((str(path.relative_to(DEPLOY)), _arguments(line[match.end() :])))
    return found


def _lines(path: Path) -> Iterator[str]:
    text = re.sub(r"\\+\n[ \t]*(?:#|//)?", " ", path.read_text())
    if path.suffix == ".md":
        yield from re.findall(r"`([^`\n]+)`", text)
        return
    comment = "//" if path.suffix == ".nf" else "#"
    for line in text.splitlines():
        bare = line.strip()
        if path not in YAML_FILES or bare.startswith(comment):
            yield bare.lstrip(f"{comment} ").removeprefix("$ ")
    if path in YAML_FILES:
        for document in documents(path):
            yield from _strings(document)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        if all(isinstance(item, str) for item in value):
            yield shlex.join(value)
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        if "command" in value:
            yield shlex.join([*value["command"], *value.get("args", [])])
        for key, item in value.items():
            if key not in ("command", "args"):
                yield from _strings(item)


def _is_prose(line: str, end: int) -> bool:
    """A sentence names a command in backquotes; a line that runs it starts with it, or with what runs it."""
    return "`" in line[:end] or line.endswith((".", ":", ";")) or bool(re.match(r"[A-Z][a-z]+ ", line))


def _arguments(line: str) -> list[str]:
    line = re.split(r"\s\d?[&>|]", line)[0].strip()
    if line.count('"') % 2:
        line = line.rsplit('"', 1)[0]
    line = line.replace('"${options[@]}"', "")
    line = re.sub(r"\$@|\$\{[^}]*\}|\$\([^)]*\)|\$\w+|\{[^}]*\}", "4", line)
    return shlex.split(line)


def alive(pid: int) -> bool:
    """Whether a process still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
