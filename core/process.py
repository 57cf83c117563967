"""Which process is meant: a pid alone is reused, so a start time and a boot go with it."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RUN_ID_VARIABLE = "TUNEDECK_RUN_ID"
"""Every process of a run carries the run's id in its environment, and can be found by it."""

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessMark:
    """One process, told apart from every other one that has had or will have its pid.

    Attributes:
        pid: the process id.
        started: when it started, in the system's own words (clock ticks, or what `ps` prints).
        boot: which start of the machine it belongs to.
        host: the machine's name, for a home folder that several machines share.
    """

    pid: int
    started: str
    boot: str
    host: str

    @classmethod
    def of(cls, pid: int) -> ProcessMark | None:
        """The mark of a living process, or None if there is none of that pid."""
        started = _start_time(pid)
        return None if started is None else cls(pid, started, boot_id(), platform.node())

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProcessMark:
        """Read back what `to_json` gave."""
        return cls(int(data["pid"]), str(data["started"]), str(data["boot"]), str(data["host"]))

    def to_json(self) -> dict[str, Any]:
        """Plain data for a record."""
        return asdict(self)

    @property
    def same_boot(self) -> bool:
        """Whether the machine has not been restarted since."""
        return self.boot == boot_id()

    @property
    def elsewhere(self) -> bool:
        """Whether it belongs to another machine, from where alone it can be seen."""
        return not self.same_boot and self.host != platform.node()

    @property
    def alive(self) -> bool:
        """Whether this very process is still there. A zombie is not: it has ended."""
        return self.same_boot and _start_time(self.pid) == self.started


def boot_id() -> str:
    """A word that is another one after each restart of the machine."""
    linux = _PROC / "sys/kernel/random/boot_id"
    if linux.exists():
        return linux.read_text().strip()
    return _output("sysctl", "-n", "kern.bootsessionuuid")


def _start_time(pid: int) -> str | None:
    if _PROC.joinpath("self/stat").exists():
        fields = _stat(pid)
        return None if fields is None or fields[0] in "ZX" else fields[19]
    state, _, started = _output("ps", "-o", "stat=,lstart=", "-p", str(pid)).partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` after the command's name, from the state on; see proc(5)."""
    try:
        text = _PROC.joinpath(str(pid), "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def processes_of(run_id: str, group: int | None) -> list[int]:
    """The living processes of a run: those that carry its id, and those of its process group.

    torchrun puts each rank into a session of its own, so the group alone would leave ranks behind
    on the GPUs. Where environments cannot be read (no `/proc`) it is the group and its descendants.

    Args:
        run_id: the run whose processes are meant.
        group: the process group that its command was started in; None where its leader has ended
            and the number may have been given to another group since.
    """
    if not _PROC.joinpath("self/stat").exists():
        return [] if group is None else _descendants(group)
    needle = f"{RUN_ID_VARIABLE}={run_id}".encode()
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or (pid := int(entry.name)) == os.getpid():
            continue
        fields = _stat(pid)
        if fields is None or fields[0] in "ZX":
            continue
        if int(fields[2]) == group or needle in _environment(pid):
            found.append(pid)
    return found


def _environment(pid: int) -> list[bytes]:
    try:
        return _PROC.joinpath(str(pid), "environ").read_bytes().split(b"\0")
    except OSError:
        return []  # another user's process, or one that has just ended


def _descendants(group: int) -> list[int]:
    rows = [line.split() for line in _output("ps", "-axo", "pid=,ppid=,pgid=,stat=").splitlines()]
    found: set[int] = set()
    grown = True
    while grown:
        members = {
            int(pid)
            for pid, parent, own_group, state in rows
            if not state.startswith("Z") and (int(own_group) == group or int(parent) in found)
        }
        grown = not members <= found
        found |= members
    return sorted(found - {os.getpid()})


def signal_all(pids: list[int], number: int) -> None:
    """Send a signal to each process; one that has ended meanwhile is passed over."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
