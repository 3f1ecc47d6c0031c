"""A plate in a bucket, from pictures to counts, by the command line, on Ray and on Dask: the bytes of serial on a disk.

Reference: serial, one worker, local folders. Every other run works on `s3://`, on workers in other processes that join
a cluster by its address. Whatever is stored below `labels/` and `tables/` of a field is compared byte by byte.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sketchscale.cli import run
from sketchscale.io.ome_zarr.groups import write_attributes
from sketchscale.io.ome_zarr.table import read_table
from sketchscale.io.runs.ledger import reopen_ledger
from tests.cluster.results import results_of
from tests.engine.dask_processes import shared_cluster
from tests.object_store import ENVIRONMENT, ObjectServer
from tests.pipeline import draw_nuclei
from tests.workflow.finished import annotate

pytestmark = pytest.mark.slow

FIELDS = {"A/1/0": (150, 200), "B/2/0": (64, 130)}
MODEL = ("--model", "nuclei-fluo", "--tile", "128", "--overlap", "32", "--min-size", "5")


@pytest.fixture(scope="module")
def server(s3_server: ObjectServer) -> Iterator[ObjectServer]:
    """The S3 server; endpoint and credentials are in the environment of this module and of the clusters it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server.endpoint, "OMP_NUM_THREADS": "1"}.items():
            patch.setenv(name, value)
        yield s3_server


@pytest.fixture(scope="module")
def dask_address(server: ObjectServer) -> Iterator[str]:
    pytest.importorskip("distributed")
    with shared_cluster({}, {}) as address:
        yield address


@pytest.fixture(scope="module")
def ray_address(server: ObjectServer) -> Iterator[str]:
    """A Ray cluster of one node in processes of its own, which commands join."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        pytest.importorskip("ray")
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 4, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            yield cluster.address
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A picture for each field of a plate of two wells."""
    folder, files = tmp_path_factory.mktemp("pictures"), {}
    for seed, (field, shape) in enumerate(FIELDS.items()):
        files[field] = str(folder / f"{field.replace('/', '-')}.npy")
        np.save(files[field], draw_nuclei(shape, seed))
    return files


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A plate and how commands work on it."""

    plate: str
    engine: Sequence[str]
    block: int

    def command(self, *words: str) -> None:
        block = () if words[0] == "convert" else ("--block", str(self.block))
        assert run([*words, "--engine", *self.engine, *block]) == 0, words


def make_plate(job: Job, pictures: dict[str, str]) -> None:
    for number, (field, picture) in enumerate(pictures.items()):
        words = ["convert", picture, f"{job.plate}/{field}", "--chunk", "64", "--shard", "128", "--engine"]
        assert run([*words, *(job.engine if number == 0 else ("serial",))]) == 0  # each command joins its cluster anew
    for well in ("A/1", "B/2"):
        images = [{"path": field[-1]} for field in FIELDS if field.startswith(well)]
        write_attributes(job.plate, well, {"ome": {"version": "0.5", "well": {"images": images}}}, "0.5")
    described = {
        "rows": [{"name": "A"}, {"name": "B"}],
        "columns": [{"name": "1"}, {"name": "2"}],
        "wells": [
            {"path": "A/1", "rowIndex": 0, "columnIndex": 0},
            {"path": "B/2", "rowIndex": 1, "columnIndex": 1},
        ],
    }
    write_attributes(job.plate, "", {"ome": {"version": "0.5", "plate": described}}, "0.5")


def outline_plate(job: Job, classifier: str) -> None:
    job.command("segment", job.plate, *MODEL)
    job.command("measure", job.plate)
    job.command("classify", "apply", job.plate, "--classifier", classifier)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What serial made on a disk, and the classifier that was trained on it."""

    classifier: str
    fields: dict[str, dict[str, bytes]]
    counts: Any


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, pictures: dict[str, str]) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    job = Job(plate=str(folder / "plate.zarr"), engine=("serial",), block=4096)
    make_plate(job, pictures)
    classifier = train_on_another(job, folder, pictures["A/1/0"])
    outline_plate(job, classifier)
    return Reference(classifier=classifier, fields=fields_of(job.plate), counts=counts_of(job.plate, folder))


def train_on_another(job: Job, folder: Path, picture: str) -> str:
    """A classifier from an image outside the plate: objects that were annotated themselves keep what a person said."""
    image, classifier = str(folder / "taught.zarr"), str(folder / "classes")
    job.command("convert", picture, image, "--chunk", "64")
    job.command("segment", image, *MODEL)
    job.command("measure", image)
    learn = ["--annotations", annotate(image, folder / "marks.csv"), "--kind", "random-forest", "--out", classifier]
    assert run(["classify", "train", image, *learn]) == 0
    return classifier


def fields_of(plate: str) -> dict[str, dict[str, bytes]]:
    return {field: results_of(f"{plate}/{field}") for field in FIELDS}


def counts_of(plate: str, folder: Path) -> Any:
    """Rows of `count` by well and class, as its JSON file says, without the plate's address."""
    out = folder / "counts.csv"
    assert run(["count", plate, "--by", "well", "--by", "class", "--csv", str(out), "--overwrite"]) == 0
    return out.read_text().replace(plate, "(plate)")


@pytest.fixture
def join(request: pytest.FixtureRequest) -> Callable[[str], Sequence[str]]:
    """How commands reach an engine; clusters are started when the first test asks for one."""

    def words(engine: str) -> Sequence[str]:
        if engine == "processes":
            return ("processes",)
        return (engine, "--address", request.getfixturevalue(f"{engine}_address"))

    return words


CASES = [
    pytest.param("ray", 2, 128),
    pytest.param("dask", 2, 64),
    *(
        pytest.param(engine, workers, block, marks=pytest.mark.nightly)
        for engine in ("processes", "dask", "ray")
        for workers, block in ((1, 128), (2, 512), (4, 192))
    ),
]


@pytest.mark.parametrize(("engine", "workers", "block"), CASES)
def test_a_plate_in_a_bucket_has_the_bytes_of_serial_on_a_disk(
    engine: str,
    workers: int,
    block: int,
    server: ObjectServer,
    reference: Reference,
    pictures: dict[str, str],
    join: Callable[[str], Sequence[str]],
    tmp_path: Path,
) -> None:
    plate = f"s3://{server.make_bucket()}/screen/plate.zarr"
    job = Job(plate=plate, engine=(*join(engine), "--workers", str(workers)), block=block)
    make_plate(job, pictures)
    outline_plate(job, reference.classifier)
    found = fields_of(plate)
    for field in FIELDS:
        assert {k for k in found[field] if found[field][k] != reference.fields[field].get(k)} == set(), field
        assert found[field].keys() == reference.fields[field].keys()
        assert len(read_table(f"{plate}/{field}", "nuclei")) > 5
        assert reopen_ledger(f"{plate}/{field}", "segment-nuclei").committed("result")
    assert counts_of(plate, tmp_path) == reference.counts
    assert run(["verify", plate]) == 0


def test_a_pattern_stands_for_the_plates_of_a_bucket(
    server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = f"s3://{server.make_bucket()}"
    np.save(tmp_path / "a.npy", draw_nuclei((40, 50)))
    for name in ("2026/a1.zarr", "2026/a2.zarr", "2025/a3.zarr"):
        assert run(["convert", str(tmp_path / "a.npy"), f"{bucket}/{name}", "--engine", "serial"]) == 0
    capsys.readouterr()
    for pattern, names in (("20*/a[12].zarr", ["a1", "a2"]), ("*/*.zarr", ["a3", "a1", "a2"])):
        assert run(["status", f"{bucket}/{pattern}", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [row["image"].rpartition("/")[2][:2] for row in rows] == names
    assert run(["status", f"{bucket}/*.tif"]) == 2
    assert "matches nothing" in capsys.readouterr().err


def test_files_that_a_user_names_go_to_the_bucket_or_are_refused(
    server: ObjectServer, reference: Reference, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    bucket, first = f"s3://{server.make_bucket()}", str(Path(reference.classifier).parent / "plate.zarr/A/1/0")
    for words in (["count", first, "--csv"], ["table", "export", first, "--out"]):
        out = f"{bucket}/run/{words[0]}.csv"
        assert run([*words, out]) == 0
        capsys.readouterr()
        assert run([*words, out]) == 2  # it is there
        assert "--overwrite" in capsys.readouterr().err
    assert run(["labels", "export", first, "--out", f"{bucket}/labels.tif"]) == 2
    assert "expected: a path on this machine; to fix: write it here" in capsys.readouterr().err
    assert run(["convert", f"{bucket}/a.tif", str(tmp_path / "a.zarr")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
