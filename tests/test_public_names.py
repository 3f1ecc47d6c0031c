from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import sketchscale
import sketchscale.options
from sketchscale.config import SegmentOptions

NAMES = [
    "Model", "Sketch", "SketchscaleError", "classify", "convert", "count", "evaluate",
    "measure", "open", "report", "run", "segment", "train",
]  # fmt: skip


def test_exactly_these_names_are_public_and_all_load() -> None:
    assert sketchscale.__all__ == NAMES
    assert len(NAMES) <= 15
    assert all(callable(getattr(sketchscale, name)) for name in NAMES)


def test_importing_the_package_or_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, sketchscale, sketchscale.cli\n"
        "try: sketchscale.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'zarr', 'dask', 'numba', 'skimage', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_stored_image_gives_a_lazy_view_equal_to_the_array(image: str, model: str) -> None:
    options = SegmentOptions(model=model)
    view = sketchscale.segment(image, options)
    pixels = sketchscale.open(image)
    assert view.chunks is not None
    assert pixels.dims == ("y", "x")
    np.testing.assert_array_equal(view.values, sketchscale.segment(pixels, options))


def test_an_option_class_that_is_gone_says_what_is_written_now() -> None:
    with pytest.raises(AttributeError, match=r"SegmentOptions\(volume=True\)"):
        sketchscale.options.VolumeOptions  # noqa: B018
