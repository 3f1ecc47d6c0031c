"""A server that speaks S3, in a process of its own on loopback: what tests of object storage run against.

    def test_something(s3: Bucket) -> None:
        put_blob(f"{s3}/image.zarr", "a", b"1")

`s3` is a fresh bucket, as an address (`s3://test-0123456789ab`). While the test runs, endpoint and credentials are in
the environment, and nowhere else, so processes that it starts have them too.
"""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

__all__ = ["ObjectServer", "s3", "s3_server"]

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "canary-secret-of-the-tests",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
"""What a user of the server has to have; the secret is looked for in messages."""

ABSENT = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3")
"""What of the developer's own must not be there."""


class ObjectServer:
    """A running server; `endpoint` is its address."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.object_store"],
            stdin=subprocess.PIPE,  # the server leaves when this closes, however we end
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def make_bucket(self, name: str = "") -> str:
        """A new bucket; its name. Its rights and its settings are the server's defaults."""
        name = name or f"test-{uuid.uuid4().hex[:12]}"
        urllib.request.urlopen(urllib.request.Request(f"{self.endpoint}/{name}", method="PUT", data=b"")).close()
        return name

    def close(self) -> None:
        self.process.communicate()  # closes its input
        self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectServer]:
    """One server for all tests of a process; starts in about two seconds."""
    pytest.importorskip("moto.server", reason="moto[s3,server] is not installed: pip install 'sketchscale[test]'")
    server = ObjectServer()
    yield server
    server.close()


@pytest.fixture
def s3(s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a new bucket; endpoint and credentials are in the environment of this test."""
    for name in ABSENT:
        monkeypatch.delenv(name, raising=False)
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server.endpoint}.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.make_bucket()}"


def _serve() -> None:
    """Serve until standard input closes.

    Requests are answered one after another: the server's own check of `If-None-Match` is no atomic step.
    """
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    dispatch, turn = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_by_one(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        with turn:
            return [b"".join(dispatch(environ, start_response))]

    server = make_server("127.0.0.1", 0, one_by_one, threaded=True)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
