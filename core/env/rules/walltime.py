"""Time limits, in the form that the place they go to reads."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...findings import Edit, Finding
from .subject import Subject

# sbatch(1): minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes and
# days-hours:minutes:seconds. The first of the parts may be of any size.
_SLURM = re.compile(
    r"(?P<minutes>\d+)(?::(?P<seconds>[0-5]?\d))?"
    r"|(?P<hours>\d+):(?P<m>[0-5]?\d):(?P<s>[0-5]?\d)"
    r"|(?P<days>\d+)-(?P<dh>[01]?\d|2[0-3])(?::(?P<dm>[0-5]?\d)(?::(?P<ds>[0-5]?\d))?)?"
)
_UNLIMITED = ("UNLIMITED", "INFINITE")
_UNITS = re.compile(
    r"(?:(?P<d>\d+)\s*d(?:ays?)?)?\s*(?:(?P<h>\d+)\s*h(?:ours?|rs?)?)?\s*"
    r"(?:(?P<m>\d+)\s*m(?:in(?:ute)?s?)?)?\s*(?:(?P<s>\d+)\s*s(?:ec(?:ond)?s?)?)?",
    re.IGNORECASE,
)
_HF = re.compile(r"(?P<count>\d+(?:\.\d+)?)(?P<unit>[smhd]?)")
_HF_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SOON = 10 * 60


def slurm_seconds(text: str) -> int | None:
    """Seconds of a time limit as sbatch reads it, None if it does not."""
    match = _SLURM.fullmatch(text)
    if match is None:
        return None
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    minutes = part["minutes"] + part["m"] + part["dm"]
    hours = part["hours"] + part["dh"] + 24 * part["days"]
    return part["seconds"] + part["s"] + part["ds"] + 60 * minutes + 3600 * hours


def units_seconds(text: str) -> int | None:
    """Seconds of `1h30m` and the like, None for any other form."""
    match = _UNITS.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes, seconds = (int(match[name] or 0) for name in "dhms")
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def hf_seconds(text: str) -> int | None:
    """Seconds of a time limit as Hugging Face Jobs reads it (`90`, `30m`, `1.5h`), else None."""
    match = _HF.fullmatch(text)
    return int(float(match["count"]) * _HF_UNITS[match["unit"] or "s"]) if match else None


def clock(seconds: int) -> str:
    """Seconds as HH:MM:SS."""
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def time_limits(subject: Subject) -> Iterable[Finding]:
    """`time`, `build_time` and `timeout`."""
    for key in ("time", "build_time", "timeout"):
        value = subject.values.get(key)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            continue
        rule = _hf_time if subject.executor == "hf_jobs" else _clock_time
        yield from rule(subject, key, str(value).strip())


def _clock_time(subject: Subject, key: str, text: str) -> Iterable[Finding]:
    seconds = slurm_seconds(text)
    if text.upper() in _UNLIMITED:
        return
    if seconds is None:
        meant = units_seconds(text)
        fix = clock(meant) if meant else "04:00:00"
        yield subject.finding(
            "error",
            key,
            f"'{text}' is no time limit; the form is HH:MM:SS or D-HH:MM:SS.",
            f'Write it like this: {key} = "{fix}"',
            Edit("set", key, fix) if meant else None,
        )
    elif seconds == 0:
        yield subject.finding(
            "error", key, f"'{text}' is a time limit of nothing.", "Give the run some time."
        )
    elif text.count(":") == 1 and "-" not in text and seconds < _SOON:
        hours, minutes = text.split(":")
        fix = f"{int(hours):02d}:{int(minutes):02d}:00"
        yield subject.finding(
            "warning",
            key,
            f"'{text}' is minutes:seconds: the run is stopped after {seconds / 60:.0f} minutes.",
            f'If hours were meant, write {key} = "{fix}"',
            Edit("set", key, fix),
        )


def _hf_time(subject: Subject, key: str, text: str) -> Iterable[Finding]:
    match = _HF.fullmatch(text)
    if match is not None and float(match["count"]) > 0:
        return
    meant = slurm_seconds(text) or units_seconds(text) if match is None else None
    fix = _hf_form(meant) if meant else "2h"
    yield subject.finding(
        "error",
        key,
        f"'{text}' is no time limit; the form is a number with s, m, h or d.",
        f'Write it like this: {key} = "{fix}"',
        Edit("set", key, fix) if meant else None,
    )


def _hf_form(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
