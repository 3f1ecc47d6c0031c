"""Azure's own emulator, where npm has brought it: `npm install azurite`, and its `azurite-blob` on the PATH."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import http.client
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

__all__ = ["azure"]

_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every emulator, as its manual prints it; no secret."""


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a new container."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite is absent: npm install azurite, and put node_modules/.bin on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            assert server.stdout is not None
            found = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)", line) for line in server.stdout)))
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", _ACCOUNT)
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", _KEY)
            monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{found[1]}/{_ACCOUNT}")
            _make_container("test", int(found[1]))
            yield "az://test"
        finally:
            server.terminate()
            server.communicate(timeout=20)


def _make_container(name: str, port: int) -> None:
    """A signed request, because obstore makes no containers."""
    date = email.utils.formatdate(usegmt=True)
    head = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\n{head}/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    signed = base64.b64encode(hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()).decode()
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {_ACCOUNT}:{signed}"}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{_ACCOUNT}/{name}?restype=container", headers={**headers, "Content-Length": "0"})
    assert connection.getresponse().status == 201
    connection.close()
