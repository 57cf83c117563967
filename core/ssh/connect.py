"""Opening a connection: the user's SSH config, keys and agent, questions, and clear refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncssh

from ..errors import AuthenticationError, ReachError, UsageError
from .config import hops, identity_files, known_hosts_files
from .hostkeys import Presented, check_known_hosts, decide
from .keys import identity_in_agent, is_locked, is_open, open_key, opened_among
from .prompts import answer_to, prompter
from .target import Target

_T = TypeVar("_T")

_CONNECT_LIMIT_S = 20.0
"""How long a host may take to answer, beside what a person takes to answer it."""
_LOGIN_LIMIT_S = 120.0
"""Long enough for a person to reach for a telephone."""

_KEEPALIVE_S = 15
_PASSWORD_TRIES = 3
_WRONG = "That was not right. "


async def connect(target: Target) -> asyncssh.SSHClientConnection:
    """Connect to a host. A question that a person has to answer is asked on the way.

    Each host that the connection goes through (`ProxyJump`) is one that is connected to like this:
    with its own host key, and its own password or second factor.

    Raises:
        ReachError: if it cannot be reached.
        AuthenticationError: if it does not let us in, or its host key is not trusted.
        UsageError: if the profile names a key file that is not there, or a file of known hosts
            cannot be read.
    """
    through: asyncssh.SSHClientConnection | None = None
    try:
        for hop in hops(target):
            through = await _connect(hop, through)
        return await _connect(target, through)
    except BaseException:
        if through is not None:
            through.close()
        raise


async def _connect(
    target: Target, through: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    try:
        return await _attempt(target, through)
    except _UntrustedKeyError as error:
        await asyncio.to_thread(decide, error.presented, target, error.files)
    try:
        return await _attempt(target, through)
    except _UntrustedKeyError as error:
        raise AuthenticationError(
            f"{target} shows a different host key each time it is asked.",
            fix="Several machines may answer under that name: name one of them as 'host'.",
        ) from error


class _UntrustedKeyError(Exception):
    def __init__(self, presented: Presented, files: list[Path]) -> None:
        super().__init__()
        self.presented, self.files = presented, files


class _Client(asyncssh.SSHClient):
    """Answers what a server asks while one logs in.

    Args:
        target: where one logs in.
        limit: the host's time to answer, which stands still while a person thinks.
    """

    def __init__(self, target: Target, limit: asyncio.Timeout) -> None:
        self._target = target
        self._limit = limit
        self._tries = 0
        self._again = ""
        self._locked: list[Path] | None = None
        self.presented: Presented | None = None
        self.asked: list[str] = []
        self.left: list[Path] = []

    async def public_key_auth_requested(self) -> list[asyncssh.SSHKeyPair] | None:
        """Once all other keys were refused: the usual ones that have a passphrase, one by one."""
        if self._target.identity is not None:
            return None
        if self._locked is None:
            files = identity_files(self._target)
            self._locked = [file for file in files if is_locked(file) and not is_open(file)]
        while self._locked:
            file = self._locked.pop(0)
            if not prompter().present:
                self.left.append(file)
                continue
            return await self._unhurried(open_key(file))
        return None

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Refuse for now, and keep what was shown: a person is asked without a server waiting."""
        self.presented = Presented(host, addr, port, key)
        return False

    async def password_auth_requested(self) -> str | None:
        """Ask for a password, a few times."""
        self.asked.append("password")
        self._tries += 1
        if not prompter().present or self._tries > _PASSWORD_TRIES:
            return None
        again = _WRONG if self._tries > 1 else ""
        question = f"{again}Password for {self._target}: "
        return await self._unhurried(answer_to(prompter().secret, question))

    def kbdint_auth_requested(self) -> str | None:
        """Answer a server's own questions (a second factor) where someone is there to do so."""
        self._again = _WRONG if "keyboard-interactive" in self.asked else ""
        self.asked.append("keyboard-interactive")
        return "" if prompter().present else None

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """Pass each question on."""
        answers: list[str] = []
        for question, shown in prompts:
            ask = prompter().text if shown else prompter().secret
            words = f"{instructions}\n{question}" if instructions and not answers else question
            whole = f"{self._again}[{self._target}] {words}"
            answers.append(await self._unhurried(answer_to(ask, whole)))
            self._again = ""
        return answers

    async def _unhurried(self, answer: Awaitable[_T]) -> _T:
        """Wait for a person, who has the time of a login and not that of a host."""
        self._limit.reschedule(None)
        try:
            return await answer
        finally:
            self._limit.reschedule(asyncio.get_running_loop().time() + _CONNECT_LIMIT_S)


async def _attempt(
    target: Target, through: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    limit = asyncio.timeout(None)
    client = _Client(target, limit)
    options = {**_options(target), **await _keys(target), "tunnel": through}
    try:
        async with limit:
            limit.reschedule(asyncio.get_running_loop().time() + _CONNECT_LIMIT_S)
            connection = await asyncssh.connect(
                target.host, client_factory=lambda: client, **options
            )
    except asyncssh.HostKeyNotVerifiable as error:
        if client.presented is None:  # revoked, or of an authority that is not trusted
            raise AuthenticationError(
                f"The host key of {target} is not trusted: {error.reason}",
                fix=f"Log in once by hand and look at what is asked: ssh {target.host}",
            ) from error
        raise _UntrustedKeyError(client.presented, known_hosts_files(target)) from error
    except asyncssh.PermissionDenied as error:
        raise AuthenticationError(
            f"{target} does not let us in: {error.reason}.{_nobody_to_ask(client)}",
            fix="Check 'user' and 'identity' in the profile, load the key into your agent "
            f"(ssh-add), or see what ssh -v {target.host} says.",
        ) from error
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise AuthenticationError(
            f"A key for {target} cannot be used: {error}",
            fix="Load it into your agent: ssh-add FILE",
        ) from error
    except (OSError, asyncssh.Error, TimeoutError) as error:
        raise ReachError(
            f"{target} cannot be reached: {_words(error)}.",
            fix=f"Check host and port, the network or VPN, and try: ssh {target.host}",
        ) from error
    connection.set_tunnel(through)  # closed with it
    return connection


def _options(target: Target) -> dict[str, Any]:
    options: dict[str, Any] = {
        "connect_timeout": None,  # asyncssh's would count what a person takes as well
        "login_timeout": _LOGIN_LIMIT_S,
        "keepalive_interval": _KEEPALIVE_S,
        "keepalive_count_max": 3,
    }
    if target.port is not None:
        options["port"] = target.port
    if target.user is not None:
        options["username"] = target.user
    known = [file for file in known_hosts_files(target) if file.is_file()]
    for file in known:
        check_known_hosts(file)
    options["known_hosts"] = [str(file) for file in known] or b""
    return options


async def _keys(target: Target) -> dict[str, Any]:
    """The option that gives asyncssh a key: the one the profile names, or those opened before.

    None leaves it to asyncssh, which asks the agent and tries the usual files.

    Raises:
        AuthenticationError: if the key has a passphrase that nobody tells.
        UsageError: if the profile names a key file that is not there, or is none.
    """
    if target.identity is None:
        opened = opened_among(identity_files(target))
        return {"client_keys": opened} if opened else {}
    file = Path(target.identity).expanduser()
    if not file.is_file():
        raise UsageError(
            f"The key file {file} that the profile names as 'identity' is not there.",
            fix="Correct 'identity', or leave it out to use your agent and the usual keys.",
        )
    if held := await identity_in_agent(file):
        return {"agent_identities": [held]}
    return {"client_keys": await open_key(file)}


def _nobody_to_ask(client: _Client) -> str:
    if prompter().present:
        return ""
    words = ""
    if client.asked:
        asked = " and ".join(dict.fromkeys(client.asked))
        words = f" It asks for {asked}; there is no terminal here."
    if client.left:
        files = ", ".join(map(str, client.left))
        words += f" {files} has a passphrase, which without a terminal nobody can be asked for."
    return words


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, asyncssh.Error):
        return str(error.reason)
    return str(getattr(error, "strerror", None) or error)
