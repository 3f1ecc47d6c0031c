"""A proxy between client and server that breaks what it is told to break."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = [
    "FAULTS",
    "Answer",
    "Exchange",
    "Proxy",
    "Rule",
    "StaleList",
    "ignores_conditions",
    "refuses_conditions",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response of the server."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Exchange:
    """One request under way: what a fault may do with it."""

    def __init__(self, handler: BaseHTTPRequestHandler, proxy: Proxy) -> None:
        self.handler, self.proxy = handler, proxy
        self.method, self.path = handler.command, handler.path
        self.body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))

    def forward(self, body: bytes | None = None) -> Answer:
        """What the server says."""
        body = self.body if body is None else body
        headers = {k: v for k, v in self.handler.headers.items() if k.lower() not in ("content-length", "connection")}
        connection = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=20)
        connection.request(self.method, self.path, body, {**headers, "Content-Length": str(len(body))})
        response = connection.getresponse()
        answer = Answer(status=response.status, headers=dict(response.getheaders()), body=response.read())
        connection.close()
        return answer

    def reply(self, answer: Answer, *, sent: int | None = None) -> None:
        """Answer the client; only so many bytes of the body, where `sent` says so."""
        length = answer.headers.get("Content-Length", "0") if self.method == "HEAD" else str(len(answer.body))
        handler = self.handler
        handler.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", length)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(answer.body if sent is None else answer.body[:sent])
        handler.wfile.flush()

    def fail(self, status: int, code: str) -> None:
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>said the proxy</Message></Error>'
        self.reply(Answer(status=status, headers={"Content-Type": "application/xml"}, body=body.encode()))

    def reset(self) -> None:
        self.handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def hang(self) -> None:
        self.proxy.closing.wait(60)
        self.reset()


@dataclass(slots=True)
class Rule:
    """Break requests of a method whose path matches: after `skip` of them, so many `times` (None: for ever)."""

    method: str
    pattern: str
    fault: Callable[[Exchange], None]
    times: int | None = None
    skip: int = 0
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        if method != self.method or not re.search(self.pattern, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


class Proxy(ThreadingHTTPServer):
    """Listens on loopback; passes on what `rule` does not take."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.rule = upstream, Rule(method="", pattern="", fault=_pass_on, times=0)
        self.turn, self.closing = threading.Lock(), threading.Event()
        self.log: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def shutdown_request(self, request: Any) -> None:
        request.close()  # without the polite end that the base class makes: a reset must look like one

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients leave when they like."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _answer(self) -> None:
        exchange = Exchange(self, self.server)
        with self.server.turn:
            self.server.log.append(f"{exchange.method} {exchange.path}")
            taken = self.server.rule.takes(exchange.method, exchange.path)
            fault = self.server.rule.fault if taken else _pass_on
        fault(exchange)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


def _pass_on(exchange: Exchange) -> None:
    exchange.reply(exchange.forward())


def _slow_down(exchange: Exchange) -> None:
    exchange.fail(503, "SlowDown")


def _internal(exchange: Exchange) -> None:
    exchange.fail(500, "InternalError")


def _reset(exchange: Exchange) -> None:
    exchange.reset()


def _reset_mid_body(exchange: Exchange) -> None:
    """A write is stored, and the connection is gone before its answer."""
    answer = exchange.forward()
    if exchange.method != "PUT":
        exchange.reply(answer, sent=len(answer.body) // 2)
    exchange.reset()


def _short(exchange: Exchange) -> None:
    """Fewer bytes than the length says."""
    answer = exchange.forward()
    if exchange.method == "PUT":
        answer = Answer(status=answer.status, headers=answer.headers, body=b"0123456789")
    exchange.reply(answer, sent=len(answer.body) // 2)


def _shortened(exchange: Exchange) -> None:
    """Fewer bytes than were stored, with a length that fits; of a write only half is stored."""
    if exchange.method == "PUT":
        exchange.reply(exchange.forward(exchange.body[: len(exchange.body) // 2]))
        return
    answer = exchange.forward()
    half = answer.body[: len(answer.body) // 2]
    headers = {k: v for k, v in answer.headers.items() if k.lower() != "content-range"}
    exchange.reply(Answer(status=answer.status, headers=headers, body=half))


def _empty(exchange: Exchange) -> None:
    exchange.reply(Answer(status=200, headers={"Last-Modified": "Sat, 01 Jan 2022 00:00:00 GMT"}))


def _xml_error(exchange: Exchange) -> None:
    exchange.fail(200, "InternalError")


def _hang_on_body(exchange: Exchange) -> None:
    answer = exchange.forward()
    if exchange.method != "PUT":
        exchange.reply(answer, sent=0)
    exchange.hang()


def _hang(exchange: Exchange) -> None:
    exchange.hang()


def _absent(exchange: Exchange) -> None:
    exchange.fail(404, "NoSuchKey")


def _no_bucket(exchange: Exchange) -> None:
    exchange.fail(404, "NoSuchBucket")


def _forbidden(exchange: Exchange) -> None:
    exchange.fail(403, "AccessDenied")


def _expired(exchange: Exchange) -> None:
    exchange.fail(400, "ExpiredToken")


def _lost(exchange: Exchange) -> None:
    exchange.reply(Answer(status=200, headers={"ETag": '"0123456789abcdef0123456789abcdef"'}))


def _stored_then_503(exchange: Exchange) -> None:
    exchange.forward()
    exchange.fail(503, "SlowDown")


def _twice(exchange: Exchange) -> None:
    exchange.forward()
    exchange.reply(exchange.forward())


def ignores_conditions(exchange: Exchange) -> None:
    """A server that does not know conditional PUTs, and does not say so."""
    for name in ("If-None-Match", "If-Match"):
        del exchange.handler.headers[name]
    exchange.reply(exchange.forward())


def refuses_conditions(exchange: Exchange) -> None:
    """A server that does not know conditional PUTs, and says so."""
    if "If-None-Match" in exchange.handler.headers or "If-Match" in exchange.handler.headers:
        exchange.fail(501, "NotImplemented")
    else:
        exchange.reply(exchange.forward())


class StaleList:
    """The first listing of all, again and again."""

    def __init__(self) -> None:
        self.first: Answer | None = None

    def __call__(self, exchange: Exchange) -> None:
        self.first = self.first or exchange.forward()
        exchange.reply(self.first)


FAULTS: dict[str, tuple[Callable[[Exchange], None], int | None]] = {
    "503 burst": (_slow_down, 3),
    "503 for ever": (_slow_down, None),
    "500": (_internal, 2),
    "connection reset": (_reset, 2),
    "reset mid body": (_reset_mid_body, 2),
    "truncated, right length": (_short, 2),
    "truncated, wrong length": (_shortened, 1),
    "empty 200": (_empty, 1),
    "XML error with 200": (_xml_error, 1),
    "hang on body": (_hang_on_body, 1),
    "hang on connect": (_hang, None),
    "404 once": (_absent, 1),
    "404 for ever": (_absent, None),
    "NoSuchBucket": (_no_bucket, None),
    "403 in mid-run": (_forbidden, None),
    "expired token": (_expired, None),
    "lost PUT": (_lost, 1),
    "PUT stored then 503": (_stored_then_503, 1),
    "duplicate PUT": (_twice, None),
}
"""Name of a fault: what it does, and how often (None: for ever)."""
