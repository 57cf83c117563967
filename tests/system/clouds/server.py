"""A service on loopback that speaks HTTP/1.1 as a real one does, and goes wrong on demand.

A fake is a `FakeService` with routes. It keeps every request it was sent, so that a test can hold
what a client really sends against what it previewed.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Handler = Callable[["Request"], "Reply"]


@dataclass(slots=True)
class Request:
    """One request as it came.

    Attributes:
        method, path: of HTTP; the path is as sent, without the query.
        query: the query's pairs in their order.
        headers: by their names in lower case.
        body: its bytes.
        found: what the route's pattern found in the path, by name.
        reply: the status that it was answered with, once it was.
    """

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes
    found: dict[str, str] = field(default_factory=dict)
    reply: int | None = None

    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    def option(self, name: str) -> str | None:
        """The first value of a query's name."""
        return next((value for key, value in self.query if key == name), None)

    def options(self, name: str) -> list[str]:
        """All values of a query's name."""
        return [value for key, value in self.query if key == name]

    @property
    def token(self) -> str:
        """The bearer token; empty without one."""
        return self.headers.get("authorization", "").removeprefix("Bearer ").strip()


@dataclass(slots=True)
class Reply:
    """An answer: JSON in one piece, or `stream`, sent piece by piece in chunks."""

    status: int = 200
    data: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None
    type: str = "application/json"


class Refused(Exception):
    """What the real service would refuse; raised by a handler."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(slots=True)
class Fault:
    """Something that goes wrong with the next requests that fit.

    Attributes:
        method, path: of the requests; the path is a pattern that must be found in it.
        times: how often it goes wrong; it is over after that.
        skip: how many requests that fit go well first.
        status, headers: answer with these, and do nothing.
        lost: do what is asked, and cut the connection before the answer.
        delay_s: do what is asked, and answer that much later.
        text: do what is asked, and answer with this instead of JSON.
        data: do what is asked, and answer with this JSON.
        cut_after: cut the answer after so many bytes, of a stream in the middle of a chunk.
        twice: send each piece of a stream twice.
    """

    method: str
    path: str
    times: int = 1
    skip: int = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    lost: bool = False
    delay_s: float = 0
    text: str | None = None
    data: Any = None
    cut_after: int | None = None
    twice: bool = False

    def fits(self, request: Request) -> bool:
        """Whether it is this request's turn; counts it."""
        if request.method != self.method or not re.search(self.path, request.path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times <= 0:
            return False
        self.times -= 1
        return True


class FakeService:
    """Serves `routes` on a free port of loopback.

    Attributes:
        url: its address.
        requests: all that it was sent, in order.
        faults: what goes wrong next.
        errors: what its own code failed of; a test ends by looking that there is none.
        skew_s: how far its clock, as the header Date tells it, is ahead.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.errors: list[str] = []
        self.skew_s = 0.0
        self.lock = threading.RLock()
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        service = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is no error of the service's."""

        class Talk(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def date_time_string(self, timestamp: float | None = None) -> str:
                moment = time.time() if timestamp is None else timestamp
                return super().date_time_string(int(moment + service.skew_s))

            def log_message(self, format: str, *args: Any) -> None:
                """Says nothing."""

        def serve(talk: BaseHTTPRequestHandler) -> None:
            self._serve(talk)

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
            setattr(Talk, f"do_{method}", serve)
        self._server = Server(("127.0.0.1", 0), Talk)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def route(self, method: str, pattern: str, handler: Handler) -> None:
        """Answer a method on the paths that fit a pattern; `{name}` stands for one part."""
        named = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
        self._routes.append((method, re.compile(named), handler))

    def start(self) -> None:
        """Begin to serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str, **what: Any) -> Fault:
        """Have something go wrong."""
        added = Fault(method, path, **what)
        with self.lock:
            self.faults.append(added)
        return added

    def sent(self, method: str, path: str) -> list[Request]:
        """The requests of a method whose path a pattern is found in."""
        with self.lock:
            return [r for r in self.requests if r.method == method and re.search(path, r.path)]

    def _serve(self, talk: BaseHTTPRequestHandler) -> None:
        request = _read(talk)
        with self.lock:
            self.requests.append(request)
            fault = next((fault for fault in self.faults if fault.fits(request)), None)
        if fault and fault.status is not None:
            reply = Reply(fault.status, {"error": "injected"}, dict(fault.headers))
        else:
            reply = self._act(request)
        request.reply = reply.status
        if fault and fault.delay_s:
            time.sleep(fault.delay_s)
        if fault and fault.lost:
            _cut(talk)
            return
        if fault and fault.data is not None:
            reply.data = fault.data
        with contextlib.suppress(OSError):
            _answer(talk, reply, fault)

    def _act(self, request: Request) -> Reply:
        methods = []
        for method, pattern, handler in self._routes:
            if match := pattern.fullmatch(request.path):
                methods.append(method)
                if method == request.method:
                    request.found = match.groupdict()
                    return self._guarded(handler, request)
        if methods:
            return Reply(405, {"error": "Method Not Allowed"})
        return Reply(404, {"error": f"Sorry, we can't find {request.path}"})

    def _guarded(self, handler: Handler, request: Request) -> Reply:
        try:
            return handler(request)
        except Refused as refused:
            return Reply(refused.status, {"error": str(refused)}, refused.headers)
        except Exception as error:  # noqa: BLE001 - told by `errors`
            self.errors.append(f"{request.method} {request.path}: {error!r}")
            return Reply(500, {"error": "Internal Error"})


def _read(talk: BaseHTTPRequestHandler) -> Request:
    parts = urlsplit(talk.path)
    headers = {name.lower(): value for name, value in talk.headers.items()}
    if headers.get("transfer-encoding") == "chunked":
        body = b"".join(_chunks(talk))
    else:
        body = talk.rfile.read(int(headers.get("content-length", 0)))
    query = parse_qsl(parts.query, keep_blank_values=True)
    return Request(talk.command, parts.path, query, headers, body)


def _chunks(talk: BaseHTTPRequestHandler) -> Iterator[bytes]:
    while size := int(talk.rfile.readline().partition(b";")[0], 16):
        yield talk.rfile.read(size)
        talk.rfile.readline()
    talk.rfile.readline()


def _answer(talk: BaseHTTPRequestHandler, reply: Reply, fault: Fault | None) -> None:
    talk.send_response(reply.status)
    for name, value in reply.headers.items():
        talk.send_header(name, value)
    if reply.stream is not None:
        talk.send_header("Content-Type", reply.type)
        talk.send_header("Transfer-Encoding", "chunked")
        talk.end_headers()
        _send_chunks(talk, reply.stream, fault)
        return
    data = b"" if reply.data is None else json.dumps(reply.data).encode()
    if fault and fault.text is not None:
        data = fault.text.encode()
    talk.send_header("Content-Type", reply.type)
    if "Content-Length" not in reply.headers:
        talk.send_header("Content-Length", str(len(data)))
    talk.end_headers()
    if talk.command != "HEAD":
        left = None if fault is None else fault.cut_after
        talk.wfile.write(data[:left])
        if left is not None and left < len(data):
            _cut(talk)


def _send_chunks(
    talk: BaseHTTPRequestHandler, pieces: Iterable[bytes], fault: Fault | None
) -> None:
    left = fault.cut_after if fault else None
    for piece in pieces:
        for _ in range(2 if fault and fault.twice else 1):
            whole = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
            if left is not None and len(piece) >= left:
                talk.wfile.write(whole[: -2 - len(piece) + left])
                _cut(talk)
                return
            talk.wfile.write(whole)
            talk.wfile.flush()
            left = None if left is None else left - len(piece)
    talk.wfile.write(b"0\r\n\r\n")


def _cut(talk: BaseHTTPRequestHandler) -> None:
    """End the connection without a word."""
    talk.close_connection = True
    with contextlib.suppress(OSError):
        talk.wfile.flush()
        talk.connection.shutdown(socket.SHUT_RDWR)
