"""How Tunedeck says that something went wrong, and the exit codes that follow."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """The exit codes of every command. A followed run hands its own fate on (100 and up)."""

    OK = 0
    """Everything asked for was done."""
    FAILURE = 1
    """Something failed that has no code of its own."""
    USAGE = 2
    """A mistake in the command, a config, an env file or the data; or no terminal to draw on."""
    CONNECTION = 3
    """A machine or service could not be reached."""
    AUTHENTICATION = 4
    """A credential or a host key was refused."""
    TIMEOUT = 5
    """Something took longer than it was allowed to."""
    JOB_FAILED = 100
    """The job ran and failed."""
    NOT_FINISHED = 101
    """The job has not finished yet."""
    NOT_FOUND = 102
    """There is no such run, replay or file. A name in a launch that is not there is `USAGE`."""
    CANCELLED = 103
    """The job was cancelled."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a file something stands. Lines and columns count from 1; None where unknown."""

    file: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        parts = [self.file or "", *(str(n) for n in (self.line, self.column) if n is not None)]
        return ":".join(part for part in parts if part)


NOWHERE = Place()
"""The place of what was read from no file."""


class TunedeckError(Exception):
    """A failure that a person can act on. The command line prints it without a traceback.

    Args:
        message: what is wrong, with the key or value in question.
        place: the file, line and column it was read from, where there is one.
        fix: what to do about it, as one or more full sentences or a command to run.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILURE

    def __init__(self, message: str, *, place: Place | None = None, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.fix = fix

    def __str__(self) -> str:
        where = str(self.place) if self.place else ""
        return f"{where}: {self.message}" if where else self.message


class UsageError(TunedeckError):
    """The command, a config, an env file or the data is wrong; nothing was sent anywhere."""

    exit_code = ExitCode.USAGE


class NotFoundError(TunedeckError):
    """There is no run, replay or file of that name."""

    exit_code = ExitCode.NOT_FOUND


class ReachError(TunedeckError):
    """A machine or service could not be reached."""

    exit_code = ExitCode.CONNECTION


class AuthenticationError(TunedeckError):
    """A credential was refused, is missing, or a host key does not match."""

    exit_code = ExitCode.AUTHENTICATION


class DeadlineError(TunedeckError):
    """Something took longer than it was allowed to."""

    exit_code = ExitCode.TIMEOUT
