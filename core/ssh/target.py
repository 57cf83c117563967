"""Which host is meant, and how it is to be reached."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_PLACE = re.compile(r"(?:\[([^]]+)\]|([^:]+))(?::(\d+))?")


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
        """The login host of a profile's values; `host` may be `[user@]host[:port]` as well."""
        host, port, user = _parts(str(values["host"]))
        texts = {
            key: str(values[key]) if values.get(key) else None
            for key in ("user", "identity", "known_hosts", "proxy_jump")
        }
        texts["user"] = texts["user"] or user
        return cls(host, int(values.get("port") or 0) or port, **texts)

    def hop(self, words: str, *, first: bool) -> Target:
        """A host on the way, `[user@]host[:port]`, with this one's key and known hosts.

        The first one may be behind another in its turn, by the SSH config.
        """
        host, port, user = _parts(words.strip().removeprefix("ssh://"))
        return Target(
            host,
            port,
            user,
            identity=self.identity,
            known_hosts=self.known_hosts,
            proxy_jump=None if first else "",
        )

    def __str__(self) -> str:
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host and self.port else self.host
        return f"{user}{host}" + (f":{self.port}" if self.port else "")


def _parts(words: str) -> tuple[str, int | None, str | None]:
    """Host, port and user of `[user@]host[:port]`; an IPv6 address with a port is in brackets."""
    user, _, place = words.rpartition("@")
    if (match := _PLACE.fullmatch(place)) is None:
        return place, None, user or None
    return match[1] or match[2], int(match[3]) if match[3] else None, user or None
