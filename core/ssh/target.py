"""Which host is meant, and how it is to be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A login host as a profile names it. What is None is left to the user's SSH config.

    Attributes:
        host: a host name, or a `Host` of the SSH config.
        identity: a private key's file on this machine.
        known_hosts: a file of host keys on this machine, instead of the usual ones.
        proxy_jump: the host that the connection goes through, as `[user@]host[:port]`.
    """

    host: str
    port: int | None = None
    user: str | None = None
    identity: str | None = None
    known_hosts: str | None = None
    proxy_jump: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Target:
        """The login host of a profile's values."""
        port = values.get("port")
        texts = {
            key: str(values[key]) if values.get(key) else None
            for key in ("user", "identity", "known_hosts", "proxy_jump")
        }
        return cls(str(values["host"]), int(port) if port else None, **texts)

    def hop(self, words: str) -> Target:
        """A host on the way, `[user@]host[:port]`, with this one's key and known hosts."""
        user, _, place = words.strip().removeprefix("ssh://").rpartition("@")
        host, _, port = place.partition(":")
        return Target(
            host,
            int(port) if port.isdigit() else None,
            user or None,
            identity=self.identity,
            known_hosts=self.known_hosts,
            proxy_jump="",
        )

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f":{self.port}" if self.port else "")
