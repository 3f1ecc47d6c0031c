"""`synthesize train` as the workers of a cluster run it: what travels there, what is refused, what interrupts it.

`work_of` is all that a worker is given, called in this process; test_synthesize_ray has the cluster itself.
"""

from __future__ import annotations

import operator
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from sketchscale.annotations.centres import read_centres
from sketchscale.annotations.events import ClassPoint, append_events
from sketchscale.annotations.geojson import write_geojson
from sketchscale.annotations.opening import sketch_files
from sketchscale.cli import run
from sketchscale.config import Execution, TrainOptions
from sketchscale.errors import MissingDataError, OutputExistsError, SetupError
from sketchscale.synthesis.model import Synthesis, load_synthesis
from sketchscale.workflow.synthesize import train as synthesize
from sketchscale.workflow.synthesize.train import SynthesisOptions, SynthesisResult, synthesize_train
from sketchscale.workflow.train import train
from sketchscale.workflow.train.on_ray import TrainCallbacks, train_in_worker
from sketchscale.workflow.train.output_folder import check_output, showing_token
from tests.workflow.synthesize.test_train import SERIAL, image_and_points, small

HERE = b"a word of the driver"


def weights(synthesis: Synthesis) -> dict[str, torch.Tensor]:
    nets = {"g": synthesis.generator, "f": synthesis.masker}
    return {f"{name}.{key}": value for name, net in nets.items() for key, value in net.state_dict().items()}


def work_of(options: SynthesisOptions) -> Callable[[Execution, TrainCallbacks, Path], SynthesisResult]:
    """As it arrives in a worker, through the wire."""
    shipping, found = synthesize._WORKER_OPTIONS, synthesize._train_here
    work = partial(train_in_worker, found, options, shipping, shipping.pack(options))
    return pickle.loads(pickle.dumps(work))


def as_geojson(csv: str, folder: Path) -> str:
    points = [{"type": "Point", "coordinates": [x, y]} for y, x in read_centres(csv, (140, 150)).tolist()]
    features = [{"type": "Feature", "properties": {}, "geometry": point} for point in points]
    write_geojson(folder / "points.geojson.gz", {"type": "FeatureCollection", "features": features})
    return str(folder / "points.geojson.gz")


def as_sketch(csv: str, folder: Path) -> str:
    points = read_centres(csv, (140, 150)).tolist()
    clicks = [ClassPoint(point=(y, x), name="cell", id=str(n)) for n, (y, x) in enumerate(points)]
    append_events(folder / "points.jsonl", clicks)
    return str(folder / "points.jsonl")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return image_and_points(tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, pair: tuple[str, str]) -> Synthesis:
    """Of a training in this process that nothing happened to."""
    return load_synthesis(synthesize_train(small(tmp_path_factory.mktemp("here"), pair), SERIAL).synthesis)


def check_same(found: Synthesis, expected: Synthesis) -> None:
    assert weights(found).keys() == weights(expected).keys()
    assert all(torch.equal(value, weights(expected)[name]) for name, value in weights(found).items())
    assert found.provenance["options"] == expected.provenance["options"]


@pytest.mark.parametrize("kind", [shutil.copy, as_geojson, as_sketch], ids=["csv", "geojson", "sketch"])
def test_points_travel_and_teach_the_same_synthesis(
    tmp_path: Path, pair: tuple[str, str], expected: Synthesis, kind: Callable[[str, Path], str]
) -> None:
    path = str(kind(pair[1], tmp_path))
    options = small(tmp_path, (pair[0], path))
    work = work_of(options)
    Path(path).unlink()  # the worker's machine has none
    (tmp_path / "folder").mkdir()
    said: list[str] = []
    with showing_token(options.out, HERE):
        result = work(SERIAL, TrainCallbacks(say=said.append, token=HERE), tmp_path / "folder")
    check_same(load_synthesis(result.synthesis), expected)
    assert any(line.startswith("step 1 ") for line in said)
    assert {p.name for p in (tmp_path / "synthesis" / "run").iterdir()} == {
        "log.jsonl", "loss.png", "sheet_000002.png", "state.safetensors"
    }  # fmt: skip


def test_a_file_of_the_worker_stands_for_the_one_that_travelled_only_where_it_fits(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("same.csv", "longer.csv", "other.csv", "absent.csv")]
    for path in paths:
        Path(path).write_bytes(b"y,x\n1,2\n")
    options = SynthesisOptions(images=(), points=tuple(paths), out="out", diameter=8.0)
    files = synthesize._WORKER_OPTIONS.pack(options)
    Path(paths[1]).write_bytes(b"y,x\n1,2\n3,4\n")
    Path(paths[2]).write_bytes(b"y,x\n5,6\n")
    Path(paths[3]).unlink()
    for fits, own in ((operator.eq, paths[:1]), (bytes.startswith, paths[:2])):
        folder = tmp_path / fits.__name__
        folder.mkdir()
        shipping = replace(synthesize._WORKER_OPTIONS, fits=fits)
        here = dict(zip(paths, shipping.unpack(options, files, folder).points, strict=True))
        assert [path for path in paths if here[path] == path] == own
        travelled = [Path(here[path]) for path in paths if path not in own]
        assert [path.suffix for path in travelled] == [".csv"] * len(travelled)
        assert {path.read_bytes() for path in travelled} == {b"y,x\n1,2\n"}
        assert {path.parent.parent for path in travelled} == {folder}


def test_sketches_travel_with_the_files_that_are_read_with_them(tmp_path: Path) -> None:
    home, worker = tmp_path / "home", tmp_path / "worker"
    home.mkdir()
    for name in ("a_labels.png", "a_boundaries.png", "b.jsonl"):
        (home / name).write_bytes(name.encode())
    paths = (str(home / "a_labels.png"), str(home / "b.jsonl"))
    options = TrainOptions(sketches=paths[:1], validate_sketches=paths[1:])
    sketches = train._WORKER_OPTIONS.pack(options)
    for gone in ("", "a_boundaries.png", "b.jsonl"):
        (worker / gone).mkdir(parents=True)
        if gone:
            (home / gone).unlink()
        here = train._WORKER_OPTIONS.unpack(options, sketches, worker / gone)
        (painted,), (log,) = here.sketches, here.validate_sketches
        assert (painted == paths[0]) == (gone == "")
        assert (log == paths[1]) == (gone != "b.jsonl")
        assert [path.name for path in sketch_files(painted)] == ["a_labels.png", "a_boundaries.png"]
        assert Path(log).read_bytes() == b"b.jsonl"


def test_addresses_are_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = ("image.zarr", "s3://bucket/image.zarr")
    options = SynthesisOptions(images=images, points=("a.csv", "../b.csv"), out="out", diameter=12, seed=3)
    assert synthesize._WORKER_OPTIONS.absolute(options) == replace(
        options,
        images=(str(tmp_path / "image.zarr"), "s3://bucket/image.zarr"),
        points=(str(tmp_path / "a.csv"), str(tmp_path.parent / "b.csv")),
        out=str(tmp_path / "out"),
    )
    assert synthesize._WORKER_OPTIONS.absolute(replace(options, out="s3://bucket/out")).out == "s3://bucket/out"


def test_a_worker_that_sees_another_folder_is_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    options = small(tmp_path, pair)
    work = work_of(options)
    (tmp_path / "folder").mkdir()
    with (
        showing_token(options.out, b"of another driver"),
        pytest.raises(SetupError, match=r"does not see the folder .*synthesis of the machine .*; to fix: --out in"),
    ):
        work(SERIAL, TrainCallbacks(say=lambda line: None, token=HERE), tmp_path / "folder")
    with pytest.raises(SetupError, match="does not see the folder"):
        work(SERIAL, TrainCallbacks(say=lambda line: None, token=HERE), tmp_path / "folder")
    assert not (tmp_path / "synthesis" / "run" / "log.jsonl").exists()


def test_the_word_of_the_driver_does_not_count_as_output_and_goes(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with showing_token(out, HERE):
        check_output(out, SERIAL, HERE)
        assert (tmp_path / "out" / "run" / "driver").exists()
    assert not (tmp_path / "out" / "run" / "driver").exists()
    (tmp_path / "out" / "run" / "log.jsonl").parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / "run" / "log.jsonl").touch()
    with pytest.raises(OutputExistsError, match="is not empty"), showing_token(out, HERE):
        check_output(out, SERIAL, HERE)
    check_output(out, replace(SERIAL, resume=True))


def test_an_interrupt_of_the_driver_saves_the_state_and_resume_goes_on(
    tmp_path: Path, pair: tuple[str, str], expected: Synthesis
) -> None:
    options, said = small(tmp_path, pair), list[str]()
    (tmp_path / "folder").mkdir()
    callbacks = TrainCallbacks(say=said.append, interrupted=lambda: any(line.startswith("step 1 ") for line in said))
    with pytest.raises(KeyboardInterrupt):
        work_of(options)(SERIAL, callbacks, tmp_path / "folder")
    assert len((tmp_path / "synthesis" / "run" / "log.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "synthesis" / "synthesis.safetensors").exists()
    synthesize_train(options, replace(SERIAL, resume=True))
    check_same(load_synthesis(options.out), expected)


def test_points_that_are_not_there_are_one_line_before_a_cluster_is_asked(tmp_path: Path) -> None:
    image, points = image_and_points(tmp_path)
    Path(points).unlink()
    with pytest.raises(MissingDataError, match=r"points .*points0\.csv cannot be read: .*; expected: a \.csv, "):
        synthesize_train(small(tmp_path, (image, points)), Execution(engine="ray", workers=1))
    assert not (tmp_path / "synthesis").exists()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--engine", "ray", "--workers", "4"], 2, "--batch 4"),
        (["--engine", "ray", "--batch", "500", "--workers", "500"], 5, "500 workers"),
        (["--engine", "ray", "--address", "127.0.0.1:1", "--wait", "1"], 5, "127.0.0.1:1"),
        (["--engine", "ray", "--device", "cuda", "--gpus-per-worker", "0.5"], 2, "--gpus-per-worker 1"),
        (["--engine", "dask"], 2, "local, ray"),
        (["--workers", "2"], 2, "--no-python sketchscale synthesize train ..."),
    ],
)
def test_what_cannot_be_had_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, words: str
) -> None:
    pytest.importorskip("ray")
    image, points = image_and_points(tmp_path)
    command = ["synthesize", "train", image, "--points", points, "--diameter", "12", "--out", str(tmp_path / "out")]
    assert run([*command, "--batch", "3", "--crop", "64", *more]) == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert words in said[0]
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_refused_before_a_cluster_is_asked(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    options = small(tmp_path, image_and_points(tmp_path))
    (tmp_path / "synthesis").mkdir()
    (tmp_path / "synthesis" / "mine.txt").touch()
    with pytest.raises(OutputExistsError, match="is not empty"):
        synthesize_train(options, Execution(engine="ray", workers=1))
    assert [p.name for p in (tmp_path / "synthesis").iterdir()] == ["mine.txt"]
