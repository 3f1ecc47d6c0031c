"""Evaluation of stored labels: one image or many, planes or volumes, at any block."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from scipy import ndimage

from sketchscale.cli import run
from sketchscale.config import Execution
from sketchscale.errors import InputError
from sketchscale.evaluation import count_overlaps, join_images, score_labels, score_overlaps
from sketchscale.geometry import whole
from sketchscale.io.ome_zarr.arrays import write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.workflow.measure.evaluate import compare, evaluate, pair_truths, summarize
from tests.pipeline import draw_nuclei, store_image

SHAPE = (70, 90)
SERIAL = Execution(engine="serial", block=64)


def random_labels(seed: int, shape: tuple[int, ...] = SHAPE) -> npt.NDArray[np.uint32]:
    """Squares of 6 px with an id or none, ids with gaps."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 5, [-(-n // 6) for n in shape]) * rng.integers(1, 900, [-(-n // 6) for n in shape])
    for axis in range(len(shape)):
        coarse = np.repeat(coarse, 6, axis)
    return coarse[tuple(slice(n) for n in shape)].astype(np.uint32)


def disturbed(labels: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    return np.roll(labels, (1, 1), (-2, -1)) * (np.random.default_rng(9).random(labels.shape) > 0.1)


def labelled(folder: Path, name: str, seed: int) -> tuple[str, npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """An image with labels `nuclei`, a true TIFF beside it, and both arrays."""
    address = store_image(folder / f"{name}.zarr", draw_nuclei(SHAPE, seed))
    truth, predicted = random_labels(seed), disturbed(random_labels(seed)).astype(np.uint32)
    for labels, values in (("nuclei", predicted), ("truth", truth)):
        image = open_image(address)
        (level,) = create_labels(image, labels, chunks=(32, 64))
        write_box(level, whole(SHAPE), values)
        commit_labels(image, labels)
    tifffile.imwrite(folder / f"{name}.tif", truth)
    return address, truth, predicted


@pytest.fixture
def pair(tmp_path: Path) -> list[tuple[str, Any, Any]]:
    return [labelled(tmp_path, "a", 1), labelled(tmp_path, "b", 2)]


def test_blocks_do_not_matter(tmp_path: Path, pair: list[tuple[str, Any, Any]]) -> None:
    address, truth, predicted = pair[0]
    whole_image = score_labels(truth, predicted).as_dict()
    for block in (32, 64, 2048):
        scores = evaluate(address, "nuclei", str(tmp_path / "a.tif"), Execution(engine="threads", block=block))
        assert {k: scores[k] for k in whole_image} == whole_image


def test_each_piece_of_a_true_mask_with_one_value_is_an_object(
    tmp_path: Path, pair: list[tuple[str, Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    address, truth, predicted = pair[0]
    mask = (truth > 1000).astype(np.uint8) * 255
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    assert count > 3
    np.save(tmp_path / "mask.npy", mask)
    command = ["evaluate", address, "--truth", str(tmp_path / "mask.npy"), "--engine", "serial", "--json"]
    for block in (32, 2048):
        assert run([*command, "--block", str(block)]) == 0
        out, err = capsys.readouterr()
        scores, expected = json.loads(out), score_labels(pieces, predicted).as_dict()
        assert {name: scores[name] for name in expected} == expected
        assert f"its only value is 255; its {count} connected components are the objects" in err
    assert run([*command, "--components", "never"]) == 0
    assert json.loads(capsys.readouterr().out)["n_true"] == 1
    np.save(tmp_path / "two.npy", np.where(mask > 0, 2, 1))
    assert run(["evaluate", address, "--truth", str(tmp_path / "two.npy"), "--engine", "serial"]) == 2
    assert "two values, 1 and 2, and no 0" in capsys.readouterr().err


def test_several_images_give_each_their_mean_and_the_pool(
    tmp_path: Path, pair: list[tuple[str, Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    images, truths = [p[0] for p in pair], ["--truth", str(tmp_path / "*.tif")]
    table = tmp_path / "scores.csv"
    assert run(["evaluate", *images, *truths, "--engine", "serial", "--json", "--csv", str(table)]) == 0
    summary = json.loads(capsys.readouterr().out)
    single = [score_labels(truth, predicted) for _, truth, predicted in pair]
    pooled = score_overlaps(join_images(count_overlaps(truth, predicted) for _, truth, predicted in pair))
    assert [record["image"] for record in summary["images"]] == images
    assert summary["images"][1]["ap"] == single[1].as_dict()["ap"]
    assert summary["by_image"]["ap"]["0.5"] == pytest.approx(np.mean([s.at(0.5).ap for s in single]))
    assert summary["pooled"] == pooled.as_dict()
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [*images, "by_image", "pooled"]
    assert float(rows[-1]["ap_0.75"]) == pooled.at(0.75).ap
    assert rows[-2]["n_true"] == ""
    assert run(["evaluate", *images, *truths, "--engine", "serial"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[-1].endswith("all objects together")


def test_true_labels_may_lie_beside_each_image(
    pair: list[tuple[str, Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    images = [p[0] for p in pair]
    assert (
        run(["evaluate", *images, "--truth-labels", "truth", "--iou", "0.75,0.3", "--engine", "serial", "--json"]) == 0
    )
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["pooled"]["ap"]) == ["0.3", "0.75"]
    assert summary["images"][0]["ap"]["0.3"] == score_labels(*pair[0][1:], (0.3,)).at(0.3).ap


def test_one_of_several_that_fails_is_named_and_the_others_are_scored(
    tmp_path: Path, pair: list[tuple[str, Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((9, 9), np.uint16))
    images = [p[0] for p in pair]
    assert run(["evaluate", *images, "--truth", str(tmp_path / "*.tif"), "--engine", "serial", "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["image"] == images[0]
    assert "1 of 2 images failed" in err


@pytest.mark.parametrize("chunks", [(2, 16, 16), (1, 64, 64)])
def test_volumes(tmp_path: Path, chunks: tuple[int, int, int]) -> None:
    shape = (7, 40, 50)
    truth, predicted = random_labels(3, shape), disturbed(random_labels(3, shape)).astype(np.uint32)
    address = str(tmp_path / "v.zarr")
    stored(address, np.zeros(shape, np.uint8), chunks)
    stored(f"{address}/labels/cells", predicted, chunks)
    (tmp_path / "v.zarr/labels/zarr.json").write_text(
        json.dumps(
            {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", "labels": ["cells"]}}}
        )
    )
    tifffile.imwrite(tmp_path / "t.tif", truth)
    np.save(tmp_path / "t.npy", truth)
    stored(str(tmp_path / "t.zarr"), truth, (1, 40, 50))
    wanted = score_labels(truth, predicted).as_dict()
    for name in ("t.tif", "t.npy", "t.zarr"):
        scores = evaluate(address, "cells", str(tmp_path / name), SERIAL)
        assert {k: scores[k] for k in wanted} == wanted


def stored(address: str, values: npt.NDArray[Any], chunks: tuple[int, ...]) -> None:
    (level,) = create_image(address, values.shape, "zyx", values.dtype, chunks, levels=1)
    write_box(level, whole(values.shape), values)
    commit_image(address)


def test_truths_of_another_depth_are_refused(tmp_path: Path, pair: list[tuple[str, Any, Any]]) -> None:
    address = pair[0][0]
    np.save(tmp_path / "deep.npy", np.zeros((3, *SHAPE), np.uint16))
    with pytest.raises(InputError, match=r"true ones of \(3, 70, 90\)"):
        evaluate(address, "nuclei", str(tmp_path / "deep.npy"), SERIAL)
    (level,) = create_image(str(tmp_path / "tz.zarr"), (2, 3, *SHAPE), "tzyx", np.dtype("u2"), (1, 1, 64, 64), levels=1)
    write_box(level, whole((2, 3, *SHAPE)), np.zeros((2, 3, *SHAPE), np.uint16))
    commit_image(str(tmp_path / "tz.zarr"))
    with pytest.raises(InputError, match="one time point"):
        evaluate(address, "nuclei", str(tmp_path / "tz.zarr"), SERIAL)
    np.save(tmp_path / "float.npy", np.zeros((3, *SHAPE)))
    with pytest.raises(InputError, match="float64"):
        evaluate(address, "nuclei", str(tmp_path / "float.npy"), SERIAL)


def test_a_truth_with_a_single_section_is_a_plane(tmp_path: Path, pair: list[tuple[str, Any, Any]]) -> None:
    address, truth, predicted = pair[0]
    np.save(tmp_path / "one.npy", truth[None])
    stored(str(tmp_path / "one.zarr"), truth[None], (1, 64, 64))
    for name in ("one.npy", "one.zarr"):
        scores = evaluate(address, "nuclei", str(tmp_path / name), SERIAL)
        assert scores["ap"] == score_labels(truth, predicted).as_dict()["ap"]


def test_a_single_image_shows_each_figure_once(
    tmp_path: Path, pair: list[tuple[str, Any, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    address = pair[0][0]
    compared = compare(address, "nuclei", f"{address}/labels/truth", SERIAL)
    figures = evaluate(address, "nuclei", f"{address}/labels/truth", SERIAL)
    assert summarize([compared]) == figures
    options = ["--truth-labels", "truth", "--engine", "serial"]
    assert run(["evaluate", address, *options, "--json", "--csv", str(tmp_path / "scores.csv")]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == figures
    assert [out.count(f'"{name}":') for name in ("ap", "aji", "n_true")] == [1, 1, 1]
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 2
    assert run(["evaluate", address, *options]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_truths_by_name_or_by_place() -> None:
    assert pair_truths(["a", "b"], ["x.tif", "y.tif"]) == ["x.tif", "y.tif"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "1 images and 0 truths"),
        (("--truth", "x.tif", "--truth", "y.tif"), "1 images and 2 truths"),
        (("--truth", "x.tif", "--truth-labels", "truth"), "with --truth-labels"),
        (("--truth", "none-*.tif"), "matches nothing"),
        (("--truth-labels", "gold"), "gold"),
        (("--truth-labels", "truth", "--labels", "cells"), "known: nuclei, truth"),
        (("--truth-labels", "truth", "--iou", "1.5"), "change --iou"),
        (("--truth-labels", "truth", "--iou", "half"), "valid number"),
        (("--truth-labels", "truth", "--csv", "old.csv"), "--overwrite"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    tmp_path: Path,
    pair: list[tuple[str, Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.csv").write_text("mine")
    shutil.rmtree(pair[1][0])
    code = run(["evaluate", pair[0][0], *arguments, "--engine", "serial"])
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out, len(errors)) == (2, "", 1), err
    assert words in errors[0]
    assert (tmp_path / "old.csv").read_text() == "mine"
