from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from tunedeck.core.errors import AuthenticationError, UsageError
from tunedeck.core.ssh.config import known_hosts_files
from tunedeck.core.ssh.hostkeys import Presented, check_known_hosts, decide
from tunedeck.core.ssh.target import Target


@pytest.mark.parametrize("port", [22, 2222])
@pytest.mark.parametrize("by", ["login", "10.0.0.7", "*"])
def test_a_revoked_key_is_never_asked_for(tmp_path: Path, port: int, by: str) -> None:
    public = asyncssh.generate_private_key("ssh-ed25519").convert_to_public()
    presented = Presented("login", "10.0.0.7", port, public)
    key = presented.line.partition(" ")[2]
    known = tmp_path / "known_hosts"
    known.write_text(f"@revoked {by if port == 22 or by == '*' else f'[{by}]:{port}'} {key}\n")
    with pytest.raises(AuthenticationError, match="is revoked in"):
        decide(presented, Target("login"), [tmp_path / "none", known])


def test_a_config_that_throws_host_keys_away_does_not_make_them_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        "Host a\n UserKnownHostsFile /dev/null\n StrictHostKeyChecking no\n"
        "Host b\n UserKnownHostsFile ~/.ssh/b\n"
    )
    assert known_hosts_files(Target("a"))[0] == tmp_path / ".ssh" / "known_hosts"
    assert known_hosts_files(Target("b"))[0] == tmp_path / ".ssh" / "b"


@pytest.mark.parametrize("content", [b"garbage\n", b"@mine host ssh-ed25519 AAAA\n", b"\xff\xfe\n"])
def test_known_hosts_that_cannot_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    known = tmp_path / "known_hosts"
    known.write_bytes(b"# mine\n" + content)
    with pytest.raises(UsageError, match="known_hosts cannot be read"):
        check_known_hosts(known)
