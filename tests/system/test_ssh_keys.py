"""Private keys with a passphrase: asked for once, and never where nobody is to be asked."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import asyncssh
import pytest

from tests.system.test_ssh_logins import Hosts, Login, Person, hosts, person
from tunedeck.core.errors import AuthenticationError, UsageError
from tunedeck.core.ssh import keys, open_machine

__all__ = ["hosts", "person"]

PASSPHRASE = "correct horse"
needs_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
pytestmark = needs_keygen


class WithKey(Login):
    """Lets in who holds one of some keys; whoever does not may know the password."""

    accepted: ClassVar[set[bytes]] = set()

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return key.public_data in self.accepted


def make_key(file: Path, passphrase: str = PASSPHRASE, form: str = "RFC4716") -> Path:
    """A key as ssh-keygen makes it, which the host lets in."""
    kind = "rsa" if form == "PEM" else "ed25519"
    file.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-m", form, "-N", passphrase, "-f", file], check=True
    )
    WithKey.accepted.add(asyncssh.read_public_key(f"{file}.pub").public_data)
    return file


@pytest.fixture(autouse=True)
def no_key_is_open() -> Iterator[None]:
    keys._opened.clear()
    yield
    keys._opened.clear()
    WithKey.accepted.clear()


@pytest.mark.parametrize("form", ["RFC4716", "PEM", "PKCS8"])
async def test_the_passphrase_of_the_profile_s_key_is_asked_for_once(
    hosts: Hosts, person: Person, tmp_path: Path, form: str
) -> None:
    file = make_key(tmp_path / "key", form=form)
    Path(f"{file}.pub").unlink()
    values = {**await hosts.start(WithKey), "identity": str(file)}
    person.answers = ["wrong", PASSPHRASE]
    assert (await open_machine(values, ssh=True).run("echo in")).out == "in\n"
    assert "Passphrase of" in person.hidden[0]
    assert "not right" in person.hidden[1]
    other = {**await hosts.start(WithKey), "identity": str(file)}
    assert (await open_machine(other, ssh=True).run("echo in")).out == "in\n"
    assert len(person.hidden) == 2
    assert PASSPHRASE not in repr(keys._opened)


async def test_one_who_does_not_know_it_is_asked_three_times(
    hosts: Hosts, person: Person, tmp_path: Path
) -> None:
    person.answers = ["x"] * 9
    values = {**await hosts.start(WithKey), "identity": str(make_key(tmp_path / "key"))}
    with pytest.raises(AuthenticationError, match="was wrong 3 times"):
        await open_machine(values, ssh=True).run("true")
    assert len(person.hidden) == 3


async def test_without_a_terminal_the_key_is_named_and_how_to_load_it(
    hosts: Hosts, tmp_path: Path
) -> None:
    file = make_key(tmp_path / "key")
    values = {**await hosts.start(WithKey), "identity": str(file)}
    with pytest.raises(AuthenticationError, match="has a passphrase, and there is no") as told:
        await open_machine(values, ssh=True).run("true")
    assert f"ssh-add {file}" in told.value.fix


async def test_a_usual_key_that_is_locked_is_asked_for_before_a_password(
    hosts: Hosts, person: Person, tmp_path: Path
) -> None:
    make_key(tmp_path / ".ssh" / "id_ed25519")
    person.answers = [PASSPHRASE]
    values = await hosts.start(WithKey)
    assert (await open_machine(values, ssh=True).run("echo in")).out == "in\n"
    again = await hosts.start(WithKey)
    assert (await open_machine(again, ssh=True).run("echo in")).out == "in\n"
    assert ["Passphrase" in question for question in person.hidden] == [True]


async def test_without_a_terminal_it_is_said_that_a_usual_key_is_locked(
    hosts: Hosts, tmp_path: Path
) -> None:
    file = make_key(tmp_path / ".ssh" / "id_ed25519")
    values = await hosts.start(WithKey)
    with pytest.raises(AuthenticationError, match=f"{file} has a passphrase"):
        await open_machine(values, ssh=True).run("true")


def _talks_with(socket: Path) -> int:
    """How many connections to a listening Unix socket are open."""
    known = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(f" {socket}") for line in known) - 1


@pytest.mark.skipif(not shutil.which("ssh-agent"), reason="needs ssh-agent")
async def test_a_key_that_the_agent_holds_needs_no_passphrase(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_key(tmp_path / "key", "")
    socket = tmp_path / "agent"
    told = subprocess.run(
        ["ssh-agent", "-s", "-a", socket], capture_output=True, text=True, check=True
    ).stdout
    pid = int(told.partition("SSH_AGENT_PID=")[2].partition(";")[0])
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        subprocess.run(["ssh-add", "-q", file], check=True, env={**os.environ})
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", PASSPHRASE, "-f", file], check=True)
        values = {**await hosts.start(WithKey), "identity": str(file)}
        assert (await open_machine(values, ssh=True).run("echo in")).out == "in\n"
        for _ in range(100):
            if (talks := _talks_with(socket)) == 0:
                break
            await asyncio.sleep(0.05)
        assert talks == 0
    finally:
        os.kill(pid, signal.SIGTERM)


async def test_a_file_that_holds_no_private_key_is_named(hosts: Hosts, tmp_path: Path) -> None:
    file = make_key(tmp_path / "key")
    values = {**await hosts.start(WithKey), "identity": f"{file}.pub"}
    with pytest.raises(UsageError, match=r"key\.pub cannot be used"):
        await open_machine(values, ssh=True).run("true")
