"""Metadata from strangers: whatever it says, one InputError in one line, at once, and nothing outside is touched."""

from __future__ import annotations

import copy
import itertools
import json
import random
import time

import numpy as np
import pytest
from zarr.storage import MemoryStore

from sketchscale.errors import InputError
from sketchscale.geometry import Box, whole
from sketchscale.io.ome_zarr.arrays import read_box, write_box
from sketchscale.io.ome_zarr.image import open_image
from sketchscale.io.ome_zarr.metadata import parse_image
from sketchscale.io.ome_zarr.new_images import commit_image, commit_labels, create_image, create_labels
from sketchscale.io.ome_zarr.planes import count_absent, read_plane
from sketchscale.io.ome_zarr.plate import open_plate
from sketchscale.io.stores.addresses import _MEMORY
from sketchscale.io.stores.blobs import get_blob, list_blobs, put_blob
from sketchscale.io.stores.documents import METADATA_BYTES

_FRESH = itertools.count()


def _image(version):
    address = f"memory://hostile-{next(_FRESH)}"
    refs = create_image(address, (2, 12, 10), "cyx", "u2", (1, 5, 5), version=version, channels=("a", "b"), levels=2)
    write_box(refs[0], whole((2, 12, 10)), np.ones((2, 12, 10), np.uint16))
    write_box(refs[1], whole((2, 6, 5)), np.ones((2, 6, 5), np.uint16))
    image = commit_image(address)
    (labels, _) = create_labels(image, "cells", chunks=(5, 5))
    write_box(labels, whole((12, 10)), np.ones((12, 10), np.uint32))
    commit_labels(image, "cells")
    return address


def _copy(address):
    new = f"hostile-{next(_FRESH)}"
    _MEMORY[new] = MemoryStore(dict(_MEMORY[address.removeprefix("memory://")]._store_dict))
    return f"memory://{new}"


def _use(address):
    """What a program does with an image: opens it, reads, counts, looks at labels."""
    image = open_image(address)
    for level in range(len(image.shapes)):
        plane = image.plane(level, t=0, z=0)
        corner = Box((0, 0), tuple(min(3, n) for n in plane.shape))
        read_plane(plane, corner)
        count_absent(plane)
    for name in image.labels:
        read_box(image.label_ref(name), Box((0, 0), (1, 1)), missing="fill")
    image.identity()


def _refused(address):
    """The error of using an image, None when it can be used; any other type of exception fails the test."""
    started = time.monotonic()
    try:
        _use(address)
        error = None
    except InputError as caught:
        error = str(caught)
        assert "\n" not in error
        assert len(error) < 1500
    assert time.monotonic() - started < 5
    return error


_NASTY = [
    None, True, -1, 0, 1.5, 2**31, 2**63, 10**30, float("nan"), float("inf"), -0.0, "", "x", "../../x", "/etc/passwd",
    "a\0b", [], {}, [[]], [None], [-1], [0, 0, 0], [10**9] * 3, [1] * 40, {"a": 1}, "0.1", "0.6", "pickle", "vlen-utf8",
    "object", "|O", "<U9", "|V8", "a" * 5000, {"name": "pickle"}, [{"name": "sharding_indexed"}], [{"id": "pickle"}],
    {"id": "vlen-utf8"}, {"name": "regular", "configuration": {"chunk_shape": [1, 2**20, 2**9]}},
]  # fmt: skip


def _places(document, path=()):
    yield path
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        yield from _places(value, (*path, key))


def _mutated(document, draw):
    """The document with one to three places replaced, dropped or repeated."""
    document = copy.deepcopy(document)
    for _ in range(draw.randint(1, 3)):
        path = draw.choice([p for p in _places(document) if p] or [()])
        if not path:
            break
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        action = draw.random()
        if action < 0.2:
            del parent[path[-1]]
        elif action < 0.3 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[path[-1]]))
        else:
            parent[path[-1]] = copy.deepcopy(draw.choice(_NASTY))
    return document


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_mutated_metadata_is_read_or_refused_in_one_line(version):
    good = _image(version)
    assert _refused(good) is None
    documents = [
        key for key in list_blobs(good, "") if key.rpartition("/")[2] in {"zarr.json", ".zattrs", ".zarray", ".zgroup"}
    ]
    draw = random.Random(7)
    refused = 0
    for turn in range(150):
        key = draw.choice(documents)
        address = _copy(good)
        text = json.dumps(_mutated(json.loads(get_blob(good, key)), draw)).encode()
        if turn % 5 == 0:
            cut = draw.randrange(len(text))
            text = text[:cut] + bytes([draw.randrange(256)]) + text[cut + draw.randrange(2) :]
        put_blob(address, key, text)
        refused += _refused(address) is not None
    assert refused > 60


_ARRAY_CASES = [
    ("shape", [-1, 12, 10], "shape"),
    ("shape", [2, 10**30, 10], "shape"),
    ("shape", [0, 12, 10], "shape"),
    ("shape", [2, 2**31, 2**31], "chunks"),
    ("shape", [12, 10], "axes in"),
    ("shape", [2.0, 12, 10], "shape"),
    ("shape", "all", "shape"),
]


@pytest.mark.parametrize(("field", "value", "told"), _ARRAY_CASES)
@pytest.mark.parametrize(("version", "name"), [("0.4", "0/.zarray"), ("0.5", "0/zarr.json")])
def test_absurd_arrays_are_refused_before_anything_is_made_of_them(field, value, told, version, name):
    address = _image(version)
    document = json.loads(get_blob(address, name))
    put_blob(address, name, json.dumps({**document, field: value}).encode())
    assert told in (_refused(address) or "")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"data_type": "string"}, "data type"),
        ({"data_type": {"name": "struct"}}, "data type"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 5, 5]}}}, "chunk_shape"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5, 5]}}}, "axes in shape"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 2**20, 2**20]}}}, "GiB"),
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "codec 'pickle'"),
        ({"codecs": [{"name": "bytes"}, {"name": "unheard-of"}]}, "codec 'unheard-of'"),
        ({"node_type": "group"}, "does not exist|expected: a Zarr array"),
        ({"zarr_format": 4}, "zarr_format"),
    ],
)
def test_arrays_of_strange_make_are_refused(change, told):
    address = _image("0.5")
    document = json.loads(get_blob(address, "0/zarr.json"))
    put_blob(address, "0/zarr.json", json.dumps({**document, **change}).encode())
    error = _refused(address) or ""
    assert any(part in error for part in told.split("|")), error


@pytest.mark.parametrize("compressor", [{"id": "pickle"}, {"id": "json2"}, {"id": None}, [1], "zlib-please"])
def test_codecs_that_could_run_code_never_get_a_chunk(compressor):
    address = _image("0.4")
    document = json.loads(get_blob(address, "0/.zarray"))
    put_blob(address, "0/.zarray", json.dumps({**document, "compressor": compressor}).encode())
    assert "codec" in (_refused(address) or "")


def _multiscale(**changes):
    axes = [{"name": n, "type": "space"} for n in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}], "version": "0.4"}
    return {"multiscales": [{**entry, **changes}]}


def _dataset(path="0", scale=(1.0, 1.0)):
    return [{"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(scale)}]}]


@pytest.mark.parametrize(
    "attributes",
    [
        {"multiscales": []},
        {"multiscales": {}},
        {"multiscales": None},
        _multiscale(version="0.3"),
        _multiscale(version="0.6"),
        _multiscale(version=4),
        _multiscale(axes=[{"name": "x", "type": "space"}, {"name": "y", "type": "space"}]),
        _multiscale(axes=[{"name": "y", "type": "space"}, {"name": "y", "type": "space"}]),
        _multiscale(datasets=[]),
        *(
            _multiscale(datasets=_dataset(path))
            for path in ("../0", "/0", "a/../../b", "a\\b", "", ".", "..%2f0", "a\0", 3, None)
        ),
        *(
            _multiscale(datasets=_dataset("0", scale))
            for scale in ((0, 1), (-1, 1), (1,), (1, float("nan")), (1, "inf"))
        ),
        {"ome": {**_multiscale(), "version": "0.6"}},
        {"ome": []},
    ],
)
def test_contradictory_image_metadata_is_refused(attributes):
    with pytest.raises(InputError) as caught:
        parse_image(attributes, "here")
    assert "\n" not in str(caught.value)
    parse_image(_multiscale(), "control")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe{}",
        b"\0",
        b'{"a": 1, "a": 2}',
        b"[" * 100_000,
        b'{"a":' * 100 + b"1" + b"}" * 100,
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "' + b"x" * METADATA_BYTES + b'"}',
    ],
)
def test_documents_that_are_no_documents_are_refused(data):
    address = _image("0.5")
    put_blob(address, "zarr.json", data)
    assert _refused(address)


def test_growing_levels_and_label_names_that_leave_are_refused():
    address = _image("0.4")
    document = json.loads(get_blob(address, ".zattrs"))
    datasets = document["multiscales"][0]["datasets"]
    for level, other in zip(datasets, ("1", "0"), strict=True):
        level["path"] = other
    put_blob(address, ".zattrs", json.dumps(document).encode())
    assert "levels from fine to coarse" in (_refused(address) or "")
    address = _image("0.4")
    put_blob(address, "labels/.zattrs", b'{"labels": ["../0"]}')
    assert "label name" in (_refused(address) or "")
    put_blob(address, "labels/.zattrs", b'{"labels": "cells"}')
    assert "list" in (_refused(address) or "")


@pytest.mark.parametrize("path", ["../A/1", "A/../1", "/A/1", "A\\1", "A/1/2", "A", "B/1", "", "A/\0"])
def test_wells_that_leave_their_plate_are_refused(path):
    plate = {"rows": [{"name": "A"}], "columns": [{"name": "1"}], "version": "0.4"}
    wells = [{"path": path, "rowIndex": 0, "columnIndex": 0}]
    address = f"memory://hostile-{next(_FRESH)}"
    put_blob(address, ".zattrs", json.dumps({"plate": {**plate, "wells": wells}}).encode())
    with pytest.raises(InputError) as caught:
        open_plate(address)
    assert "\n" not in str(caught.value)


def test_a_well_that_is_not_there_is_named_and_fields_that_leave_are_refused():
    wells = [{"path": f"A/{c}", "rowIndex": 0, "columnIndex": 0} for c in (1, 2)]
    plate = {"rows": [{"name": "A"}], "columns": [{"name": "1"}, {"name": "2"}], "version": "0.4", "wells": wells}
    address = f"memory://hostile-{next(_FRESH)}"
    put_blob(address, ".zattrs", json.dumps({"plate": plate}).encode())
    put_blob(address, "A/1/.zattrs", b'{"well": {"images": [{"path": "0"}]}}')
    assert (open_plate(address).missing, open_plate(address).fields[0].address) == (("A02",), f"{address}/A/1/0")
    put_blob(address, "A/1/.zattrs", b'{"well": {"images": [{"path": "../../0"}]}}')
    with pytest.raises(InputError):
        open_plate(address)


def test_a_damaged_chunk_names_array_and_box():
    address = _image("0.5")
    good = get_blob(address, "0/c/0/0/0")
    for bad in (good[:-3], good[:5] + b"\xff" + good[6:], b"", b"\0" * 400):
        put_blob(address, "0/c/0/0/0", bad)
        with pytest.raises(InputError, match=r"0: box \[.*does not decode"):
            read_plane(open_image(address).plane(), Box((0, 0), (2, 2)))
