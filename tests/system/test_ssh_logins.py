"""Logins that a person has to answer: a password, a second factor, also on a host on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
import pytest
import pytest_asyncio

from tunedeck.core.errors import AuthenticationError, ReachError
from tunedeck.core.ssh import open_machine, prompts


class Login(asyncssh.SSHServer):
    """Lets in who knows the password, or the password and then a code."""

    second_factor = False
    connections: ClassVar[list[asyncssh.SSHServerConnection]] = []

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return not self.second_factor

    def validate_password(self, username: str, password: str) -> bool:
        return password == "open sesame"

    def kbdint_auth_supported(self) -> bool:
        return self.second_factor

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "Two questions", "", [("Password: ", False), ("Code: ", True)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        return list(responses) == ["open sesame", "123456"]

    def connection_requested(self, dest_host: str, dest_port: int, *_: Any) -> bool:
        return True


class WithSecondFactor(Login):
    second_factor = True


async def shell(process: asyncssh.SSHServerProcess[bytes]) -> None:
    bash = await asyncio.create_subprocess_exec(
        "bash",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await bash.communicate(await process.stdin.read())
    process.stdout.write(out)
    process.stderr.write(err)
    process.exit(bash.returncode or 0)


class Hosts:
    """Starts login hosts, and knows how a profile reaches them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: list[asyncssh.SSHAcceptor] = []

    async def start(self, login: type[Login]) -> dict[str, Any]:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.create_server(
            login, "127.0.0.1", 0, server_host_keys=[key], process_factory=shell, encoding=None
        )
        self._servers.append(server)
        known = self._folder / "known_hosts"
        public = key.export_public_key().decode()
        with known.open("a") as out:
            out.write(f"[127.0.0.1]:{server.get_port()} {public}")
        where = {"host": "127.0.0.1", "port": server.get_port(), "user": "ada"}
        return {**where, "known_hosts": str(known)}

    async def stop(self) -> None:
        while Login.connections:
            connection = Login.connections.pop()
            connection.abort()
            await connection.wait_closed()
        for server in self._servers:
            server.close()
            await server.wait_closed()


@pytest_asyncio.fixture
async def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hosts]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    started = Hosts(tmp_path)
    yield started
    await started.stop()


class Person:
    """Answers from a list, and remembers what was asked and whether it was to be hidden."""

    present = True

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.hidden: list[str] = []
        self.shown: list[str] = []

    def secret(self, question: str) -> str:
        self.hidden.append(question)
        return self.answers.pop(0)

    def text(self, question: str) -> str:
        self.shown.append(question)
        return self.answers.pop(0)

    def withdraw(self) -> None:
        """Nothing is left to be taken back."""


@pytest.fixture
def person() -> Iterator[Person]:
    before, someone = prompts.prompter(), Person()
    prompts.ask_through(someone)
    yield someone
    prompts.ask_through(before)


class Slow(Person):
    """Takes longer than any host is given."""

    def secret(self, question: str) -> str:
        time.sleep(3)
        return super().secret(question)


async def test_a_person_may_take_longer_than_a_host(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.core.ssh.connect._CONNECT_LIMIT_S", 2.0)
    values = await hosts.start(WithSecondFactor)
    before, someone = prompts.prompter(), Slow()
    someone.answers = ["open sesame", "123456"]
    prompts.ask_through(someone)
    try:
        assert (await open_machine(values, ssh=True).run("true")).code == 0
    finally:
        prompts.ask_through(before)


async def test_a_host_that_stays_silent_is_given_up(
    hosts: Hosts, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.core.ssh.connect._CONNECT_LIMIT_S", 0.5)
    values = await hosts.start(Login)

    open_ones = list[asyncio.StreamWriter]()

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.append(writer)

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ReachError, match="does not answer"):
        await open_machine({**values, "port": port}, ssh=True).run("true")
    for writer in open_ones:
        writer.close()
        await writer.wait_closed()
    server.close()


async def test_a_password_is_asked_for_again_when_it_was_wrong(
    hosts: Hosts, person: Person
) -> None:
    person.answers = ["open says me", "open sesame"]
    values = await hosts.start(Login)
    done = await open_machine(values, ssh=True).run("echo in")
    assert (done.code, done.out) == (0, "in\n")
    assert len(person.hidden) == 2
    assert person.shown == []


async def test_a_person_who_does_not_know_the_password_is_not_asked_for_ever(
    hosts: Hosts, person: Person
) -> None:
    person.answers = ["x"] * 20
    with pytest.raises(AuthenticationError, match="does not let us in"):
        await open_machine(await hosts.start(Login), ssh=True).run("true")
    assert len(person.hidden) == 3


async def test_a_second_factor_is_asked_for_once_a_connection(hosts: Hosts, person: Person) -> None:
    person.answers = ["open sesame", "123456"]
    machine = open_machine(await hosts.start(WithSecondFactor), ssh=True)
    for _ in range(3):
        assert (await machine.run("echo in")).out == "in\n"
    assert ["Password" in question for question in person.hidden] == [True]
    assert ["Code" in question for question in person.shown] == [True]


async def test_hosts_on_the_way_ask_for_their_own(hosts: Hosts, person: Person) -> None:
    gate = await hosts.start(WithSecondFactor)
    values = await hosts.start(Login)
    values["proxy_jump"] = f"{gate['user']}@{gate['host']}:{gate['port']}"
    person.answers = ["open sesame", "123456", "open sesame"]
    assert (await open_machine(values, ssh=True).run("echo through")).out == "through\n"
    assert person.answers == []


@pytest.mark.parametrize(
    ("login", "asks"), [(Login, "password"), (WithSecondFactor, "keyboard-interactive")]
)
async def test_without_a_terminal_it_is_said_what_was_asked_for(
    hosts: Hosts, login: type[Login], asks: str
) -> None:
    with pytest.raises(AuthenticationError, match=f"asks for {asks}; there is no terminal"):
        await open_machine(await hosts.start(login), ssh=True).run("true")
