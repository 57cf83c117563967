"""Private keys in files: those that a passphrase locks are opened by asking for it, once a process.

What was opened is kept in memory alone, so that a lost connection comes back without a question;
the passphrase itself is not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import asyncssh

from ..errors import AuthenticationError, UsageError
from .prompts import answer_to, prompter

_TRIES = 3
_USUAL = ("id_ed25519", "id_ecdsa", "id_rsa")
"""Names of key files below ~/.ssh that ssh tries by itself."""

_opened: dict[tuple[Path, int], list[asyncssh.SSHKeyPair]] = {}
"""File and time of its last change → the key, opened, with its certificate where it has one."""


def usual_files() -> list[Path]:
    """The key files that are tried where nobody names one."""
    return [Path("~/.ssh", name).expanduser() for name in _USUAL]


def is_locked(file: Path) -> bool:
    """Whether a file holds a private key that only a passphrase opens."""
    try:
        asyncssh.read_private_key(file)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        return "passphrase" in str(error).lower()
    except OSError:
        return False
    return False


def is_open(file: Path) -> bool:
    """Whether a locked key has been opened in this process."""
    return _entry(file) in _opened


def opened_among(files: Sequence[Path]) -> list[asyncssh.SSHKeyPair]:
    """The keys that were opened in this process, then those of the files that nothing locks.

    None of them where none was opened: they are found without our help then.
    """
    if not any(is_open(file) for file in files):
        return []
    pairs = [pair for file in files for pair in _opened.get(_entry(file), ())]
    for file in files:
        with suppress(OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            pairs += asyncssh.load_keypairs([str(file)])
    return pairs


async def identity_in_agent(file: Path) -> bytes | None:
    """The public half of a locked key that the agent holds, which spares its passphrase.

    None where the key is not locked, or the agent does not have it.
    """
    if not is_locked(file) or is_open(file):
        return None
    public = Path(f"{file}.pub")
    try:
        known = asyncssh.read_public_key(public if public.is_file() else file).public_data
        async with asyncssh.connect_agent() as agent:
            held = await agent.get_keys()
    except (OSError, ValueError, asyncssh.Error):
        return None
    return known if any(pair.public_data == known for pair in held) else None


async def open_key(file: Path) -> list[asyncssh.SSHKeyPair]:
    """A key from its file; one that is locked is opened with a passphrase that is asked for.

    Raises:
        AuthenticationError: if nobody is there to ask, or the passphrase was wrong several times.
        UsageError: if the file holds no key that can be read.
    """
    if known := _opened.get(_entry(file)):
        return known
    if not is_locked(file):
        return _load(file, None)
    if not prompter().present:
        raise AuthenticationError(
            f"The key {file} has a passphrase, and there is no terminal to ask for it on.",
            fix=f"Load it into your agent first: ssh-add {file}",
        )
    words = f"Passphrase of {file}: "
    for _ in range(_TRIES):
        passphrase = await answer_to(prompter().secret, words)
        try:
            pairs = _load(file, passphrase)
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
            words = f"That was not right. Passphrase of {file}: "
            continue
        _opened[_entry(file)] = pairs
        return pairs
    raise AuthenticationError(
        f"The passphrase of {file} was wrong {_TRIES} times.",
        fix=f"Try again, or load it into your agent: ssh-add {file}",
    )


def _load(file: Path, passphrase: str | None) -> list[asyncssh.SSHKeyPair]:
    try:
        # Read first: a list of key files swallows why one of them cannot be used.
        asyncssh.read_private_key(file, passphrase)
        return list(asyncssh.load_keypairs([str(file)], passphrase))
    except OSError as error:
        raise UsageError(
            f"The key {file} cannot be read: {error.strerror}.",
            fix="Check its permissions, or name another key with 'identity' in the profile.",
        ) from error
    except asyncssh.KeyImportError as error:
        if passphrase is not None:
            raise
        raise UsageError(
            f"The key {file} cannot be used: {error}",
            fix="Name the private key's file, not the public one's.",
        ) from error


def _entry(file: Path) -> tuple[Path, int]:
    try:
        return file, file.stat().st_mtime_ns
    except OSError:
        return file, 0
