"""Why a run failed: the cause found in its log, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..text import strip_controls
from .symptoms import SYMPTOMS

_TAIL_BYTES = 1 << 18
_EVIDENCE_LENGTH = 300


class StepError(Protocol):
    """A failure that a step's manifest knows: its name, the way out, and how its log tells it."""

    @property
    def name(self) -> str:
        """A short name, `out_of_memory`."""
        ...

    @property
    def recovery(self) -> str:
        """What to do, in sentences."""
        ...

    @property
    def pattern(self) -> str | None:
        """A regular expression; None where the name alone must tell."""
        ...


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What went wrong, the log line that shows it, and advice, the step's own first."""

    cause: str
    evidence: str
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data for `runs show --json`."""
        return {"cause": self.cause, "evidence": self.evidence, "advice": list(self.advice)}


_TRAINER_ERROR = re.compile("tunedeck: error:")
_TRAINER_FIX = re.compile("tunedeck: fix:")
_PYTHON_ERROR = re.compile(r"^(?:\[?\w+\]?:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt)): .+")
# A rank that dies says nothing, and those that waited for it all complain.
_LOST_RANK = re.compile(r"tunedeck: (rank \d+) ended first, with signal (4|6|7|8|9|11)\b")
_ECHO = re.compile(r"Connection (closed|reset) by peer|another process of the run ended")
_SIGNAL_ADVICE = {
    137: "If the machine ran short of memory, use a smaller batch, sequence length or model.",
    139: "A crash in native code: check that torch, driver and packages fit together.",
    143: "Something outside asked it to end; see whether the machine was shut down.",
}


def diagnose(
    log_tail: str,
    *,
    exit_code: int | None = None,
    reason: str = "",
    step_errors: Iterable[StepError] = (),
) -> Diagnosis:
    """Find the cause of a failure.

    Args:
        log_tail: the end of the run's log.
        exit_code: the job's own exit code, where it is known.
        reason: what the backend says; the cause where the log tells none.
        step_errors: what the step's manifest knows of failures. Its advice comes before ours.
    """
    lines = strip_controls(log_tail.replace("\r", "\n")).splitlines()
    cause, evidence, advice = (
        _from_lost_rank(lines)
        or _from_trainer(lines)
        or _from_log(lines)
        or _from_exit(lines, exit_code, reason)
    )
    known = [error for error in step_errors if _applies(error, lines, cause)]
    own = tuple(error.recovery for error in known)
    if known and not advice:
        name = known[0].name.replace("_", " ")
        found = _last_match(re.compile(known[0].pattern), lines) if known[0].pattern else None
        return Diagnosis(name, found or evidence, own)
    return Diagnosis(cause, evidence, own or ((advice,) if advice else ()))


def read_tail(log: Path) -> str:
    """The end of a log, for `diagnose`. A log that is not there is empty."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def _from_lost_rank(lines: list[str]) -> tuple[str, str, str] | None:
    """A rank that a signal ended, or what the log tells of why it did."""
    evidence = _last_match(_LOST_RANK, lines)
    found = _LOST_RANK.search(evidence) if evidence else None
    if evidence is None or found is None:
        return None
    if told := _from_log([line for line in lines if not _ECHO.search(line)]):
        return told
    advice = _SIGNAL_ADVICE.get(128 + int(found[2]), _SIGNAL_ADVICE[139])
    return f"{found[1]} was ended by signal {found[2]}", evidence, advice


def _from_trainer(lines: list[str]) -> tuple[str, str, str] | None:
    """What the trainer itself says, which knows best: the error, then the way out."""
    error = _last_match(_TRAINER_ERROR, lines)
    if error is None:
        return None
    said = error.partition(_TRAINER_ERROR.pattern)[2].strip()
    fix = _last_match(_TRAINER_FIX, lines) or ""
    symptom = _from_log([said])
    advice = fix.partition(_TRAINER_FIX.pattern)[2].strip() or (symptom[2] if symptom else "")
    return symptom[0] if symptom else said, error, advice


def _from_log(lines: list[str]) -> tuple[str, str, str] | None:
    for symptom in SYMPTOMS:
        evidence = _last_match(symptom.pattern, lines)
        if evidence is not None:
            return symptom.cause, evidence, symptom.advice
    return None


def _from_exit(lines: list[str], exit_code: int | None, reason: str) -> tuple[str, str, str]:
    """The last Python error, else what the backend says."""
    evidence = _last_match(_PYTHON_ERROR, lines)
    advice = _SIGNAL_ADVICE.get(exit_code or 0, "")
    if evidence is not None and not advice:
        found = _PYTHON_ERROR.search(evidence)
        name = found[1].rpartition(".")[2] if found else "error"
        return f"the program ended with a {name}", evidence, ""
    said = [line for line in lines if line.strip() and not line.startswith("tunedeck: exit=")]
    return reason or f"exit code {exit_code}", _cut(said[-1]) if said else "", advice


def _last_match(pattern: re.Pattern[str], lines: list[str]) -> str | None:
    return next((_cut(line) for line in reversed(lines) if pattern.search(line)), None)


def _cut(line: str) -> str:
    line = line.strip()
    return line if len(line) <= _EVIDENCE_LENGTH else line[: _EVIDENCE_LENGTH - 1] + "…"


def _applies(error: StepError, lines: list[str], cause: str) -> bool:
    """By its pattern; a manifest of others that gives none is matched by the words of its name."""
    if error.pattern:
        return _last_match(re.compile(error.pattern), lines) is not None
    words = re.findall(r"[a-z0-9]+", error.name.casefold())
    return bool(words) and set(words) <= set(re.findall(r"[a-z0-9]+", cause.casefold()))
