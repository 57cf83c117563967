"""When a service is asked again, what its refusals mean, and reading streams to their end."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.system.clouds.certificate import make_certificate
from tunedeck.core.backends.base import LogLine
from tunedeck.core.backends.cloud import follow as follow_module
from tunedeck.core.backends.cloud import http, once, retry
from tunedeck.core.backends.cloud.errors import Passing, Taken, refusal
from tunedeck.core.backends.cloud.follow import follow
from tunedeck.core.backends.cloud.http import Service
from tunedeck.core.backends.cloud.retry import persist, retry_after
from tunedeck.core.backends.ending import code_of_nodes, exit_code_in, with_exit_code
from tunedeck.core.errors import AuthenticationError, ExitCode, UsageError
from tunedeck.core.states import RunState, Status


async def _no_headers() -> Mapping[str, str]:
    return {}


@contextmanager
def serving(chain: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """A service behind TLS that answers `{}`; its address, and how often it was connected to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    count = 0
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            nonlocal count
            with suppress(OSError):  # the listener is closed
                while True:
                    plain, _ = listener.accept()
                    count += 1
                    with suppress(OSError), context.wrap_socket(plain, server_side=True) as secure:
                        secure.recv(65536)
                        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", lambda: count
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy but that of the test, and nothing that goes round it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def fresh_certificates() -> Iterator[None]:
    """What one test's environment names is no other's."""
    http.tls.cache_clear()
    yield
    http.tls.cache_clear()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES_S", (0, 0))
    monkeypatch.setattr(once, "LOOKS_S", (0, 0))
    monkeypatch.setattr(follow_module, "REOPEN_S", (0, 0, 0))
    monkeypatch.setattr(follow_module, "LOOK_S", 0.05)
    monkeypatch.setattr(follow_module, "QUIET_S", 0.05)
    monkeypatch.setattr(follow_module, "CLOSING_LOOK_S", 0.01)


@pytest.mark.parametrize(
    ("address", "settings", "named"),
    [
        ("gateway.example", {}, "https://"),
        ("http://127.0.0.1:1", {"HTTP_PROXY": "nonsense://1"}, "HTTP_PROXY"),
        ("http://127.0.0.1:1", {"ALL_PROXY": "socks5://127.0.0.1:1"}, "socksio"),
        ("https://127.0.0.1:1", {"SSL_CERT_FILE": "/nowhere.pem"}, "SSL_CERT_FILE"),
        ("https://127.0.0.1:1", {"SSL_CERT_FILE": __file__}, "SSL_CERT_FILE"),
    ],
)
@pytest.mark.usefixtures("proxied")
async def test_an_environment_that_nothing_can_be_asked_in_is_told_by_what_to_change(
    monkeypatch: pytest.MonkeyPatch, address: str, settings: dict[str, str], named: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    http.tls.cache_clear()
    with pytest.raises(UsageError) as refused:
        await Service("It", address, _no_headers, "").call("GET", "/")
    assert named in refused.value.fix


@pytest.mark.usefixtures("proxied")
async def test_a_dead_proxy_is_told_from_a_dead_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter2@127.0.0.1:1")
    with pytest.raises(Passing) as refused:
        await Service("It", "http://127.0.0.1:2", _no_headers, "").call("GET", "/")
    assert "the proxy in HTTP_PROXY" in refused.value.fix
    assert "hunter2" not in f"{refused.value} {refused.value.fix}"


async def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, chain = make_certificate(tmp_path)
    with serving(chain) as (url, asked):
        with pytest.raises(AuthenticationError, match="not trusted") as refused:
            await Service("It", url, _no_headers, "").call("GET", "/")
        assert "SSL_CERT_FILE" in refused.value.fix
        assert asked() == 1
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        http.tls.cache_clear()
        assert await Service("It", url, _no_headers, "").call("GET", "/") == {}


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, ExitCode.USAGE),
        (401, ExitCode.AUTHENTICATION),
        (402, ExitCode.AUTHENTICATION),
        (403, ExitCode.AUTHENTICATION),
        (404, ExitCode.NOT_FOUND),
        (422, ExitCode.USAGE),
        (429, ExitCode.CONNECTION),
        (500, ExitCode.CONNECTION),
        (503, ExitCode.CONNECTION),
    ],
)
def test_each_refusal_has_its_exit_code(status: int, code: ExitCode) -> None:
    assert refusal("It", status, "no", sign_in="sign in").exit_code is code


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ('{"error": {"message": "no such shape"}}', "no such shape"),
        ('{"code": 400, "message": "Bad request", "details": "image: required"}',
         "Bad request; image: required"),
        ('{"message": "taken", "details": "taken"}', "taken"),
        ('{"detail": [{"loc": ["body", "spec"], "msg": "Field required", "type": "missing"}]}',
         "body.spec: Field required"),
        ('{"loc": "eu", "msg": "no room"}', "no room"),
        ('{"errors": [{"path": "spec.args"}, "too long"]}', "spec.args; too long"),
        ('"no"', "no"),
        ("[]", "without a reason"),
    ],
)  # fmt: skip
def test_a_refusal_tells_all_that_the_service_says(answer: str, said: str) -> None:
    assert str(refusal("It", 422, answer, sign_in="")) == f"It answered 422: {said}"


@pytest.mark.parametrize(
    ("after_s", "when"),
    [(None, "a few minutes"), (0.0, "a few minutes"), (30.0, "1 minute"), (3601.0, "61 minutes")],
)
def test_a_service_that_is_busy_is_asked_again_when_it_says(
    after_s: float | None, when: str
) -> None:
    error = refusal("It", 429, "busy", sign_in="", after_s=after_s)
    assert error.fix == f"Try again in {when}."


def test_a_refusal_shows_no_secret_and_no_control_character() -> None:
    token = "hf_" + "a1B2" * 9
    error = refusal("It", 401, f"bad token {token}\x1b[2J" + "x" * 1000, sign_in="")
    assert token not in str(error)
    assert "\x1b" not in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize("status", [404, 410, 429, 500, 502, 503, 504])
def test_a_page_for_people_is_told_by_its_title_and_says_nothing_of_what_there_is(
    status: int,
) -> None:
    style = "<style>body { color: red }</style>"
    page = f"<!DOCTYPE html><html><head>{style}<title>Bad &amp; gone</title></head><p>x</p></html>"
    error = refusal("It", status, page, sign_in="")
    assert isinstance(error, Passing)
    assert str(error) == f"It answered {status}: Bad & gone"
    untitled = refusal("It", status, f"<html>{style}<h1>Upstream</h1> is away</html>", sign_in="")
    assert str(untitled) == f"It answered {status}: Upstream is away"


@pytest.mark.parametrize(
    ("acted", "safe", "tries"), [(False, False, 3), (True, True, 3), (True, False, 1)]
)
async def test_what_may_have_been_done_is_done_again_only_where_that_is_safe(
    acted: bool, safe: bool, tries: int
) -> None:
    tried = 0

    async def attempt() -> None:
        nonlocal tried
        tried += 1
        raise Passing("no", acted=acted)

    with pytest.raises(Passing):
        await persist(attempt, safe=safe)
    assert tried == tries


async def test_a_service_that_asks_for_an_hour_is_not_waited_for() -> None:
    async def attempt() -> None:
        raise Passing("no", acted=False, after_s=3600)

    with pytest.raises(Passing):
        await asyncio.wait_for(persist(attempt, safe=True), 5)


def test_retry_after_is_read_by_the_service_s_own_clock() -> None:
    ahead = 1_900_000_000.0
    date, after = formatdate(ahead, usegmt=True), formatdate(ahead + 7, usegmt=True)
    assert retry_after({"retry-after": "12"}) == 12
    assert retry_after({"retry-after": after, "date": date}) == 7
    assert retry_after({"retry-after": "tomorrow"}) is None
    assert retry_after({}) is None


async def test_a_submission_whose_answer_is_lost_is_looked_for_before_it_is_sent_again() -> None:
    from tunedeck.core.backends.base import Handle

    handle, sent, looked = Handle("r", "1", {}), 0, 0

    async def find() -> Handle | None:
        nonlocal looked
        looked += 1
        return handle if looked == 3 else None  # the list lags behind

    async def send() -> Handle:
        nonlocal sent
        sent += 1
        raise Passing("cut", acted=True)

    assert await once.submit_once(find, send) is handle
    assert sent == 1


async def test_a_submission_that_never_arrived_is_sent_again() -> None:
    from tunedeck.core.backends.base import Handle

    sent = 0

    async def find() -> Handle | None:
        return None

    async def send() -> Handle:
        nonlocal sent
        sent += 1
        if sent < 3:
            raise Passing("cut", acted=True)
        return Handle("r", "1", {})

    assert (await once.submit_once(find, send)).job_id == "1"


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([Taken("the name is taken")], Taken),
        ([Passing("cut", acted=True), Taken("it is")], Passing),
    ],
)
async def test_a_name_that_is_taken_is_a_refusal_unless_it_may_be_by_us(
    answers: list[Exception], expected: type[Exception]
) -> None:
    from tunedeck.core.backends.base import Handle

    async def find() -> Handle | None:
        return None

    async def send() -> Handle:
        raise answers.pop(0)

    with pytest.raises(expected):
        await once.submit_once(find, send)


class Log:
    """A service's log: every stream begins right after the cursor, and does what a plan says."""

    def __init__(self, lines: list[bytes], *streams: str) -> None:
        self.lines = lines
        self.streams = list(streams)
        self.opened = 0
        self.over = False

    async def open(self, cursor: str | None) -> AsyncGenerator[LogLine]:
        how = self.streams[min(self.opened, len(self.streams) - 1)]
        self.opened += 1
        begin = int(cursor or 0)
        stop = len(self.lines) if how in ("all", "stuck") else begin + 2
        for number, line in enumerate(self.lines[begin:stop], begin + 1):
            yield LogLine(line, str(number))
        if how == "cut":
            raise Passing("cut", acted=True)
        if how == "stuck":
            self.over = True
            await asyncio.sleep(3600)
        if how == "all":
            self.over = True

    async def ended(self) -> bool:
        return self.over


@pytest.mark.parametrize(
    "streams",
    [("all",), ("cut", "cut", "cut", "all"), ("ends", "cut", "ends", "all"), ("stuck",)],
)
@pytest.mark.parametrize("last", [b"tunedeck: exit=0", b"the service ended it"])
async def test_each_line_is_told_once_over_streams_that_break_or_forget_to_end(
    streams: tuple[str, ...], last: bytes
) -> None:
    lines = [b"one", b"two", b"", b"two", b"five", b"six", b"seven", last]
    log = Log(lines, *streams)
    told = follow(log.open, None, log.ended, wait=True)
    assert [entry.line async for entry in told] == lines
    log.over = True
    rest = follow(log.open, "6", log.ended, wait=True)
    assert [entry.line async for entry in rest] == lines[6:]


async def test_streams_that_only_break_are_given_up() -> None:
    log = Log([], "cut")
    with pytest.raises(Passing):
        [entry async for entry in follow(log.open, None, log.ended, wait=True)]


async def test_leaving_a_log_closes_its_stream() -> None:
    closed = asyncio.Event()

    async def endless(_cursor: str | None) -> AsyncGenerator[LogLine]:
        try:
            while True:
                yield LogLine(b"line", "1")
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def no() -> bool:
        return False

    told = follow(endless, None, no, wait=True)
    await anext(told)
    await told.aclose()
    assert closed.is_set()


def test_the_last_word_tells_what_the_service_does_not() -> None:
    assert exit_code_in([b"tunedeck: exit=1", b"x", b"tunedeck: exit=75", b"said: exit=3"]) == 75
    assert exit_code_in([b"nothing"]) is None
    failed = Status(RunState.FAILED, "ERROR", "it failed")
    assert with_exit_code(failed, 75).state is RunState.PREEMPTED
    assert with_exit_code(failed, 137).reason == "killed by signal 9; it failed"
    assert with_exit_code(failed, None) is failed
    assert with_exit_code(Status(RunState.CANCELLED), 1).state is RunState.CANCELLED


def test_of_several_nodes_the_one_that_failed_of_itself_tells_the_code() -> None:
    """Those that it took along were ended by a signal, or have not said anything."""
    assert code_of_nodes([143, None, 3, 137]) == 3
    assert code_of_nodes([0, None, 143]) == 143
    assert code_of_nodes([0, None]) == 0
    assert code_of_nodes([None]) is None


async def test_what_was_given_up_within_a_request_is_not_tried_again_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "PAUSES_S", (0.0,) * 3)
    tries = 0

    async def token() -> None:
        nonlocal tries
        tries += 1
        raise Passing("away", acted=False)

    async def request() -> None:
        await retry.persist(token, safe=True)

    with pytest.raises(Passing):
        await retry.persist(request, safe=True)
    assert tries == 4


async def test_in_haste_it_is_tried_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES_S", (0.0,) * 5)
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        raise Passing("away", acted=False)

    with retry.haste(), pytest.raises(Passing):
        await retry.persist(attempt, safe=True)
    assert tries == 3
