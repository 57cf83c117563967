"""Login shells as sites and people have them: they talk, ask, let nobody in, or hang."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Cluster, ssh_keygen
from tunedeck.core.backends.slurm.shell import run_slurm
from tunedeck.core.errors import ReachError
from tunedeck.core.ssh import open_machine
from tunedeck.core.ssh.machine import Machine

Shell = Callable[[str], Machine]
SFTP_SERVER = "/usr/lib/openssh/sftp-server"


@pytest.fixture
def shell(cluster: Cluster, tmp_path: Path) -> Iterator[Shell]:
    """A login whose shell runs lines of its own first, and then what it was asked to."""
    allowed = cluster.bed.folder / "authorized_keys"
    before = allowed.read_text()

    def make(lines: str) -> Machine:
        key = ssh_keygen(tmp_path / "key")
        program = tmp_path / "shell"
        program.write_text(f'#!/bin/sh\n{lines}\neval "$SSH_ORIGINAL_COMMAND"\n')
        program.chmod(0o755)
        public = Path(f"{key}.pub").read_text()
        allowed.write_text(f'{before}command="{program}" {public}')
        return open_machine({**cluster.values, "identity": str(key)}, ssh=True)

    yield make
    allowed.write_text(before)


async def test_a_shell_that_talks_changes_nothing_of_what_is_said(shell: Shell) -> None:
    talks = shell("echo Welcome; echo 'agent: Connection refused' >&2")
    done = await run_slurm(talks, "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


async def test_a_shell_that_asks_something_does_not_take_our_script_for_its_answer(
    shell: Shell,
) -> None:
    asks = shell("printf 'Which project? '; read project; printf 'Sure? '; read sure")
    assert (await asks.run("echo out")).out == "out\n"


async def test_a_shell_that_lets_nobody_in_is_not_taken_for_an_empty_answer(shell: Shell) -> None:
    closed = shell("echo 'The system is down for maintenance.' >&2; exit 1")
    with pytest.raises(ReachError, match="runs no commands: The system is down for maintenance"):
        await closed.run("echo out")


async def test_a_command_that_hangs_is_told_and_not_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.core.ssh.remote._RUN_LIMIT_S", 1.0)
    machine = open_machine(cluster.values, ssh=True)
    with pytest.raises(ReachError, match="did not end within 1 s"):
        await machine.run("sleep 60")


@pytest.mark.skipif(not shutil.which(SFTP_SERVER), reason="needs sftp-server")
async def test_a_session_for_files_that_was_ended_is_begun_again(
    shell: Shell, tmp_path: Path
) -> None:
    told = tmp_path / "pid"
    files = shell(
        'if [ "$SSH_ORIGINAL_COMMAND" = internal-sftp ]; then '
        f"echo $$ > {shlex.quote(str(told))}; exec {SFTP_SERVER}; fi"
    )
    source = tmp_path / "there"
    source.write_text("something")
    assert await files.read(str(source), 0, 100) == b"something"
    os.kill(int(told.read_text()), signal.SIGKILL)
    for _ in range(100):
        try:
            assert await files.read(str(source), 0, 100) == b"something"
            break
        except ReachError:
            await asyncio.sleep(0.05)
    else:
        pytest.fail("no session came back")


@pytest.mark.skipif(not shutil.which(SFTP_SERVER), reason="needs sftp-server")
async def test_a_shell_that_talks_into_the_transfer_of_files_is_told_of(
    shell: Shell, tmp_path: Path
) -> None:
    talks = shell(
        f'echo Welcome; [ "$SSH_ORIGINAL_COMMAND" != internal-sftp ] || exec {SFTP_SERVER}'
    )
    with pytest.raises(ReachError, match="offers no file transfer") as told:
        await talks.read(str(tmp_path / "any"), 0, 1)
    assert "login scripts" in told.value.fix
