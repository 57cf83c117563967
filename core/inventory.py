"""What a place has now, as tables: one shape for every backend's answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import UsageError

_SPELLED = {"gpu": "GPU", "gpus": "GPUs", "cpu": "CPU", "cpus": "CPUs", "usd": "USD"}
_MEMORY_WORDS = ("memory", "memory_per_node")
_GIB = 1 << 30
_NARROWEST = 6


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings.

    Attributes:
        title: what they are.
        head: the headings.
        rows: a text per heading.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self, width: int | None = None) -> list[str]:
        """Headings and rows, each column as wide as its widest text; `none` without rows.

        Args:
            width: characters that a line may take: the widest columns are cut until it fits.
        """
        if not self.rows:
            return ["none"]
        rows = [self.head, *self.rows] if any(self.head) else list(self.rows)
        widths = [max(len(row[at]) for row in rows) for at in range(len(self.head))]
        while width is not None and sum(widths) + 2 * len(widths) - 2 > width:
            widest = widths.index(max(widths))
            if widths[widest] <= _NARROWEST:
                break
            widths[widest] -= 1
        return [
            "  ".join(_cut(text, w).ljust(w) for text, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]


async def inventory_of(executor: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the backend of a resolved profile what it has. Uses the network.

    Raises:
        UsageError: if there is no such backend, or it keeps no inventory.
        ReachError: if it cannot be reached.
    """
    from .backends.base import TellsInventory, load_backend

    backend = load_backend(executor, dict(values))
    if not isinstance(backend, TellsInventory):
        raise UsageError(
            f"The executor {backend.name} has no queue.",
            fix="Name a profile of a cluster or a service; see them: tunedeck env list",
        )
    return await backend.inventory(dict(values))


def tables_of(found: Mapping[str, Any]) -> list[Table]:
    """An inventory as tables: lists of tables each as one, single values together first."""
    single = {key: value for key, value in found.items() if not _is_rows(value)}
    tables = []
    if single:
        rows = tuple((_words(key), _shown(key, value)) for key, value in single.items())
        tables.append(Table("", ("", ""), rows))
    for key, value in found.items():
        if _is_rows(value):
            tables.append(_KNOWN[key](value) if key in _KNOWN else _table(key, value))
    return tables


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, Mapping) for row in value)


def _table(key: str, rows: list[Mapping[str, Any]]) -> Table:
    keys = list(dict.fromkeys(name for row in rows for name in row))
    return Table(
        _words(key),
        tuple(_words(name) for name in keys),
        tuple(tuple(_shown(name, row.get(name)) for name in keys) for row in rows),
    )


def _partitions(rows: list[Mapping[str, Any]]) -> Table:
    return Table(
        "Partitions",
        ("name", "state", "limit", "nodes idle", "GPUs free", "running", "pending"),
        tuple(
            (
                str(row["name"]),
                str(row["state"]),
                str(row["time_limit"]),
                f"{row['idle_nodes']} of {row['nodes']}",
                f"{row['gpus_free']} of {row['gpus']}",
                str(row["running"]),
                str(row["pending"]),
            )
            for row in rows
        ),
    )


def _jobs(rows: list[Mapping[str, Any]]) -> Table:
    """Slurm's jobs are in partitions; those of the clouds have columns of their own."""
    if any("partition" not in row for row in rows):
        return replace(_table("jobs", rows), title="My jobs")
    return Table(
        "My jobs",
        ("job", "name", "partition", "state", "elapsed", "nodes", "waits for"),
        tuple(
            (
                str(row["job_id"]),
                str(row["name"]),
                str(row["partition"]),
                str(row["state"]).lower(),
                str(row["elapsed"]),
                str(row["nodes"]),
                _waits(row),
            )
            for row in rows
        ),
    )


def _waits(job: Mapping[str, Any]) -> str:
    """Why a job waits, and from when on it may run."""
    if job["state"] != "PENDING":
        return ""
    if job["starts_at"] is None:
        return str(job["reason"])
    starts = time.strftime("%a %H:%M", time.localtime(job["starts_at"]))
    return f"{job['reason']}; to start {starts}"


_KNOWN = {"partitions": _partitions, "jobs": _jobs}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _words(key: str) -> str:
    text = " ".join(_SPELLED.get(word, word) for word in key.split("_"))
    return text[:1].upper() + text[1:] if text[:1].islower() else text


def _shown(key: str, value: Any) -> str:
    if value is None or value == []:
        return "none" if value == [] else ""
    if key in _MEMORY_WORDS and isinstance(value, int) and value >= _GIB:
        return f"{value / _GIB:.1f} GiB"
    if key.startswith("usd_"):
        return f"{value:.2f}"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)
