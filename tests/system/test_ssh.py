from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import Cluster, ssh_keygen
from tunedeck.core.errors import AuthenticationError, ExitCode, ReachError, UsageError
from tunedeck.core.ssh import open_machine, prompts
from tunedeck.core.ssh.machine import Machine
from tunedeck.core.ssh.target import Target


class Person:
    """Sits before the terminal and answers."""

    present = True

    def __init__(self, answer: str) -> None:
        self.answer, self.heard = answer, list[str]()

    def secret(self, question: str) -> str:
        self.heard.append(question)
        return self.answer

    text = secret

    def withdraw(self) -> None:
        """Nothing is left to be taken back."""


@pytest.fixture
def person() -> Iterator[Person]:
    before, someone = prompts.prompter(), Person("yes")
    prompts.ask_through(someone)
    yield someone
    prompts.ask_through(before)


def machine(cluster: Cluster, **changes: Any) -> Machine:
    return open_machine({**cluster.values, **changes}, ssh=True)


async def test_a_script_gives_its_output_and_its_exit_code(cluster: Cluster) -> None:
    done = await machine(cluster).run("echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


async def test_all_that_is_asked_of_a_host_shares_one_connection(cluster: Cluster) -> None:
    asked = [machine(cluster).run("echo $SSH_CONNECTION") for _ in range(20)]
    assert len({done.out for done in await asyncio.gather(*asked)}) == 1


def test_the_connection_outlives_the_loop_that_opened_it(cluster: Cluster) -> None:
    def ask() -> str:
        return asyncio.run(machine(cluster).run("echo $SSH_CONNECTION")).out

    assert ask() == ask()


async def test_a_script_is_in_no_process_list(cluster: Cluster) -> None:
    done = await machine(cluster).run("word=hidden''word; ps -eo args | grep -c [h]iddenword")
    assert done.out.strip() == "0"


async def test_an_unknown_host_key_is_refused_with_the_command_that_adds_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    with pytest.raises(AuthenticationError, match="SHA256:") as refused:
        await machine(cluster, known_hosts=str(known)).run("true")
    assert refused.value.exit_code == ExitCode.AUTHENTICATION
    command = refused.value.fix.rpartition("add it: ")[2]
    subprocess.run(command, shell=True, check=True, capture_output=True)
    assert (await machine(cluster, known_hosts=str(known)).run("true")).code == 0


async def test_a_person_may_trust_an_unknown_key(
    cluster: Cluster, tmp_path: Path, person: Person
) -> None:
    known = tmp_path / "of" / "mine"
    assert (await machine(cluster, known_hosts=str(known)).run("true")).code == 0
    assert "SHA256:" in person.heard[0]
    assert known.read_text().startswith(f"[127.0.0.1]:{cluster.bed.ssh_port} ssh-ed25519 ")


async def test_a_person_may_also_decline(cluster: Cluster, tmp_path: Path, person: Person) -> None:
    person.answer = "no"
    known = tmp_path / "mine"
    with pytest.raises(AuthenticationError, match="not trusted"):
        await machine(cluster, known_hosts=str(known)).run("true")
    assert not known.exists()


async def test_a_changed_host_key_is_refused_with_both_fingerprints(
    cluster: Cluster, tmp_path: Path, person: Person
) -> None:
    ssh_keygen(tmp_path / "other")
    other = (tmp_path / "other.pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{cluster.bed.ssh_port} {other}")
    with pytest.raises(AuthenticationError) as refused:
        await machine(cluster, known_hosts=str(known)).run("true")
    assert str(refused.value).count("SHA256:") == 2
    assert person.heard == []
    assert known.read_text().endswith(other)


async def test_a_key_that_is_not_let_in_is_an_authentication_error(
    cluster: Cluster, tmp_path: Path
) -> None:
    key = ssh_keygen(tmp_path / "stranger")
    with pytest.raises(AuthenticationError, match="does not let us in"):
        await machine(cluster, identity=str(key)).run("true")


async def test_a_key_file_that_is_not_there_is_named(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="/no/such/key"):
        await machine(cluster, identity="/no/such/key").run("true")


async def test_a_port_where_nobody_listens_is_a_connection_error(cluster: Cluster) -> None:
    with pytest.raises(ReachError) as refused:
        await machine(cluster, port=1).run("true")
    assert refused.value.exit_code == ExitCode.CONNECTION


async def test_the_ssh_config_is_honored(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir()
    (folder / "more").write_text(
        f"Host loginnode\n  HostName 127.0.0.1\n  Port {cluster.bed.ssh_port}\n"
        f"  User {cluster.bed.user}\n  IdentityFile {cluster.bed.identity}\n"
        f"  UserKnownHostsFile {cluster.bed.known_hosts}\n"
    )
    (folder / "config").write_text("Include more\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert (await open_machine({"host": "loginnode"}, ssh=True).run("true")).code == 0


async def test_files_are_written_whole_with_their_mode(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "a file"
    data = os.urandom(3_000_000)
    await machine(cluster).write({str(path): (data, 0o600)})
    assert path.read_bytes() == data
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


async def test_any_part_of_a_file_can_be_read(cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "there"
    source.write_bytes(os.urandom(3_000_000))
    shell = machine(cluster)
    assert await shell.read(str(source), 1_234_567, 1 << 22) == source.read_bytes()[1_234_567:]
    assert await shell.read(str(source), 10, 5) == source.read_bytes()[10:15]
    assert await shell.read(str(source), 3_000_000, 1 << 20) == b""
    assert await shell.read(str(tmp_path / "none"), 0, 100) == b""


async def test_a_connection_that_was_lost_is_opened_again(cluster: Cluster) -> None:
    shell = machine(cluster)
    session = int((await shell.run("echo $PPID")).out)
    os.kill(session, signal.SIGKILL)
    await asyncio.sleep(0.5)
    assert (await shell.run("echo again")).out == "again\n"


@pytest.fixture
def gate(cluster: Cluster) -> Iterator[str]:
    cluster.bed.start_gate()
    yield f"{cluster.bed.user}@127.0.0.1:{cluster.bed.gate_port}"
    cluster.bed.stop_daemon("gate")


async def test_a_host_on_the_way_is_asked_for_its_own_key(
    cluster: Cluster, gate: str, tmp_path: Path, person: Person
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(cluster.bed.known_hosts.read_text())
    shell = machine(cluster, known_hosts=str(known), proxy_jump=gate)
    assert (await shell.run("echo here")).out == "here\n"
    assert len(person.heard) == 1
    assert f"[127.0.0.1]:{cluster.bed.gate_port}" in person.heard[0]


async def test_the_way_through_another_host_is_in_the_ssh_config_too(
    cluster: Cluster, gate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".ssh").mkdir()
    known = tmp_path / "known"
    gate_key = (cluster.bed.folder / "gate_key.pub").read_text()
    known.write_text(
        f"{cluster.bed.known_hosts.read_text()}[127.0.0.1]:{cluster.bed.gate_port} {gate_key}"
    )
    (tmp_path / ".ssh" / "config").write_text(
        f"Host inside\n  HostName 127.0.0.1\n  Port {cluster.bed.ssh_port}\n  ProxyJump gate\n"
        f"Host gate\n  HostName 127.0.0.1\n  Port {cluster.bed.gate_port}\n"
        f"Host *\n  User {cluster.bed.user}\n  IdentityFile {cluster.bed.identity}\n"
        f"  UserKnownHostsFile {known}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    shell = open_machine({"host": "inside"}, ssh=True)
    assert (await shell.run("echo through")).out == "through\n"
    cluster.bed.stop_daemon("gate")
    closed = open_machine({"host": "inside", "user": cluster.bed.user}, ssh=True)
    with pytest.raises(ReachError):
        await closed.run("true")


async def test_a_key_may_be_in_an_agent_alone(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        monkeypatch.setenv("HOME", str(tmp_path))
        while not socket.exists():
            await asyncio.sleep(0.05)
        with pytest.raises(AuthenticationError):
            await machine(cluster, identity=None).run("true")
        subprocess.run(["ssh-add", "-q", str(cluster.bed.identity)], check=True)
        assert (await machine(cluster, identity=None).run("echo in")).out == "in\n"
    finally:
        agent.terminate()
        agent.wait()


async def test_host_keys_that_this_machine_vouches_for_are_trusted(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(AuthenticationError, match="not known"):
        await machine(cluster, known_hosts=None).run("true")
    monkeypatch.setattr("tunedeck.core.ssh.config._EVERYBODYS", (cluster.bed.known_hosts,))
    assert (await machine(cluster, known_hosts=None).run("echo known")).out == "known\n"


async def test_a_host_out_of_reach_is_not_hammered(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    async def count(target: Target) -> None:
        tried.append(target)
        raise ReachError("nobody there")

    monkeypatch.setattr("tunedeck.core.ssh.remote.connect", count)
    asked = [machine(cluster, port=2).run("true") for _ in range(20)]
    refused = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(error, ReachError) for error in refused)
    assert len(tried) < 5


async def test_a_folder_of_links_arrives_as_what_they_point_to(
    cluster: Cluster, tmp_path: Path
) -> None:
    blob, folder = tmp_path / "blob", tmp_path / "snapshot"
    blob.write_text("weights")
    folder.mkdir()
    (folder / "model").symlink_to("../blob")
    (tmp_path / "latest").symlink_to("snapshot")
    (tmp_path / "there").mkdir()
    (folder / "more").write_bytes(bytes(300_000))
    target, told = str(tmp_path / "there" / "sent"), list[int]()
    await machine(cluster).send(tmp_path / "latest", target, told.append)
    assert told == sorted(told)
    assert told[-1] == len("weights") + 300_000
    assert (tmp_path / "there" / "sent" / "model").read_text() == "weights"
    assert not (tmp_path / "there" / "sent" / "model").is_symlink()
