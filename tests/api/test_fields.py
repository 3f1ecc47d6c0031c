"""Options as keyword arguments: a wrong one is an error of one line that names the public function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sketchscale as sk
import sketchscale.options
from sketchscale.api.fields import options_and_execution
from sketchscale.errors import InputError, UnknownNameError
from sketchscale.options import ConvertConfig, Execution, SegmentOptions, TrainOptions
from tests.pipeline import draw_nuclei

_BLANK = np.zeros((8, 8), np.uint8)


def test_keywords_are_the_fields_of_the_options(model: str) -> None:
    pixels = draw_nuclei((70, 90))
    few = sk.segment(pixels, model=Path(model), min_size=20)
    np.testing.assert_array_equal(few, sk.segment(pixels, SegmentOptions(model=model, min_size=20)))
    np.testing.assert_array_equal(few, sk.segment(pixels, SegmentOptions(model=model), min_size=20))
    many = sk.segment(pixels, model=model, min_size=1)
    assert 0 < np.max(few) < np.max(many)


def test_what_is_given_is_changed_by_keywords_and_paths_and_single_values_become_what_the_fields_are() -> None:
    before = TrainOptions(minutes=1.0, width=8), Execution(workers=2)
    given = {"images": Path("a.zarr"), "sketches": ["a.jsonl", Path("b.jsonl")], "width": 16, "resume": True}
    chosen, how = options_and_execution("train", TrainOptions, *before, given)
    assert (chosen.images, chosen.sketches) == (("a.zarr",), ("a.jsonl", "b.jsonl"))
    assert (chosen.minutes, chosen.width, how.workers, how.resume) == (1.0, 16, 2, True)
    convert, how = options_and_execution("convert", ConvertConfig, None, None, {"block": 64, "workers": 1})
    assert (convert.block, how.block) == (64, Execution().block)


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: sk.segment(_BLANK, min_sise=9), UnknownNameError, r"segment\(\): 'min_sise'; did you mean 'min_size'"),
        (lambda: sk.segment(_BLANK, min_size="many"), InputError, r"segment\(\): min_size: .*integer"),
        (lambda: sk.segment(_BLANK, flips=3), InputError, r"segment\(\): flips: .*1, 4 or 8"),
        (lambda: sk.segment(_BLANK, {"min_size": 20}), InputError,
         r"segment\(\): options is a dict; expected: SegmentOptions.*segment\(\.\.\., \*\*options\)"),
        (lambda: sk.segment(_BLANK, "a"), InputError, r"options is a str; .*sketchscale\.options\.SegmentOptions"),
        (lambda: sk.segment("a.zarr", workers=0), InputError, r"segment\(\): workers 0; expected: at least 1"),
        (lambda: sk.train("a.zarr", skech="s"), UnknownNameError, r"train\(\): 'skech'; did you mean 'sketches'"),
        (lambda: sk.train("a.zarr"), InputError, r"train\(\): 1 images and 0 sketches"),
        (lambda: sk.train(), InputError, r"train\(\): 0 images and 0 sketches"),
        (lambda: sk.train({"minutes": 1}), InputError, r"train\(\): options is a dict"),
        (lambda: sk.convert("a.tif", "a.zarr", chunks=64), UnknownNameError, r"convert\(\): 'chunks'.*'chunk'"),
        (lambda: sk.convert("a.tif", "a.zarr", chunk=0), InputError, r"convert\(\): .*chunk 0"),
        (lambda: sk.measure("a.zarr", feature=["area"]), UnknownNameError, r"measure\(\): 'feature'.*'features'"),
        (lambda: sk.classify("a.zarr", "n", "c", mask=True), UnknownNameError, r"classify\(\): 'mask'.*'masks'"),
        (lambda: sk.run("none.toml", overrides=["segment.min_size=3"], resume=True), InputError, "none.toml cannot be"),
        (lambda: sk.count("a.zarr", label="n"), TypeError, r"^count\(\)"),
        (lambda: sk.report("a.zarr", "n", "o.html", titel=""), TypeError, r"^report\(\)"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_one_line_that_names_the_public_function(
    call: Any, kind: type[Exception], says: str
) -> None:
    with pytest.raises(kind, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert "segment_anything" not in str(caught.value)


def test_option_classes_are_public() -> None:
    assert all(isinstance(getattr(sketchscale.options, name), type) for name in sketchscale.options.__all__)
    assert SegmentOptions(min_size=3).min_size == 3
