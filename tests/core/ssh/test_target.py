from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.ssh.config import hops
from tunedeck.core.ssh.target import Target


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"host": "login"}, Target("login")),
        ({"host": "ada@login"}, Target("login", user="ada")),
        ({"host": "ada@login:2222"}, Target("login", 2222, "ada")),
        ({"host": "ada@login:2222", "user": "bob", "port": 22}, Target("login", 22, "bob")),
        ({"host": "fe80::1"}, Target("fe80::1")),
        ({"host": "[fe80::1]:2222"}, Target("fe80::1", 2222)),
    ],
)
def test_a_host_may_be_written_as_for_ssh(values: dict[str, object], expected: Target) -> None:
    assert Target.of(values) == expected


def test_a_host_is_named_so_that_its_port_can_be_told_apart() -> None:
    assert str(Target("login", 2222, "ada")) == "ada@login:2222"
    assert str(Target("fe80::1", 2222)) == "[fe80::1]:2222"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh" / "config"


def test_a_host_on_the_way_may_itself_be_behind_another(config: Path) -> None:
    config.write_text("Host login\n ProxyJump ada@gate:2222\nHost gate\n ProxyJump [::1]:23\n")
    assert list(map(str, hops(Target("login")))) == ["[::1]:23", "ada@gate:2222"]
    # Of several that are named one after the other the later ones are behind the earlier ones.
    assert list(map(str, hops(Target("x", proxy_jump="first,gate")))) == ["first", "gate"]


def test_a_jump_of_all_hosts_is_none_of_the_host_it_names(config: Path) -> None:
    config.write_text("Host *\n ProxyJump gate\n")
    assert list(map(str, hops(Target("login")))) == ["gate"]
    assert hops(Target("gate")) == []


def test_hosts_that_are_behind_each_other_end_somewhere(config: Path) -> None:
    config.write_text("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
    assert list(map(str, hops(Target("a")))) == ["b"]
