"""Trust in host keys: never taken for granted, never silently changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh

from ..errors import AuthenticationError, UsageError
from .prompts import prompter

if TYPE_CHECKING:
    from .target import Target


@dataclass(frozen=True, slots=True)
class Presented:
    """The key that a host showed, which no file of known hosts vouches for."""

    host: str
    address: str
    port: int
    key: asyncssh.SSHKey

    @property
    def name(self) -> str:
        """The host as files of known hosts have it: with its port where that is not 22."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"

    @property
    def line(self) -> str:
        """The line that makes the host known."""
        return f"{self.name} {self.key.export_public_key().decode().strip()}"


def decide(presented: Presented, target: Target, files: list[Path]) -> None:
    """Ask whether an unknown key is to be trusted, and note it down if so.

    Args:
        presented: what the host showed.
        target: whom we wanted to reach.
        files: the files of known hosts in use; a trusted key goes into the first.

    Raises:
        AuthenticationError: if the key is revoked, the host is known by another one, nobody is
            there to ask, or the answer is no.
    """
    fingerprint = presented.key.get_fingerprint()
    for file in files:
        if _is_revoked(file, presented):
            raise AuthenticationError(
                f"The host key of {presented.name} is revoked in {file}: {fingerprint}.",
                fix="Do not log in there before those who run the host have given it another one.",
            )
        if known := _known(file, presented):
            raise AuthenticationError(
                f"{presented.name} shows another host key than the one that is known: "
                f"{fingerprint} now, {', '.join(known)} in "
                f"{file}. Someone may be listening in, or the host was set up anew.",
                fix="Ask those who run the host. If the change is right: "
                f"ssh-keygen -R '{presented.name}' -f {file}, then connect again.",
            )
    algorithm = presented.key.algorithm.decode()
    if not prompter().present:
        kind = algorithm.removeprefix("ssh-").partition("-")[0]
        port = "" if presented.port == 22 else f"-p {presented.port} "
        raise AuthenticationError(
            f"The host key of {presented.name} is not known, and there is no terminal to ask on. "
            f"It is {algorithm} {fingerprint}.",
            fix=f"Compare that with what those who run {target.host} say, then add it: "
            f"ssh-keyscan {port}-t {kind} {presented.host} >> {files[0]}",
        )
    question = (
        f"The host key of {presented.name} is not known: {algorithm} {fingerprint}\n"
        f"Trust it from now on? [yes/no] "
    )
    if prompter().text(question).lower() not in ("y", "yes"):
        raise AuthenticationError(
            f"The host key of {presented.name} was not trusted.",
            fix=f"Compare {fingerprint} with what those who run the host say, and try again.",
        )
    files[0].parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files[0].open("a", encoding="utf-8") as out:
        out.write(f"{presented.line}\n")


def check_known_hosts(file: Path) -> None:
    """See that a file of known hosts can be read: asyncssh takes none of it otherwise.

    Raises:
        UsageError: if it cannot; with the line.
    """
    try:
        asyncssh.read_known_hosts(str(file))
    except (OSError, ValueError) as error:
        words = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"The file of known hosts {file} cannot be read: {words}.",
            fix="Mend that line or take it out: each is a host, a kind of key and the key.",
        ) from error


def _is_revoked(file: Path, presented: Presented) -> bool:
    """Whether a file revokes the key.

    asyncssh forgets so of a host at a port of its own for which a file has no other line.
    """
    if not file.is_file():
        return False
    names = (presented.name, replace(presented, host=presented.address).name)
    matches = (asyncssh.match_known_hosts(str(file), name, "", None) for name in names)
    return any(presented.key in revoked for _, _, revoked, *_ in matches)


def _known(file: Path, presented: Presented) -> list[str]:
    """The fingerprints of the keys by which a file knows the host."""
    if not file.is_file():
        return []
    keys, *_ = asyncssh.match_known_hosts(
        str(file), presented.host, presented.address, presented.port
    )
    return sorted({key.get_fingerprint() for key in keys})
