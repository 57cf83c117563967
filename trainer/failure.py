"""What a person is told where a run ends badly, and by which of its processes."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import NamedTuple

from ..core.errors import ExitCode, TunedeckError
from .exit_file import asked, told
from .preempt import EXIT_PREEMPTED, AskedToEnd, RestartError

_RANK = int(os.environ["RANK"]) if os.environ.get("RANK", "").isdecimal() else None
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process")
_WAITED = "Timed out waiting"
_LATE = "another process of the run did not come within dist_env.timeout_minutes"
_LOOK_AT_IT = "Look at what keeps it (its machine, its data), or raise dist_env.timeout_minutes."
_FIRST_SPEAKS_S = 20.0
"""How much later than the others the first rank of a machine may find a mistake, and say it."""
_ROOM = "Make room there, or choose another place, and start it again."
_MENDED = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: "Give this user the right to it, or choose another place.",
    errno.EROFS: "Choose a place that can be written to.",
}
_SMALLER = "Lower step_scheduler.local_batch_size or dataset.seq_length."


class Failure(NamedTuple):
    """How a process ended, as a person is told.

    Attributes:
        message: what went wrong.
        fix: what to do about it; empty where nothing can be said.
        code: the exit code.
        lost: another process ended before, which alone knows how the run did.
    """

    message: str
    fix: str
    code: int
    lost: bool = False

    def say(self) -> int:
        """Say it, and return the exit code.

        What all ranks find in the config is said by one on each machine.
        """
        others = _RANK and os.environ.get("LOCAL_RANK", "0") != "0"
        if others and self.code == ExitCode.USAGE and _first_spoke():
            return int(self.code)
        sys.stderr.write(f"tunedeck: error: {self.message}\n")
        if self.fix:
            sys.stderr.write(f"tunedeck: fix: {self.fix}\n")
        sys.stderr.flush()
        return int(self.code)


def failure_of(error: BaseException) -> Failure | None:
    """What is told of an error; None of one that a person can do nothing about."""
    failed, said = int(ExitCode.FAILURE), str(error)
    match error:
        case RestartError():
            return Failure(said, error.fix, EXIT_PREEMPTED)
        case TunedeckError():
            return Failure(said, error.fix, error.exit_code)
        case AskedToEnd():
            return Failure(error.words, "", int(error.code or 0))
        case OSError():
            what = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
            return Failure(what, _MENDED.get(error.errno or 0, ""), failed)
        case RuntimeError() if _RANK is not None and any(words in said for words in _GONE):
            return Failure("another process of the run ended", "", failed, lost=True)
        case RuntimeError() if _RANK is not None and _WAITED in said:
            return Failure(_LATE, _LOOK_AT_IT, failed)
        # torch.OutOfMemoryError; by name, because torch may not have been imported yet.
        case RuntimeError() if type(error).__name__ == "OutOfMemoryError":
            return Failure(said.partition("\n")[0], _SMALLER, failed)
    return None


def _first_spoke() -> bool:
    """Wait for torchrun to end this process, as it does once the machine's first rank has spoken.

    One that ended at once might end the first before it has; one that is not ended, or whose first
    merely lost it, is alone with what it found.
    """
    try:
        time.sleep(_FIRST_SPEAKS_S)
    except AskedToEnd:
        return not asked() or told() is not None
    return False
