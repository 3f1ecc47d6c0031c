"""The error tree where it leaves its process."""

from __future__ import annotations

import pickle

import pytest
from distributed.core import clean_exception, error_message

from sketchscale import errors
from sketchscale.errors import SketchscaleError

TREE = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SketchscaleError)),
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: str(kind.__name__))
def test_an_error_of_a_worker_arrives_as_what_it_is(kind: type[SketchscaleError]) -> None:
    error = kind("s3://bucket/key: a reason; to fix: this")
    error.__cause__ = TimeoutError("no answer")
    with pytest.raises(kind) as raised:
        raise error
    sent = error_message(raised.value)
    arrived = clean_exception(sent["exception"].data, sent["traceback"].data)[1]
    for copy in (arrived, pickle.loads(pickle.dumps(error))):
        assert type(copy) is kind
        assert (str(copy), copy.args) == (str(error), error.args)
    assert isinstance(arrived.__cause__, TimeoutError)
