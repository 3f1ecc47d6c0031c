"""What all tests share: where the annotated data is, and one thread per kernel so that results and times are steady."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from sketchscale.networks import precision
from tests.object_store import s3, s3_server  # noqa: F401  fixtures
from tests.pipeline import draw_nuclei, make_model, store_image
from tests.workflow.finished import finish

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs hand it down to all they start

QUICK = settings(deadline=None, max_examples=10)  # speed is for benchmarks; machines are noisy
settings.register_profile("quick", QUICK)
settings.register_profile("thorough", deadline=None)  # chosen with --hypothesis-profile thorough
settings.load_profile("quick")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SKETCHSCALE_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session", autouse=True)
def _float32() -> Iterator[None]:
    """`--precision auto` is float32 in every test that does not say otherwise, so that no result depends on how fast
    the machine is at the moment. Tests that start processes of their own name a precision."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "measure_rates", lambda device, use: precision.Rates(float32=2.0, bfloat16=1.0))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of annotated microscopy beside the checkout (or SKETCHSCALE_DATA); skips where there is none."""
    folder = Path(os.environ["SKETCHSCALE_DATA"])
    if not folder.is_dir():
        pytest.skip(f"annotated data is absent: {folder} does not exist (set SKETCHSCALE_DATA)")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model folder: two small levels, random weights, tiles of 64 px."""
    return make_model(tmp_path_factory.mktemp("model") / "random")


@pytest.fixture
def image(tmp_path: Path) -> str:
    """An OME-Zarr image of 200 x 330 px in chunks of 64."""
    return store_image(tmp_path / "image.ome.zarr", draw_nuclei((200, 330)))


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """A folder with `image.zarr`, segmented, measured and classified; read only: work on a copy."""
    return finish(tmp_path_factory.mktemp("done"), model)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Draw at most as many examples as the quick profile says, unless a test is slow or another profile is chosen."""
    if settings.default != QUICK:
        return
    for item in items:
        test = getattr(getattr(item, "obj", None), "__func__", getattr(item, "obj", None))
        own = getattr(test, "_hypothesis_internal_use_settings", None)  # what @settings leaves; no public way
        chosen = item.get_closest_marker("slow") or item.get_closest_marker("nightly")
        if own is not None and not chosen and own.max_examples > QUICK.max_examples:
            test._hypothesis_internal_use_settings = settings(own, max_examples=QUICK.max_examples)
