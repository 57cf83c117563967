"""Files of a run, home from storage that only jobs can read: a job sends them through its log.

Neither Lepton nor Run:ai has an API that reads files of mounted storage. So a job of the run's own
image and mounts, without a GPU, prints what fits, packed and in lines that are numbered. What is
more than one log may hold comes by several such jobs. They are removed once they have been read.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...errors import DeadlineError, TunedeckError, UsageError

LIMIT_BYTES = 64 << 20
"""Bytes of files that are sent at all."""

PART_BYTES = 6 << 20
"""Bytes that one job sends: Kubernetes keeps the last 10 MiB of a log."""

LIMIT_S = 1800.0

_SIDE_BY_SIDE = 4
_SCRIPT = Path(__file__).with_name("ship.sh")
_SAYS = b"tunedeck: "


class Service(Protocol):
    """What a service does for jobs that send files."""

    async def start_carrier(self, name: str, env: Mapping[str, str], script: str) -> None:
        """Start one. A name that is taken is no error."""
        ...

    def carrier_lines(self, name: str) -> AsyncGenerator[bytes]:
        """What it says, until it has ended."""
        ...

    async def drop_carrier(self, name: str) -> None:
        """Remove one."""
        ...


@dataclass
class _Said:
    """What a job said.

    Attributes:
        files: size and name of each file that fits and is not here.
        size, digest: of all of them packed; 0 where they are too much, or none.
        lines: number → a piece of this job's part.
        error: why it sent nothing.
    """

    files: list[tuple[int, str]] = field(default_factory=list)
    size: int = 0
    digest: str = ""
    lines: dict[int, bytes] = field(default_factory=dict)
    error: str = ""
    over: bool = False

    def hear(self, line: bytes) -> None:
        """Take a line. One that comes twice counts once."""
        word, _, rest = line.removeprefix(_SAYS).partition(b" ")
        if not line.startswith(_SAYS):
            return
        if word == b"file":
            size, _, name = rest.decode("utf-8", "replace").partition(" ")
            self.files.append((int(size), name))
        elif word == b"whole":
            size, _, self.digest = rest.decode().partition(" ")
            self.size = int(size)
        elif word == b"data":
            number, _, text = rest.partition(b" ")
            with suppress(binascii.Error):
                self.lines[int(number)] = base64.b64decode(text, validate=True)
        elif word == b"error:":
            self.error = rest.decode("utf-8", "replace")
        elif word.startswith(b"exit="):
            self.over = True

    @property
    def data(self) -> bytes:
        """Its part, as far as it came."""
        return b"".join(self.lines[number] for number in sorted(self.lines))


async def ship(
    service: Service,
    run_dir: str,
    patterns: Sequence[str],
    here: Mapping[str, str],
    on_bytes: Callable[[int, int], None],
) -> bytes:
    """A tar archive of the files of a run that fit; empty where none does, or all are here.

    Args:
        service: starts the jobs and reads their logs.
        run_dir: the run's folder as jobs see it.
        patterns: globs over paths below it.
        here: files that need not be sent while they are the same, with the hex of their SHA-256.
        on_bytes: told the bytes that have come, and those of the whole.

    Raises:
        UsageError: if the files are too much for this way.
        DeadlineError: if the jobs do not come to run.
        TunedeckError: if they cannot read the storage, or the files change meanwhile.
    """
    mark = secrets.token_hex(4)
    env = {
        "TUNEDECK_RUN": run_dir,
        "TUNEDECK_WANTED": "\n".join(patterns),
        "TUNEDECK_HERE": "\n".join(f"{digest} {name}" for name, digest in here.items()),
        "TUNEDECK_LIMIT": str(LIMIT_BYTES),
        "TUNEDECK_PART_BYTES": str(PART_BYTES),
    }
    gate, came = asyncio.Semaphore(_SIDE_BY_SIDE), 0

    async def part(number: int) -> _Said:
        nonlocal came
        async with gate:
            name = f"tunedeck-ship-{mark}-{number:03d}"
            said = await _said(service, name, {**env, "TUNEDECK_PART": str(number)})
        came += len(said.data)
        on_bytes(came, said.size)
        return said

    first = await part(0)
    if first.files and not first.size:
        raise _too_much(first.files, run_dir)
    further = range(1, -(-first.size // PART_BYTES))
    rest = await asyncio.gather(*map(part, further))
    whole = b"".join(said.data for said in (first, *rest))
    if hashlib.sha256(whole).hexdigest() != first.digest and first.size:
        raise TunedeckError(
            "The files changed while they were sent, or the service lost lines of a log.",
            fix="Start again; while a run goes on, ask for files that it is done with.",
        )
    return whole


async def _said(service: Service, name: str, env: Mapping[str, str]) -> _Said:
    said = _Said()
    try:
        async with asyncio.timeout(LIMIT_S):
            await service.start_carrier(name, env, _SCRIPT.read_text(encoding="utf-8"))
            async with aclosing(service.carrier_lines(name)) as lines:
                async for line in lines:
                    said.hear(line)
    except TimeoutError:
        raise DeadlineError(
            f"Job {name}, which sends the files, did not end within {LIMIT_S / 60:.0f} minutes.",
            fix="Try again once there is room for it.",
        ) from None
    finally:
        with suppress(TunedeckError):
            await service.drop_carrier(name)
    if said.error or not said.over:
        why = said.error or "it ended without its last word"
        raise TunedeckError(f"Job {name} could not send the files: {why}")
    return said


def _too_much(files: Sequence[tuple[int, str]], run_dir: str) -> UsageError:
    total = sum(size for size, _ in files)
    largest = ", ".join(f"{name} ({size >> 20} MiB)" for size, name in sorted(files)[:-4:-1])
    return UsageError(
        f"{len(files)} files of {total >> 20} MiB are too much to come through a log, which brings "
        f"{LIMIT_BYTES >> 20} MiB; the largest: {largest}.",
        fix=f"Fetch fewer by a pattern, or copy them from a pod that mounts {run_dir}.",
    )
