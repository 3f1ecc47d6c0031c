"""Study files and options: unknown keys at any depth, wrong types, values out of range, overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from sketchscale.config import Execution, SegmentOptions, Study, apply_overrides, as_json, load_study, parse, schema
from sketchscale.errors import InputError

GOOD = """
[study]
images = ["a.zarr"]
[segment]
channels = [0, "dapi"]
threshold = 0
[train]
images = ["a.zarr"]
sketches = ["a.jsonl"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_a_study_file_becomes_options(tmp_path: Path) -> None:
    study = load_study(write(tmp_path, GOOD), ["segment.min_size=30", "study.name=Tuesday"])
    assert study.study.images == ("a.zarr",)
    assert study.study.name == "Tuesday"
    assert study.segment.channels == (0, "dapi")
    assert (study.segment.threshold, study.segment.min_size) == (0.0, 30)
    assert study.train is not None
    assert study.classify is None


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        ("[study]\nimages=['a']\n[segmnt]\n", "", "did you mean 'segment'"),
        ("[study]\nimages=['a']\nnmae='x'\n", "", "did you mean 'name'"),
        ("[study]\nimages=['a']\n[segment]\nmin_sise=3\n", "", "did you mean 'min_size'"),
        ("[study]\nimages=['a']\n[train]\nwidht=3\n", "", "did you mean 'width'"),
        ("[study]\nimages=['a']\n[execution]\nengin='x'\n", "", "did you mean 'engine'"),
        ("[study]\nimages=['a']\n", "segment.min_sise=3", "did you mean 'min_size'"),
        ("[study]\nimages='a'\n", "", "study.images"),
        ("[study]\nimages=['a']\n[segment]\nmin_size='many'\n", "", "segment.min_size"),
        ("[study]\nimages=['a']\n[segment]\nmethod='guess'\n", "", "segment.method"),
        ("[study]\nimages=['a']\n[execution]\nresume=true\noverwrite=true\n", "", "exclude each other"),
        ("[study]\nimages=['a']\n[execution]\nworkers=0\n", "", "at least 1"),
        ("[study]\nimages=['a']\n[execution]\ngpus_per_worker=0\n", "", "gpus_per_worker 0.* more than 0"),
        ("[study]\nimages=['a']\n[execution]\nattempts=0\n", "", "attempts 0.* at least 1"),
        ("[study]\nimages=['a']\n[execution]\nwait_s=0\n", "", "wait_s 0.* more than 0"),
        ("[study]\n", "", "study.images"),
        ("segment = 3\n[study]\nimages=['a']\n", "", "segment"),
        ("[study]\nimages=['a']\n[segment]\nmin_size=3\n", "segment.min_size.x=4", "min_size is a value"),
        ("[study\n", "", "is not TOML"),
        ("[study]\nimages=['a']\n", "nonsense", "key=value"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(tmp_path: Path, text: str, override: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        load_study(path, [override] if override else [])
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml"):
        load_study(tmp_path / "none.toml")


def test_overrides_keep_types_and_leave_the_document_alone() -> None:
    document = {"a": {"b": 1}}
    found = apply_overrides(document, ["a.b=2.5", "a.c=[1, 2]", "d=bare word", 'e="3"', "f=true"])
    assert found == {"a": {"b": 2.5, "c": [1, 2]}, "d": "bare word", "e": "3", "f": True}
    assert document == {"a": {"b": 1}}


def test_options_are_strict_and_canonical() -> None:
    with pytest.raises(InputError, match="did you mean 'tile'"):
        parse(SegmentOptions, {"tiel": 3}, source="options")
    assert as_json(SegmentOptions()) == as_json(SegmentOptions())
    assert as_json(SegmentOptions()).startswith('{"anisotropy":null,"batch":null')
    assert Execution(memory_gb=0.5).budget_bytes == 500_000_000


def test_the_schema_knows_every_section() -> None:
    assert set(schema()["properties"]) == set(Study.__dataclass_fields__)
