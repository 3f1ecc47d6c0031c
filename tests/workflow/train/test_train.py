"""Training through the workflow: one image or several, held-out annotation, pictures, strokes added meanwhile."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sketchscale.annotations.events import Stroke, append_events
from sketchscale.annotations.simulate import simulate_strokes
from sketchscale.cli import run
from sketchscale.config import Execution, TrainOptions
from sketchscale.errors import InputError, TaskError
from sketchscale.networks.checkpoint import load_model
from sketchscale.training import learner
from sketchscale.training.sizes import LONG, QUICK
from sketchscale.workflow.runner import Runner
from sketchscale.workflow.train import callbacks as training_watch
from sketchscale.workflow.train import train as workflow
from sketchscale.workflow.train.calibrate import calibrate
from sketchscale.workflow.train.images import Reading, SketchedImages
from sketchscale.workflow.train.train import train
from sketchscale.workflow.train.warnings import FEW_STEPS
from tests.pipeline import draw_nuclei, store_image

SHAPE = (120, 150)
RESUME = Execution(engine="serial", resume=True)


def image_and_sketch(folder: Path, seed: int = 0, objects: int = 6) -> tuple[str, str]:
    """A drawn image, and strokes on its blobs."""
    pixels = draw_nuclei(SHAPE, seed)
    labels, _ = ndimage.label(ndimage.gaussian_filter(pixels.astype(float), 1) > 130)
    sketch = simulate_strokes(labels.astype(np.int32), n_objects=objects, seed=seed)
    path = folder / f"sketch{seed}.jsonl"
    append_events(path, sketch.events)
    return store_image(folder / f"image{seed}.zarr", pixels), str(path)


def small(folder: Path, *pairs: tuple[str, str], **changes: Any) -> TrainOptions:
    options = TrainOptions(
        images=tuple(image for image, _ in pairs),
        sketches=tuple(sketch for _, sketch in pairs),
        out=str(folder / "model"),
        width=4,
        steps=4,
        batch=2,
        patch=32,
        precision="float32",
        threads=1,
        preview_every=2,
    )
    return replace(options, **changes)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "model" / "run" / "log.jsonl").read_text().splitlines()]


def test_a_study_of_images_leaves_a_model_pictures_and_its_curve(tmp_path: Path) -> None:
    pairs = [image_and_sketch(tmp_path, seed) for seed in range(2)]
    said: list[str] = []
    result = train(small(tmp_path, *pairs, hold_out=0.3, validate_every=2), on_step=said.append)
    run_folder = tmp_path / "model" / "run"
    assert {p.name for p in run_folder.iterdir()} == {
        "log.jsonl", "loss.png", "preview_000002.png", "preview_000004.png", "state.safetensors"
    }  # fmt: skip
    for path in run_folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > picture.height > 50
    provenance = load_model(result.model).provenance
    assert len(provenance["curve"]["loss"]) == 4
    assert len(provenance["curve"]["score"]) == 2
    assert [len(one["sketches"]) for one in provenance["taken_in"]] == [2]
    assert any("stop" in line for line in said)
    assert sum(": a stroke log, " in line for line in said) == 2
    assert any("held out" in line for line in said)


def test_other_images_can_be_held_out(tmp_path: Path) -> None:
    taught, scored = image_and_sketch(tmp_path, 0), image_and_sketch(tmp_path, 1)
    options = small(tmp_path, taught, validate=(scored[0],), validate_sketches=(scored[1],), validate_every=4)
    assert train(options).steps == 4
    assert lines(tmp_path)[-1]["score"] < 0
    with pytest.raises(InputError, match="--validate-sketch"):
        train(replace(options, validate_sketches=(), out=str(tmp_path / "other")))


@pytest.mark.parametrize(("objects", "others_decide"), [(3, True), (1, False)])
def test_a_model_is_calibrated_on_other_images_where_they_show_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: int, others_decide: bool
) -> None:
    """On two other images with three objects each; but on the one that was taught where they have one each."""
    seen: list[int] = []

    def noted(model: Any, images: Any, **given: Any) -> Any:
        seen.append(len(images))
        return calibrate(model, images, **given)

    monkeypatch.setattr(workflow, "calibrate", noted)
    taught, *others = (image_and_sketch(tmp_path, seed, 7 if seed == 0 else objects) for seed in range(3))
    images, sketches = zip(*others, strict=True)
    train(small(tmp_path, taught, validate=images, validate_sketches=sketches))
    assert seen == [2] if others_decide else [2, 1]
    assert load_model(str(tmp_path / "model")).provenance["calibrated"]["windows"] > 0


def test_sizes_follow_the_minutes_and_what_is_given_wins(tmp_path: Path) -> None:
    pair = image_and_sketch(tmp_path)
    said: list[str] = []
    options = TrainOptions(
        images=(pair[0],),
        sketches=(pair[1],),
        out=str(tmp_path / "model"),
        minutes=0.2,
        batch=1,
        precision="float32",
        init="random",
    )
    result = train(options, on_step=said.append)
    network = load_model(result.model).provenance["training"]["network"]
    assert network["widths"][0] == QUICK.width < LONG.width
    assert any(f"width {QUICK.width}, 1 patches of {QUICK.patch} px" in line for line in said)


def test_few_steps_from_random_weights_are_said_with_what_helps(tmp_path: Path) -> None:
    said: list[str] = []
    result = train(small(tmp_path, image_and_sketch(tmp_path)), on_step=said.append)
    assert "4 steps" in result.warning
    assert "--steps" in result.warning
    assert said[-1] == f"warning: {result.warning}"
    model = load_model(result.model)
    assert model.provenance["warning"] == result.warning
    after = train(small(tmp_path, image_and_sketch(tmp_path, 1), init=result.model, out=str(tmp_path / "next")))
    assert "too few" not in after.warning


def test_the_minutes_are_of_the_whole_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time is gone after reading: steps get what is left of nine tenths, and all is over in time."""
    pair, minutes, read = image_and_sketch(tmp_path), 0.2, workflow._read

    def slow(*given: Any) -> Any:
        time.sleep(30 * minutes)
        return read(*given)

    monkeypatch.setattr(workflow, "_read", slow)
    result = train(small(tmp_path, pair, steps=None, minutes=minutes))
    assert 0 < result.seconds < 0.4 * 60 * minutes
    assert "--minutes" in result.warning or result.steps >= FEW_STEPS


def test_minutes_too_short_for_a_step_are_refused_and_leave_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, sketch = image_and_sketch(tmp_path)
    out = tmp_path / "model"
    assert run(["train", image, "--sketch", sketch, "--out", str(out), "--minutes", "0.01"]) == 2
    assert capfd.readouterr().err.strip().splitlines()[-1].startswith("error: --minutes 0.01, of which reading")
    assert not out.exists()


def test_an_unknown_kind_of_network_is_refused_before_anything_is_written(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image, sketch = image_and_sketch(tmp_path)
    assert run(["train", image, "--sketch", sketch, "--out", str(tmp_path / "model"), "--network", "unnet"]) == 2
    assert "did you mean 'unet'" in capfd.readouterr().err
    assert not (tmp_path / "model").exists()


def test_every_phase_says_something_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_watch, "_LINE_EVERY_S", 0.0)
    said: list[str] = []
    train(small(tmp_path, image_and_sketch(tmp_path), steps=3), on_step=said.append)
    for start in ("reading images", "step 1 ", "step 2 ", "step 3 ", "calibrating"):
        assert any(line.startswith(start) for line in said), start
    assert all(" left" in line for line in said if line.startswith("step 2"))


def painted(folder: Path, seed: int = 0) -> tuple[str, str]:
    """An image, and a PNG in which every object is painted."""
    pixels = draw_nuclei(SHAPE, seed)
    labels, _ = ndimage.label(ndimage.gaussian_filter(pixels.astype(float), 1) > 130)
    Image.fromarray(labels.astype(np.uint8)).save(folder / "painted.png")
    return store_image(folder / f"image{seed}.zarr", pixels), str(folder / "painted.png")


@pytest.mark.parametrize("kind", ["png", "geojson"])
def test_training_reads_what_sketch_import_reads_in_the_same_way(tmp_path: Path, kind: str) -> None:
    image, sketch = painted(tmp_path)
    if kind == "geojson":
        assert run(["sketch", "export", sketch, "--kind", "labels", "--out", str(tmp_path / "s.geojson")]) == 0
        sketch = str(tmp_path / "s.geojson")
    how = ["--kind", "labels"] if kind == "png" else []
    log = str(tmp_path / "s.jsonl")
    assert run(["sketch", "import", sketch, "--image", image, "--out", log, *how]) == 0
    said: list[str] = []
    sketch_kind = "labels" if kind == "png" else None
    direct = small(tmp_path, (image, sketch), steps=2, sketch_kind=sketch_kind)
    through = small(tmp_path, (image, log), steps=2, out=str(tmp_path / "through"))
    losses = [train(options, on_step=said.append).loss for options in (direct, through)]
    assert losses[0] == losses[1]
    assert "background" in next(line for line in said if line.startswith(f"{sketch}: "))
    first, second = (load_model(str(tmp_path / name)).provenance["annotated"] for name in ("model", "through"))
    assert first[0]["pixels"] == second[0]["pixels"]


def test_a_painted_image_of_some_objects_lacks_background_and_the_line_says_what_to_do(tmp_path: Path) -> None:
    line = refused(tmp_path, small(tmp_path, painted(tmp_path)))
    for words in ("no background", "draw thick background strokes", "--kind labels", "--class VALUE=background"):
        assert words in line


def test_a_fully_painted_image_is_enough_for_the_dense_loss(tmp_path: Path) -> None:
    assert train(small(tmp_path, painted(tmp_path), loss="dense", sketch_kind="labels", steps=1)).steps == 1


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_painted_meanwhile_is_taken_in_once_it_is_saved_whole(tmp_path: Path, whole: bool) -> None:
    image, sketch = painted(tmp_path)
    labels = np.asarray(Image.open(sketch)).copy()
    fewer = np.where(labels == labels.max(), 0, labels).astype(np.uint8)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("step 1 "):
            Image.fromarray(fewer).save(sketch)
            if not whole:
                Path(sketch).write_bytes(Path(sketch).read_bytes()[:-40])

    train(small(tmp_path, (image, sketch), sketch_kind="labels"), on_step=say)
    taken = [line["annotation"] is not None for line in lines(tmp_path)]
    assert taken == [True, whole, False, False]
    assert any("changed strokes are not used" in line for line in said) != whole


def append_later(sketch: str, text: str | None = None) -> Callable[[str], None]:
    """Draws once the first step was reported."""
    done: list[int] = []

    def say(line: str) -> None:
        if line.startswith("step 1 ") and not done:
            done.append(1)
            if text is not None:
                with Path(sketch).open("a") as stream:
                    stream.write(text)
            else:
                dab = Stroke(points=((110.0, 140.0),), radius_px=4, label="background", id="new")
                append_events(sketch, [dab])

    return say


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks for new strokes before every step."""
    config = workflow.training_config
    monkeypatch.setattr(workflow, "training_config", lambda *a, **k: replace(config(*a, **k), refresh_every_s=0.0))


@pytest.mark.usefixtures("often")
def test_strokes_added_meanwhile_are_in_the_next_step_and_in_the_provenance(tmp_path: Path) -> None:
    image, sketch = image_and_sketch(tmp_path)
    result = train(small(tmp_path, (image, sketch)), on_step=append_later(sketch))
    assert [line["annotation"] is not None for line in lines(tmp_path)] == [True, True, False, False]
    taken = load_model(result.model).provenance["taken_in"]
    assert [one["step"] for one in taken] == [1, 2]
    assert taken[0]["sketches"] != taken[1]["sketches"]


def test_what_is_held_out_stays_so_whatever_is_drawn_there_later(tmp_path: Path) -> None:
    image, sketch = image_and_sketch(tmp_path)
    reading = Reading(channels=None, low=1.0, high=99.8, on_conflict="last")
    with Runner(Execution(engine="serial")) as runner:
        data = SketchedImages([image], [sketch], reading, runner)
    (held,) = data.hold_out(0.4, 0)
    (before,) = data.training()
    everywhere = Stroke(points=((60.0, 0.0), (60.0, 149.0)), radius_px=300, label="background", id="all")
    append_events(sketch, [everywhere])
    assert data.read_again()
    (after,) = data.training()
    hidden = held.labels >= 0
    assert hidden.any()
    assert (after.labels[hidden] == -1).all()
    assert (after.labels == 0).sum() > (before.labels == 0).sum()
    assert not data.read_again()


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"event": "stroke", "la', "torn"),
        (Path, "both foreground and background"),
    ],
    ids=["half a line", "contradiction"],
)
def test_strokes_that_cannot_be_used_yet_do_not_end_training(tmp_path: Path, text: Any, words: str) -> None:
    image, sketch = image_and_sketch(tmp_path)
    if text is Path:
        stroke = {"event": "stroke", "points": [[0, 0], [119, 149]], "radius_px": 3, "id": "x"}
        text = "".join(
            json.dumps({**stroke, "label": name, "id": name}) + "\n" for name in ("foreground", "background")
        )
    said: list[str] = []
    draw = append_later(sketch, text)

    def say(line: str) -> None:
        said.append(line)
        draw(line)

    assert train(small(tmp_path, (image, sketch)), on_step=say).steps == 4
    assert [line["annotation"] is not None for line in lines(tmp_path)] == [True, False, False, False]
    assert any("not used" in line and words in line for line in said)


def test_a_new_training_removes_the_pictures_of_the_old_one(tmp_path: Path) -> None:
    pair = image_and_sketch(tmp_path)
    train(small(tmp_path, pair))
    train(small(tmp_path, pair, steps=1, preview_every=5), Execution(engine="serial", overwrite=True))
    assert [p.name for p in (tmp_path / "model" / "run").glob("preview_*")] == ["preview_000001.png"]


@pytest.mark.parametrize("loss", ["sketchpose", "sketchpose-1", "eikonal"])
def test_every_loss_trains_from_random_weights_and_from_a_model(tmp_path: Path, loss: str) -> None:
    pair = image_and_sketch(tmp_path)
    first = train(small(tmp_path, pair, loss=loss, steps=2, init="random", preview_every=0))
    again = train(small(tmp_path, pair, steps=2, init=first.model, out=str(tmp_path / "b"), preview_every=0))
    assert load_model(first.model).config.network.outputs == (4 if loss == "sketchpose-1" else 3)
    assert load_model(again.model).config.network.outputs == 3


# ---- bad input


def refused(folder: Path, options: TrainOptions) -> str:
    with pytest.raises(InputError) as caught:
        train(options)
    assert not Path(options.out).exists()
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("label", "words"),
    [(None, "no stroke in"), ("foreground", "no background"), ("background", "no foreground")],
    ids=["no strokes", "one class: foreground", "one class: background"],
)
def test_too_little_drawn_is_one_line(tmp_path: Path, label: str | None, words: str) -> None:
    image, _ = image_and_sketch(tmp_path)
    events = [] if label is None else [Stroke(points=((9.0, 9.0), (9.0, 60.0)), radius_px=3, label=label, id="a")]
    append_events(tmp_path / "few.jsonl", events)
    assert words in refused(tmp_path, small(tmp_path, (image, str(tmp_path / "few.jsonl"))))


def test_one_class_on_each_of_two_images_is_one_line(tmp_path: Path) -> None:
    pairs = []
    for seed in range(2):
        image, _ = image_and_sketch(tmp_path, seed)
        path = tmp_path / f"few{seed}.jsonl"
        append_events(path, [Stroke(points=((9.0, 9.0), (9.0, 60.0)), radius_px=3, label="background", id="a")])
        pairs.append((image, str(path)))
    assert "no foreground stroke" in refused(tmp_path, small(tmp_path, *pairs))


def test_a_dense_loss_with_strokes_is_one_line(tmp_path: Path) -> None:
    pair = image_and_sketch(tmp_path)
    assert "sketchpose" in refused(tmp_path, small(tmp_path, pair, loss="dense"))
    assert "--validate" in refused(tmp_path, small(tmp_path, pair, loss="dense", hold_out=0.2))


def test_a_model_of_another_architecture_is_one_line(tmp_path: Path, model: str) -> None:
    pair = image_and_sketch(tmp_path)
    assert train(small(tmp_path, pair, init=model)).steps == 4
    with pytest.raises(InputError, match="no model"):
        train(small(tmp_path, pair, init="nowhere", out=str(tmp_path / "m")))


def test_patches_larger_than_the_image_simply_work(tmp_path: Path) -> None:
    assert train(small(tmp_path, image_and_sketch(tmp_path), steps=1, patch=256)).steps == 1


def test_a_loss_that_is_no_number_names_batch_and_remedy_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, good, calls = image_and_sketch(tmp_path), learner.find_loss("sketchpose"), list[int]()

    def failing(*args: Any) -> Any:
        calls.append(1)
        return good(*args) * (float("nan") if len(calls) == 3 else 1)

    with monkeypatch.context() as patch:
        patch.setattr(learner, "find_loss", lambda name: failing)
        with pytest.raises(TaskError, match=r"run/bad_batch\.npz") as caught:
            train(small(tmp_path, pair))
    assert "\n" not in str(caught.value)
    assert train(small(tmp_path, pair, rate=1e-4), RESUME).steps == 4


def test_ctrl_c_is_130_and_resume_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image, sketch = image_and_sketch(tmp_path)
    note = workflow.Watch.note

    def cut(self: Any, step: Any) -> None:
        note(self, step)
        if step.step == 2:
            raise KeyboardInterrupt

    command = ["train", image, "--sketch", sketch, "--out", str(tmp_path / "model"), "--steps", "3", "--width", "4"]
    command += ["--batch", "2", "--patch", "32", "--precision", "float32", "--threads", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(workflow.Watch, "note", cut)
        assert run(command) == 130
    assert "--resume" in capsys.readouterr().err
    assert not (tmp_path / "model" / "model.safetensors").exists()
    assert run([*command, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3


def test_what_the_papers_let_a_user_choose_reaches_the_training(tmp_path: Path) -> None:
    chosen = {"weight_decay": 0.3, "schedule": "constant", "augment": "turns", "loss": "sketchpose"}
    options = small(tmp_path, image_and_sketch(tmp_path), **chosen, loss_weights=("distance=0.5", "rim=2"))
    stored = load_model(train(options).model).provenance["training"]
    assert (stored["weight_decay"], stored["schedule"]) == (0.3, "constant")
    assert (stored["loss"]["distance"], stored["loss"]["rim"]) == (0.5, 2)
    assert stored["augment"]["turn"] is True
    assert stored["augment"]["scale"] == [1.0, 1.0] == stored["augment"]["gain"]


@pytest.mark.parametrize(
    ("weight", "words"), [("heat=1", "'heat'; known: .*distance"), ("distance=far", "--loss-weight distance=1")]
)
def test_weights_that_the_loss_does_not_have_are_refused(tmp_path: Path, weight: str, words: str) -> None:
    assert re.search(words, refused(tmp_path, small(tmp_path, image_and_sketch(tmp_path), loss_weights=(weight,))))
