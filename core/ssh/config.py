"""What a person's own SSH config says of a host: keys, known hosts, the way there."""

from __future__ import annotations

import os
from pathlib import Path

import asyncssh

from ..errors import UsageError
from .keys import usual_files
from .target import Target

_EVERYBODYS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))
"""Host keys that the administrator of this machine vouches for."""


def identity_files(target: Target) -> list[Path]:
    """The key files that the SSH config names for a host, or else the usual ones."""
    named = configured(target).config.get("IdentityFile")
    names = named if isinstance(named, list | tuple) else ()
    return [Path(str(name)).expanduser() for name in names] or usual_files()


def known_hosts_files(target: Target) -> list[Path]:
    """Where host keys are looked up; the first is written to.

    What the profile names; else what the SSH config does or one's own, and this machine's. Where
    the config throws host keys away (`/dev/null`) they are one's own: none is taken unseen.
    """
    if target.known_hosts is not None:
        return [Path(target.known_hosts).expanduser()]
    named = configured(target).known_hosts
    names = map(str, named) if isinstance(named, list | tuple) else ()
    files = [Path(name).expanduser() for name in names if name not in (os.devnull, "none")]
    own = files or [Path("~/.ssh/known_hosts").expanduser()]
    return list(dict.fromkeys([*own, *_EVERYBODYS]))


def configured(target: Target) -> asyncssh.SSHClientConnectionOptions:
    """What the user's SSH config says of a host.

    Raises:
        UsageError: if it cannot be read.
    """
    try:
        return asyncssh.SSHClientConnectionOptions(
            host=target.host, username=target.user or (), config=(), client_keys=None
        )
    except asyncssh.ConfigParseError as error:
        raise UsageError(
            f"Your SSH config cannot be read: {error}",
            fix=f"Mend it until ssh -G {target.host} reads it as well.",
        ) from error


def hops(target: Target, seen: frozenset[tuple[str, int | None]] = frozenset()) -> list[Target]:
    """The hosts on the way, by the profile or else by the SSH config, which may chain them.

    What it says of `Host *` it says of the host on the way as well, which is not behind itself;
    `seen` are the hosts and ports that are on the way already.

    Raises:
        UsageError: if the SSH config cannot be read.
    """
    named = target.proxy_jump
    if named is None:
        in_config = configured(target).tunnel
        named = in_config if isinstance(in_config, str) else ""
    words = [word for word in named.split(",") if word not in ("", "none")]
    seen |= {(target.host, target.port)}
    found = [target.hop(word, first=not index) for index, word in enumerate(words)]
    found = [hop for hop in found if (hop.host, hop.port) not in seen]
    return [*(hops(found[0], seen) if found else ()), *found]
