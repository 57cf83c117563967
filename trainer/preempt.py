"""Ending in time: signals and a deadline are noticed between micro-batches, never inside one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from types import FrameType

from ..core.errors import TunedeckError

EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: every backend reads it as 'requeue and resume'."""

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_MARGIN = 1.5


class RestartError(TunedeckError):
    """The run has to start again, which its launcher does as after a preemption.

    Ranks that were in the middle of a collective cannot go on with one that was not.
    """


class StopRequest:
    """Whether the run has been asked to save and end, and why.

    Before training begins there is nothing to save, and a signal ends the process at once; so does
    a second SIGINT. `TUNEDECK_DEADLINE` (Unix seconds) is when the machine will be
    taken away.
    """

    def __init__(self) -> None:
        self.agree: Callable[[bool], bool] = bool
        """Whether any rank of the run has been asked; all ranks ask together once they train."""
        self.signal: signal.Signals | None = None
        self.training = False
        deadline = os.environ.get("TUNEDECK_DEADLINE")
        self._deadline = float(deadline) if deadline else None
        self._step_seconds = self._save_seconds = 0.0
        for number in _SIGNALS:
            signal.signal(number, self._notice)

    def _notice(self, number: int, _frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self.signal is not None
        self.signal = signal.Signals(number)
        if again or not self.training:
            raise SystemExit(self.exit_code)

    def __call__(self) -> bool:
        """Whether to stop as soon as the step in hand is done."""
        return self.agree(self.signal is not None or self._out_of_time())

    def took(self, *, step: float = 0.0, save: float = 0.0) -> None:
        """Learn how many seconds the longest step and the longest save take."""
        self._step_seconds = max(self._step_seconds, step)
        self._save_seconds = max(self._save_seconds, save)

    def _out_of_time(self) -> bool:
        needed = _MARGIN * (self._step_seconds + self._save_seconds)
        return self._deadline is not None and time.time() + needed > self._deadline

    @property
    def reason(self) -> str:
        """Why the run ends, for the log."""
        return self.signal.name if self.signal is not None else "the deadline"

    @property
    def exit_code(self) -> int:
        """75 asks for a requeue; a person's Ctrl-C does not."""
        if self.signal is signal.SIGINT:
            return 128 + signal.SIGINT
        return EXIT_PREEMPTED
