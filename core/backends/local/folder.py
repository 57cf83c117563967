"""What the folder of a local run says of its end."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from ...files import is_full
from ...states import RunState, Status
from ..ending import PREEMPTED, SAVED, SIGNALLED


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of one of the supervisor's files; None if there is none yet, or no longer."""
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return data


def how_it_ended(sentinel: dict[str, Any]) -> Status:
    """The status that a sentinel stands for."""
    code = sentinel["exit_code"]
    state, reason = _fate(sentinel, code)
    return Status(
        state,
        f"exit {code}",
        reason,
        exit_code=code,
        started_at=sentinel.get("started_at"),
        ended_at=sentinel["ended_at"],
    )


def _fate(sentinel: dict[str, Any], code: int) -> tuple[RunState, str]:
    if sentinel["cancelled"]:
        return RunState.CANCELLED, "on request"
    if code == 0:
        return RunState.SUCCEEDED, ""
    if code == PREEMPTED:
        return RunState.PREEMPTED, SAVED
    if sentinel.get("error"):
        return RunState.FAILED, sentinel["error"]
    if sentinel.get("out_of_memory"):
        return RunState.FAILED, "killed by the kernel: the machine ran out of memory"
    if code == SIGNALLED + signal.SIGKILL:
        reason = "killed by signal 9 (SIGKILL), perhaps by the kernel for lack of memory"
        return RunState.FAILED, reason
    if code > SIGNALLED:
        number = code - SIGNALLED
        return RunState.FAILED, f"killed by signal {number} ({_signal_name(number)})"
    return RunState.FAILED, f"exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


def why_lost(folder: Path) -> str:
    """Why there may be neither a supervisor nor a sentinel."""
    if is_full(folder):
        return f"the supervisor ended without leaving word; the disk of {folder} is full"
    return "the supervisor was killed, so how the run ended is not known"
