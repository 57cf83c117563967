"""What sbatch means when it refuses a job: the words, the key of the profile, the way out."""

from __future__ import annotations

from ...errors import UsageError
from ...findings import Finding, Fix
from .shell import last_line

_REFUSALS = (
    ("nvalid account", "account", "See yours: sacctmgr show associations user=$USER"),
    ("nvalid partition", "partition", "See what there is: tunedeck queue PROFILE"),
    ("nvalid qos", "qos", "See yours: sacctmgr show associations user=$USER format=account,qos"),
    ("time limit is invalid", "time", "Ask for less: sinfo -o '%P %l' shows each limit."),
    ("PartitionTimeLimit", "time", "Ask for less: sinfo -o '%P %l' shows each limit."),
    ("nvalid generic resource", "gres", "See what the nodes have: sinfo -o '%P %G'"),
    ("nvalid feature", "constraint", "See what the nodes have: sinfo -o '%P %f'"),
    ("Node count specification", "nodes", "Ask for fewer nodes."),
    ("More processors requested", "cpus_per_task", "Ask for fewer processors."),
    ("Memory specification", "mem", "Ask for less memory."),
    ("node configuration is not available", "nodes", "No nodes are like that: see sinfo -Nl"),
    ("eservation", "reservation", "See what there is: scontrol show reservation"),
    ("ependency", "dependency", "Check the job ids in it."),
    ("nvalid node name", "nodelist", "See the nodes: sinfo -N"),
    ("nrecognized option", "additional_parameters", "Check the option's name: man sbatch"),
    ("QOSMax", "qos", "A limit of your QOS is reached; wait, or ask for less."),
    ("AssocMax", "account", "A limit of your account is reached; wait, or ask for less."),
    ("AssocGrp", "account", "A limit of your account is reached; wait, or ask for less."),
)


def sbatch_error(said: str, host: str) -> UsageError:
    """The error for a job that sbatch on `host` did not take."""
    finding = sbatch_finding(said, None)
    key = f" (profile key '{finding.key}')" if finding.key else ""
    return UsageError(f"Slurm on {host} refuses the job{key}: {_words(said)}",
                      fix=finding.fix.words if finding.fix else "")  # fmt: skip


def sbatch_finding(said: str, profile: str | None) -> Finding:
    """The same as a finding, for preflight."""
    for words, key, advice in _REFUSALS:
        if words in said:
            return Finding("error", _words(said), profile=profile, key=key, fix=Fix(advice))
    return Finding("error", _words(said), profile=profile)


def _words(said: str) -> str:
    """The reason that sbatch gives, without its prefixes."""
    lines = [line for line in said.splitlines() if "error:" in line.lower()] or [last_line(said)]
    for prefix in ("sbatch: ", "error: ", "allocation failure: "):
        lines = [line.removeprefix(prefix) for line in lines]
    *first, last = lines
    return "; ".join([*(line.rstrip(" .") for line in first), last])
