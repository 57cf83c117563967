"""Why a job waits, in words for those who do not know Slurm's; its own word stays beside them."""

from __future__ import annotations

_WORDS = {
    "AccountNotAllowed": "its account may not use this partition",
    "BadConstraints": "no node has what 'constraint' asks for",
    "BeginTime": "it may not begin before a set time, as after it was queued again",
    "Cleaning": "its last try is still being cleaned up",
    "Dependency": "a job that it depends on has not ended yet",
    "DependencyNeverSatisfied": "the job that it depends on ended otherwise than it asks for: it "
    "will never start",
    "InvalidAccount": "its account is not valid",
    "InvalidQOS": "its QOS is not valid",
    "JobArrayTaskLimit": "as many tasks of its array run as may at a time",
    "JobHeldAdmin": "held by the cluster's administrators: only they can release it",
    "JobHeldUser": "held: scontrol release JOB lets it go",
    "JobHoldMaxRequeue": "held: queued again too often; scontrol release JOB lets it go",
    "job requeued in held state": "held as it was queued again: scontrol release JOB lets it go",
    "launch failed requeued held": "held because a node could not start it: scontrol release JOB "
    "lets it go",
    "Licenses": "it waits for a licence",
    "MaxMemPerLimit": "it asks for more memory than is allowed",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition starts no jobs now",
    "PartitionNodeLimit": "it asks for more nodes than the partition gives a job, or all of those "
    "it may use are down",
    "PartitionTimeLimit": "its time limit is longer than the partition allows: it will not start",
    "Priority": "jobs of a higher priority are before it",
    "Prolog": "its nodes are being prepared",
    "QOSNotAllowed": "its QOS may not be used here",
    "ReqNodeNotAvail": "a node that it asks for is down, reserved or taken",
    "Reservation": "its reservation has not begun",
    "ReservationDeleted": "its reservation is gone: it will not start",
    "Resources": "it is the next to get nodes once some are free",
}
"""As in squeue's manual; the many limits of accounts and QOS are known by how they begin."""

_LIMITS = {"QOS": "QOS", "Assoc": "account"}


def in_words(reason: str) -> str:
    """What Slurm's reason for a pending job means, and the reason; alone where it is not known."""
    if words := _WORDS.get(reason) or _WORDS.get(reason.partition(",")[0]):
        return f"{words} ({reason})"
    for begin, whose in _LIMITS.items():
        if reason.startswith(begin):
            return f"a limit of its {whose} keeps it back ({reason})"
    return reason
