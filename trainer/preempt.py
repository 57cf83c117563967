"""Ending in time: signals and a deadline are noticed between micro-batches, never inside one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from ..core.errors import TunedeckError, UsageError

EXIT_PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: every backend reads it as 'requeue and resume'."""

SIGNALS = ("SIGTERM", "SIGUSR1")
"""What launchers send before they take the machine away, unless the config says otherwise."""

_MARGIN = 1.5
_DEADLINE = 1
"""What ranks tell each other where time runs out; a signal is told as its number above it."""


class RestartError(TunedeckError):
    """The run has to start again, which its launcher does as after a preemption.

    Ranks that were in the middle of a collective cannot go on with one that was not.
    """


class AskedToEnd(SystemExit):
    """The run was asked to end, and does so without saving; its code is the exit code."""

    def __init__(self, number: signal.Signals, words: str) -> None:
        super().__init__(_exit_code(number))
        self.words = words


class StopRequest:
    """Whether the run has been asked to save and end, and why.

    Before training begins there is nothing to save, and a signal ends the process at once; so does
    a second SIGINT. The machine is taken away at `TUNEDECK_DEADLINE` (Unix seconds), or without it
    at the end of the Slurm job; where that changes, the new one is in the file that
    `TUNEDECK_DEADLINE_FILE` names.

    Args:
        signals: names of those that mean the machine will be taken away. SIGINT is a person's wish.
            Without a config to say which, those that launchers send.

    Raises:
        UsageError: the deadline is no number.
    """

    def __init__(self, signals: Iterable[str] = SIGNALS) -> None:
        self.agree: Callable[[int], int] = int
        """The greatest of what the ranks say; all ranks ask together once they train."""
        self.signal: signal.Signals | None = None
        self.training = False
        self._deadline = _deadline()
        self._step_seconds = self._save_seconds = self._expected_save = 0.0
        self._agreed = 0
        self._before: dict[int, Any] = {}
        self.listen(signals)

    def listen(self, signals: Iterable[str]) -> None:
        """Listen for these signals and SIGINT; others do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        numbers = (*(signal.Signals[name] for name in signals), signal.SIGINT)
        self._before = {number: signal.signal(number, self._notice) for number in numbers}

    def _notice(self, number: int, _frame: FrameType | None) -> None:
        again = number == signal.SIGINT and self.signal is not None
        self.signal = signal.Signals(number)
        if not self.training:
            raise AskedToEnd(self.signal, "asked to end before there was anything to save")
        if again:
            raise AskedToEnd(self.signal, "asked twice to end: the last checkpoint is what is left")

    def __call__(self) -> bool:
        """Whether to stop as soon as the step in hand is done; all ranks hear the same."""
        if not self._agreed:
            mine = _DEADLINE if self._out_of_time() else 0
            if self.signal is not None:
                mine = _DEADLINE + self.signal
            self._agreed = self.agree(mine)
        return self._agreed > 0

    def expect(self, *, save: float) -> None:
        """Tell how many seconds a save may take, until one has been measured."""
        self._expected_save = save

    def took(self, *, step: float = 0.0, save: float = 0.0) -> None:
        """Learn how many seconds the longest step and the longest save take."""
        self._step_seconds = max(self._step_seconds, step)
        self._save_seconds = max(self._save_seconds, save)

    def _out_of_time(self) -> bool:
        if self._deadline is None:
            return False
        needed = _MARGIN * (self._step_seconds + (self._save_seconds or self._expected_save))
        if time.time() + needed > self._deadline:
            self._deadline = _deadline() or self._deadline  # the launcher may have got more time
        return time.time() + needed > self._deadline

    @property
    def reason(self) -> str:
        """Why the run ends, for the log."""
        number = self._signalled()
        return number.name if number is not None else "the deadline"

    @property
    def exit_code(self) -> int:
        """75 asks for a requeue; a person's Ctrl-C does not."""
        return _exit_code(self._signalled())

    def _signalled(self) -> signal.Signals | None:
        """The signal that any of the ranks got."""
        if self._agreed > _DEADLINE:
            return signal.Signals(self._agreed - _DEADLINE)
        return None if self._agreed else self.signal


def fall_deaf() -> None:
    """Take no signal any more that was listened for, because the run has ended.

    A launcher goes on telling its processes to stop until they have, and the interpreter lets
    signals kill the process again while it shuts down: a run that had saved would seem to have
    crashed.
    """
    for number in signal.valid_signals():
        if isinstance(getattr(signal.getsignal(number), "__self__", None), StopRequest):
            signal.signal(number, signal.SIG_IGN)


def _exit_code(number: signal.Signals | None) -> int:
    return 128 + signal.SIGINT if number is signal.SIGINT else EXIT_PREEMPTED


def _deadline() -> float | None:
    with suppress(KeyError, OSError, ValueError):
        return float(Path(os.environ["TUNEDECK_DEADLINE_FILE"]).read_text(encoding="utf-8"))
    for name in ("TUNEDECK_DEADLINE", "SLURM_JOB_END_TIME"):
        if text := os.environ.get(name):
            try:
                return float(text)
            except ValueError as error:
                raise UsageError(
                    f"{name} is '{text}', and not a time in Unix seconds.",
                    fix=f"Unset {name}, or set it to what `date +%s` prints, and the time left.",
                ) from error
    return None
