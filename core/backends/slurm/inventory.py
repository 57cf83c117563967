"""What a cluster has: partitions and their limits, GPUs, and the queue."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from ...ssh import Machine
from .reasons import in_words
from .shell import run_slurm

_ASK = """\
echo "V|$(sbatch --version)"
sinfo -h -o 'P|%R|%a|%l|%D|%F|%G|%c|%m'
sinfo -h -N -O 'Partition:|,NodeList:|,StateLong:|,Gres:|,GresUsed:' 2> /dev/null | sed 's/^/N|/'
squeue -h -u "$(id -un)" -o 'J|%i|%P|%T|%r|%S|%M|%l|%D|%j'
squeue -h -o 'W|%P|%T'
"""
_GPUS = re.compile(r"gpu(?::[\w.-]+)?:(\d+)")


async def inventory(machine: Machine) -> dict[str, Any]:
    """The cluster as it is now.

    Returns:
        `version`; `partitions`, each with `name`, `state`, `time_limit`, `nodes`, `idle_nodes`,
        `gpus`, `gpus_free`, `cpus_per_node`, `memory_per_node` (MiB), `pending` and `running`;
        `jobs`, my own, each with `job_id`, `name`, `partition`, `state`, `reason`, `starts_at`
        (Unix seconds or None), `elapsed`, `time_limit`, `nodes`.

    Raises:
        ReachError: if the machine or Slurm's controller does not answer.
    """
    done = await run_slurm(machine, _ASK)
    found: dict[str, Any] = {"version": "", "partitions": {}, "jobs": []}
    for line in done.out.splitlines():
        kind, *rest = line.split("|")
        if reader := _READERS.get(kind):
            with suppress(ValueError, IndexError):  # a line of another version's form
                reader(found, [text.strip() for text in rest])
    return {**found, "partitions": list(found["partitions"].values())}


def _version(found: dict[str, Any], rest: list[str]) -> None:
    found["version"] = rest[0].rpartition(" ")[2]


def _partition(found: dict[str, Any], rest: list[str]) -> None:
    name, state, limit, nodes, by_state, _gres, cpus, memory = rest[:8]
    idle = int(by_state.split("/")[1])
    known = found["partitions"].setdefault(
        name,
        {
            "name": name,
            "state": state,
            "time_limit": limit,
            "nodes": 0,
            "idle_nodes": 0,
            "gpus": 0,
            "gpus_free": 0,
            "cpus_per_node": int(cpus.rstrip("+")),
            "memory_per_node": int(memory.rstrip("+")),
            "pending": 0,
            "running": 0,
        },
    )
    known["nodes"] += int(nodes)
    known["idle_nodes"] += idle


def _node(found: dict[str, Any], rest: list[str]) -> None:
    partition, _node_name, state, gres, used = (*rest, "", "", "", "", "")[:5]
    if (known := found["partitions"].get(partition.rstrip("*"))) is None:
        return
    has = gpus_in(gres)
    known["gpus"] += has
    if not state.startswith(("down", "drain", "fail", "maint", "reserved")):
        known["gpus_free"] += max(0, has - gpus_in(used))


def _job(found: dict[str, Any], rest: list[str]) -> None:
    job, partition, state, reason, starts, elapsed, limit, nodes, *name = rest
    found["jobs"].append(
        {
            "job_id": job,
            "name": "|".join(name),  # last, because people may put a bar into it
            "partition": partition,
            "state": state,
            "reason": "" if reason == "None" else in_words(reason),
            "starts_at": int(starts) if starts.isdigit() else None,
            "elapsed": elapsed,
            "time_limit": limit,
            "nodes": int(nodes),
        }
    )


def _waiting(found: dict[str, Any], rest: list[str]) -> None:
    for name in rest[0].split(","):
        if known := found["partitions"].get(name):
            known["running" if rest[1] == "RUNNING" else "pending"] += 1


def gpus_in(gres: str) -> int:
    """The GPUs of a node's generic resources, such as `gpu:a100:4(S:0-1),nvme:1`."""
    return sum(int(match[1]) for match in _GPUS.finditer(gres))


_READERS = {"V": _version, "P": _partition, "N": _node, "J": _job, "W": _waiting}
