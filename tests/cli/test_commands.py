"""Every command as a user types it: exit code, data on stdout, progress on stderr, promised JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sketchscale.cli import app, run
from sketchscale.config import Execution, SegmentOptions
from sketchscale.engine.base import Event
from sketchscale.errors import QualityError
from sketchscale.geometry import Box
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import label_arrays
from sketchscale.workflow.segment.segment import segment
from tests.pipeline import draw_nuclei, store_image
from tests.workflow.finished import SHAPE, annotate, copy_of, files_of

SERIAL = ("--engine", "serial", "--block", "128")
THRESHOLDS = [f"{0.5 + 0.05 * i:.2f}".rstrip("0") for i in range(10)]


@pytest.fixture
def image(tmp_path: Path) -> str:
    return store_image(tmp_path / "image.zarr", draw_nuclei(SHAPE))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command; returns its code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


def test_the_whole_chain_from_a_file_to_a_report(tmp_path: Path, model: str, said: Any) -> None:
    np.save(tmp_path / "plate.npy", draw_nuclei(SHAPE))
    image = tmp_path / "plate.zarr"
    code, out, err = said("convert", tmp_path / "plate.npy", image, "--chunk", 64, "--spacing", 0.5, "--json")
    assert (code, json.loads(out)[0]["shape"]) == (0, [1, 130, 200]), err

    code, out, err = said("segment", image, "--model", model, "--max-size", 80, *SERIAL, "--json")
    (segmented,) = json.loads(out)
    assert (code, segmented["labels"]) == (0, "nuclei")
    assert "predict: 12 of 12 tasks" in err

    code, out, _ = said("measure", image, *SERIAL, "--json")
    assert (code, json.loads(out)[0]["n"]) == (0, segmented["n"])

    code, out, _ = said("count", image, "--json")
    assert code == 0
    assert json.loads(out) == [{"image": str(image), "labels": "nuclei", "class": None, "n": segmented["n"]}]

    classes = annotate(str(image), tmp_path / "classes.csv")
    code, out, _ = said("classify", "train", image, "--annotations", classes, "--out", tmp_path / "classifier")
    assert (code, "large, small from 8 objects" in out) == (0, True)
    code, out, _ = said("classify", "apply", image, "--classifier", tmp_path / "classifier", *SERIAL, "--json")
    assert (code, sum(json.loads(out)[0]["counts"].values())) == (0, segmented["n"])
    code, out, _ = said("count", image, "--json")
    assert {row["class"]: row["n"] for row in json.loads(out)}.keys() == {"large", "small"}

    truth = f"{image}/labels/nuclei"
    code, out, _ = said("evaluate", image, "--truth", truth, "--json")
    scores = json.loads(out)
    assert list(scores["ap"]) == list(scores["f1"]) == THRESHOLDS
    assert (code, scores["n_true"], scores["n_pred"]) == (0, segmented["n"], segmented["n"])
    assert scores["ap"]["0.5"] == 1

    code, out, _ = said("report", image, "--out", tmp_path / "report.html", "--truth", truth)
    assert (code, out.strip()) == (0, str(tmp_path / "report.html"))
    assert "seam" in (tmp_path / "report.html").read_text("utf-8").lower()

    code, out, _ = said("status", image, "--json")
    assert (code, {row["run"] for row in json.loads(out) if row["committed"]}) == (
        0,
        {"convert", "segment-nuclei", "measure-nuclei", "classify-nuclei"},
    )
    code, out, _ = said("verify", image, "--json")
    assert (code, all(check["ok"] for check in json.loads(out))) == (0, True)


def test_a_model_is_trained_from_a_sketch_and_used(tmp_path: Path, image: str, said: Any) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:30, 10:30], labels[40:60, 50:80] = 1, 2
    Image.fromarray(labels).save(tmp_path / "truth.png")
    sketch, model = tmp_path / "sketch.jsonl", tmp_path / "model"
    assert said("sketch", "simulate", tmp_path / "truth.png", "--out", sketch, "--objects", 2)[0] == 0
    code, out, _ = said("sketch", "show", sketch, "--image", image, "--json")
    assert (code, json.loads(out)["objects"] >= 2) == (0, True)
    assert said("sketch", "export", sketch, "--out", tmp_path / "s.geojson")[0] == 0
    code, out, err = said(
        "sketch", "import", tmp_path / "s.geojson", "--image", image, "--out", tmp_path / "again.jsonl"
    )
    assert code == 0, err
    command = ("train", image, "--sketch", sketch, "--out", model, "--steps", 2, "--width", 2)
    code, out, err = said(*command, "--json")
    trained = json.loads(out)
    assert (code, trained["steps"]) == (0, 2)
    assert "step 1" in err
    assert said(*command)[0] == 2
    code, out, err = said("plan", image, "--model", model, "--json")
    assert (code, json.loads(out)[0]["stage"]) == (0, "histogram"), err


def test_version_help_doctor_and_schema_answer(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = said("--version")
    assert (code, out.strip()) == (0, "0.1.0")
    for command in ("", *(c.name or c.callback.__name__ for c in app.registered_commands), "sketch", "classify"):
        code, out, _ = said(*([command] if command else []), "--help")
        assert (code, "Usage" in out) == (0, True), command
    code, out, _ = said("schema")
    assert (code, "study" in json.loads(out)["properties"]) == (0, True)
    code, out, _ = said("doctor", "--json")
    assert (code, {"name", "ok", "found", "fix", "required"} <= set(json.loads(out)[0])) == (0, True)


def test_help_does_not_load_torch() -> None:
    script = "import sys; from sketchscale.cli import run; run(['segment', '--help']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 0, result.stderr


def test_exit_1_a_failed_task_names_stage_and_task(
    image: str, model: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch raises when it finds no memory."""

    def exhausted(*args: object, **kwargs: object) -> None:
        raise RuntimeError("not enough memory: you tried to allocate 9 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv2d", exhausted)
        code, out, err = said("segment", image, "--model", model, "--max-size", 80, *SERIAL)
    assert (code, out) == (1, "")
    assert "error: stage 'predict', task " in err
    assert "--resume" in err
    assert said("segment", image, "--model", model, "--max-size", 80, *SERIAL, "--resume")[0] == 0


def test_exit_2_bad_usage(image: str, said: Any) -> None:
    for command in (
        ("segment", image, "--bogus"),
        ("segment",),
        ("nonsense",),
        ("segment", image, "--tile", 3),
        ("segment", image, "--precision", "int3"),
        ("segment", image, "--engine", "spark"),
        ("segment", image, "--resume", "--overwrite"),
    ):
        code, out, err = said(*command)
        assert (code, out) == (2, ""), command
        assert "rror" in err
        assert "Traceback" not in err


def test_exit_3_several_images_of_which_one_is_bad(tmp_path: Path, image: str, model: str, said: Any) -> None:
    flat = store_image(tmp_path / "flat.zarr", np.full((70, 70), 3, np.uint8))
    other = store_image(tmp_path / "other.zarr", draw_nuclei((70, 70)))
    code, out, err = said("segment", image, flat, other, "--model", model, *SERIAL, "--json")
    assert code == 3
    assert [row["image"] for row in json.loads(out)] == [image, other]
    assert f"error: {flat}: " in err
    assert "1 of 3 images failed" in err
    code, out, err = said("measure", image, flat, other, *SERIAL, "--json")
    assert (code, len(json.loads(out))) == (3, 2)
    code, out, err = said("count", image, flat, other, "--json")
    assert (code, [row["image"] for row in json.loads(out)]) == (3, [image, other])


def test_exit_2_when_all_of_several_images_are_bad(tmp_path: Path, model: str, said: Any) -> None:
    flats = [store_image(tmp_path / f"{i}.zarr", np.full((70, 70), 3, np.uint8)) for i in range(2)]
    code, out, err = said("segment", *flats, "--model", model, *SERIAL)
    assert (code, out) == (2, "")
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 2


def test_exit_4_damage_found_by_verify(done: Path, tmp_path: Path, said: Any) -> None:
    image = copy_of(done, tmp_path)
    (image / "tables" / "nuclei" / "table.parquet").write_bytes(b"")
    code, out, _ = said("verify", image)
    assert code == 4
    assert "BAD" in out
    assert "ok " in out


def test_exit_4_labels_that_the_seam_audit_refuses_are_never_seen(image: str, model: str, said: Any) -> None:
    """One stored block is emptied after it was written, before the audit looks at it."""

    def spoil(event: Event) -> None:
        if (event.stage, event.kind) == ("relabel", "end"):
            levels = label_arrays(open_image(image), "nuclei")
            write_box(levels[0], Box((0, 0), (130, 128)), np.zeros((130, 128), np.uint32))

    with pytest.raises(QualityError) as caught:
        segment(image, SegmentOptions(model=model), Execution(engine="serial", block=128), spoil)
    assert caught.value.exit_code == 4
    assert open_image(image).labels == ()
    code, out, _ = said("status", image, "--json")
    assert (code, json.loads(out)[0]["committed"]) == (0, False)


def test_exit_5_the_environment(image: str, model: str, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        code, _, err = said("segment", image, "--model", model, "--device", "cuda")
        assert (code, err.count("\n")) == (5, 1)
        assert err.startswith("error: device 'cuda'")
    monkeypatch.setenv("NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE", "1")
    code, out, _ = said("doctor")
    assert code == 5
    assert "unset NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE" in out


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal: a process that a shell put into the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_exit_130_interrupted_and_resumed(image: str, model: str, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(10**6))
    plain = torch.nn.functional.conv2d

    def interrupting(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == 30:
            signal.raise_signal(signal.SIGINT)
        return plain(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv2d", interrupting)
        code, out, err = said("segment", image, "--model", model, *SERIAL)
    assert (code, out) == (130, "")
    assert "--resume" in err
    assert said("segment", image, "--model", model, *SERIAL)[0] == 2
    code, out, _ = said("segment", image, "--model", model, *SERIAL, "--resume", "--json")
    assert (code, json.loads(out)[0]["n"] > 10) == (0, True)


def test_dry_runs_write_nothing(tmp_path: Path, image: str, model: str, said: Any) -> None:
    np.save(tmp_path / "a.npy", draw_nuclei((70, 70)))
    (tmp_path / "study.toml").write_text(f'[study]\nimages = ["image.zarr"]\n[segment]\nmodel = "{model}"\n')
    before = files_of(tmp_path)
    for command in (
        ("convert", tmp_path / "a.npy", tmp_path / "a.zarr", "--dry-run"),
        ("segment", image, "--model", model, "--dry-run"),
        ("plan", image, "--model", model),
        ("run", tmp_path / "study.toml", "--dry-run"),
    ):
        code, out, _ = said(*command)
        assert (code, out.split()[0]) == (0, "stage"), command
        code, out, _ = said(*command, "--json")
        assert {"stage", "tasks", "task_mb", "peak_mb"} <= set(json.loads(out)[0])
    assert files_of(tmp_path) == before


def test_a_study_with_one_bad_image_ends_with_3(tmp_path: Path, image: str, model: str, said: Any) -> None:
    store_image(tmp_path / "flat.zarr", np.full((70, 70), 3, np.uint8))
    (tmp_path / "study.toml").write_text('[study]\nimages = ["*.zarr"]\n[execution]\nengine = "serial"\n')
    settings = ("--set", f"segment.model={model}", "--set", "execution.block=128")
    code, out, err = said("run", tmp_path / "study.toml", *settings, "--json")
    assert code == 3, err
    assert json.loads(out)["failed"] == [str(tmp_path / "flat.zarr")]
    assert "1 of 2: " in err


def test_a_torn_sketch_is_repaired_on_the_way(tmp_path: Path, said: Any) -> None:
    line = b'{"event":"stroke","points":[[1,1],[1,5]],"radius_px":1,"label":"boundary"}\n'
    sketch = tmp_path / "s.jsonl"
    sketch.write_bytes(line + line[:20])
    assert said("sketch", "show", sketch)[0] == 2
    code, out, err = said("sketch", "show", sketch, "--repair", "--json")
    assert (code, json.loads(out)["events"]) == (0, {"stroke": 1})
    assert "torn" in err


def test_what_only_reads_finds_another_s3_server_by_its_endpoint_too(
    tmp_path: Path, image: str, model: str, s3: str, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ("--endpoint", os.environ["AWS_ENDPOINT_URL"], "--wait", 5)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    np.save(tmp_path / "plate.npy", draw_nuclei(SHAPE))
    stored = f"{s3}/plate.zarr"
    assert said("convert", tmp_path / "plate.npy", stored, *there)[0] == 0
    assert said("segment", stored, "--model", model, "--max-size", 80, *SERIAL, *there)[0] == 0
    assert said("measure", stored, *SERIAL, *there)[0] == 0

    code, out, err = said("status", stored, "--json", *there)
    assert (code, {row["state"] for row in json.loads(out)}) == (0, {"committed"}), err
    written = {
        "count": (),
        "report": ("--out", tmp_path / "report.html"),
        "labels export": ("--out", tmp_path / "labels.tif"),
        "table export": ("--out", tmp_path / "table.csv"),
        "classify propose": ("--n", 5, "--out", tmp_path / "propose.csv"),
    }
    for command, options in written.items():
        code, out, err = said(*command.split(), stored, *options, *there)
        assert code == 0, (command, err)

    code, out, err = said("status", stored, "--endpoint", "ftp://here")
    assert (code, out) == (2, "")
    assert "ftp://here" in err
    code, out, err = said("status", stored, "--wait", 1)
    assert (code, out) == (5, "")
    assert "attempts in 1 s" in err


def test_quiet_shows_warnings_and_errors_only_and_verbose_what_stages_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = store_image(tmp_path, draw_nuclei((64, 64)))
    for place in (("--verbose", "segment"), ("segment", "-v")):
        assert run([*place, image, "--min-size", "5", "--engine", "serial", "--overwrite"]) == 0
        assert re.search(r"^predict: 1 tasks, \d+\.\d s$", capsys.readouterr().err, re.MULTILINE)
    assert run(["segment", image, "--min-size", "5", "--engine", "serial", "--overwrite", "--quiet"]) == 0
    assert re.fullmatch(r"(warning: .*\n)?", capsys.readouterr().err)
    assert run(["measure", str(tmp_path / "absent.zarr"), "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_an_option_of_an_earlier_version_is_refused_with_its_successor(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["segment", "image.zarr", "--saddle", "0.5"]) == 2
    assert "replaced by --prominence" in capsys.readouterr().err
