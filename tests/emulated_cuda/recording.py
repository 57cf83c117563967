"""What a call did to the emulated device: where the host waited for it, and the memory it took.

Only for processes that have the device installed.
"""

from __future__ import annotations

import importlib
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .build import NAME


@dataclass(frozen=True)
class Wait:
    """One time that the host waited for the device."""

    what: str
    stack: tuple[str, ...]
    """Innermost first. In a thread of autograd those of the thread that waits for it follow."""

    def __str__(self) -> str:
        return f"{self.what}\n" + "".join(f"  {frame}\n" for frame in self.stack[:16])


@dataclass
class Recording:
    """What a call returned and did."""

    returned: Any = None
    waits: list[Wait] = field(default_factory=list)
    peak: int = 0
    """Bytes of the device at the most, beyond what was there before."""


def recorded(function: Callable[..., Any], *arguments: Any, limit: int = 0) -> Recording:
    """Call a function.

    Args:
        function: what to call.
        arguments: what it gets.
        limit: bytes that it may have beyond those that are taken already; 0 for any number.
    """
    device: Any = importlib.import_module(NAME)
    recording = Recording()
    device.on_wait(lambda what: recording.waits.append(Wait(what, _stack())))
    before, _ = device.memory()
    device.reset_peak()
    device.set_memory_limit(before + limit if limit else 0)
    try:
        recording.returned = function(*arguments)
    finally:
        device.set_memory_limit(0)
    recording.peak = device.memory()[1] - before
    return recording


def _stack() -> tuple[str, ...]:
    frames = traceback.extract_stack()[:-2]
    main = threading.main_thread()
    if threading.current_thread() is not main and main.ident is not None:
        frames = traceback.extract_stack(sys._current_frames()[main.ident]) + frames
    return tuple(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames))
