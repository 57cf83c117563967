"""The lines of a log that one asks for: those of one rank, or those that are serious enough."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Level = Literal["warning", "error"]
"""How serious a line has to be at least."""

# How launchers mark the lines of a rank: torch's `[rank3]:`, torchrun's `[default3]:`, srun's
# `3: `, and plain `rank 3: ` or `rank=3`. Node prefixes of our own may stand before it.
_RANK = rb"(?:\[(?:[^\]\n]*:)?(?:default|rank) ?%s\]|%s: |.{0,64}?\brank[ =:]%s\b)"
_ERROR = (
    rb"\b(?:ERROR|CRITICAL|FATAL|[Ee]rror|[Ff]atal|[Ee]xception|Traceback|out of memory|"
    rb"[Kk]illed)\b|\b[A-Z]\w*(?:Error|Exception)\b"
)
_WARNING = rb"\b(?:WARN|WARNING|Warning|warning)\b|\b[A-Z]\w*Warning\b"

TROUBLE = re.compile(_ERROR)
"""An error, anywhere in a line: what the jump to the next error looks for."""


@dataclass(frozen=True)
class LogFilter:
    """Which lines are wanted. Without any demand, all are.

    The lines below a serious one that are indented (a traceback's frames) go with it.

    Attributes:
        rank: only what this rank says. The first speaks for the run: lines without the mark of
            any rank are taken for its own.
        level: only lines at least so serious.
    """

    rank: int | None = None
    level: Level | None = None

    def __bool__(self) -> bool:
        return self.rank is not None or self.level is not None

    def __str__(self) -> str:
        """In words: `rank 3, errors`."""
        words = [] if self.rank is None else [f"rank {self.rank}"]
        if self.level is not None:
            words.append("errors" if self.level == "error" else "warnings and errors")
        return ", ".join(words) or "all lines"

    def options(self) -> list[str]:
        """What `tunedeck runs logs` takes for the same."""
        words = [] if self.rank is None else ["--rank", str(self.rank)]
        return words + ([] if self.level is None else ["--level", self.level])

    def chooser(self) -> Callable[[bytes], bool]:
        """Tells of one line after the other whether it is wanted."""
        rank, level = self._rank, self._level
        serious = False

        def wanted(line: bytes) -> bool:
            nonlocal serious
            if level is not None:
                serious = (serious and _FRAME.match(line) is not None) or bool(level.search(line))
                if not serious:
                    return False
            return rank is None or rank.match(line) is not None

        return wanted

    @cached_property
    def _rank(self) -> re.Pattern[bytes] | None:
        if self.rank is None:
            return None
        own = _of_rank(str(self.rank).encode())
        return re.compile(own if self.rank else rb"%s|(?!%s)" % (own, _of_rank(rb"\d+")))

    @cached_property
    def _level(self) -> re.Pattern[bytes] | None:
        if self.level is None:
            return None
        return re.compile(_ERROR if self.level == "error" else _ERROR + b"|" + _WARNING)


def _of_rank(number: bytes) -> bytes:
    return _RANK % (number, number, number)


_FRAME = re.compile(rb"(?:\[[^\]\n]{1,32}\]:?|\d+:)?[ \t]{2,}\S")
