"""What a Lepton workspace says of a plan before anything is submitted."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ...errors import NotFoundError, UsageError
from ...findings import Edit, Finding, Fix
from ...plan import Plan
from ...text import did_you_mean
from ..cloud.checks import gathered
from ..cloud.mounted import check_mounted
from .client import SIGN_IN, Lepton, id_of, name_of
from .inventory import gpus_of, shape_row, shapes
from .job import CARRIER_SHAPE, PRIORITIES, Job, priority_class, profile_of
from .submit import node_group_id

_QUEUE_KEYS = ("queue_priority", "can_be_preempted", "can_preempt")


def check_plan(plan: Plan) -> list[Finding]:
    """What needs no network."""
    found = []
    if plan.profile_values.get("ray_version") and not plan.step.startswith("rl/"):
        text = "ray_version has no effect: the step is one job, and no Ray cluster is made for it."
        found.append(Finding("info", text, profile=plan.profile, key="ray_version"))
    profile = profile_of(plan.profile_values)
    if profile.queue_priority and priority_class(profile.queue_priority) is None:
        text = f"'{profile.queue_priority}' is no priority class of Lepton."
        fix = Fix(f"Set queue_priority to one of: {', '.join(PRIORITIES.values())}.")
        found.append(Finding("error", text, profile=plan.profile, key="queue_priority", fix=fix))
    mounts = [mount.target for mount in profile.mounted()]
    return [*found, *check_mounted(plan, mounts)]


async def check_service(lepton: Lepton, plan: Plan, job: Job) -> list[Finding]:
    """What the service says: one look each, side by side, once the token is known to be good.

    Raises:
        AuthenticationError: if there is no token, or it is refused.
        NotFoundError: if there is no such workspace.
        ReachError: if the service cannot be reached.
    """
    try:
        await lepton.get("/workspace")
    except NotFoundError as error:
        raise UsageError(f"There is no such workspace: {error.message}", fix=SIGN_IN) from error
    try:
        group = await node_group_id(lepton, str(plan.profile_values.get("node_group")))
    except UsageError as error:
        fix = Fix(error.fix)
        return [Finding("error", error.message, profile=plan.profile, key="node_group", fix=fix)]
    return await gathered(
        _shape(lepton, plan, job, group),
        _secrets(lepton, plan),
        _storage(lepton, plan, group),
        _reservation(lepton, plan, group),
        _queue(lepton, plan, group),
        sign_in=SIGN_IN,
    )


async def _shape(lepton: Lepton, plan: Plan, job: Job, group: str) -> AsyncGenerator[Finding]:
    offered = {shape_row(shape)["name"]: shape for shape in await shapes(lepton, group)}
    wanted = str(job.body["spec"]["resource_shape"])
    names = ", ".join(sorted(offered)) or "none"
    if wanted not in offered:
        near = did_you_mean(wanted, offered)
        yield Finding(
            "error",
            f"The node group offers no shape '{wanted}'. {near}".rstrip(),
            profile=plan.profile,
            key="resource_shape",
            fix=Fix(f"Set resource_shape to one of: {names}."),
        )
    elif gpus_of(offered[wanted]) < plan.launch.gpus_per_node:
        has = gpus_of(offered[wanted])
        yield Finding(
            "error",
            f"The shape {wanted} has {has} GPUs; the plan asks for {plan.launch.gpus_per_node}.",
            profile=plan.profile,
            key="resource_shape",
            fix=Fix(
                f"Choose a larger shape ({names}), or set gpus_per_node = {has}.",
                Edit("set", "gpus_per_node", has),
            ),
        )
    carrier = str(plan.profile_values.get("carrier_shape") or CARRIER_SHAPE)
    if job.place.parcels and job.place.parcels.ahead and carrier not in offered:
        yield Finding(
            "error",
            f"Inputs are brought by small jobs of the shape {carrier}, which is not offered.",
            profile=plan.profile,
            key="carrier_shape",
            fix=Fix(f"Set carrier_shape to the smallest of: {names}."),
        )


async def _secrets(lepton: Lepton, plan: Plan) -> AsyncGenerator[Finding]:
    if not plan.secrets:
        return
    known = await lepton.secret_names()
    for secret in plan.secrets:
        name = secret.source if secret.remote else secret.name
        if secret.remote and name not in known:
            yield Finding(
                "error",
                f"The workspace has no secret '{name}'. {did_you_mean(name, known)}".rstrip(),
                profile=plan.profile,
                key=f"secrets.{secret.name}",
                fix=Fix(f"Add it: lep secret create -n {name} -v …, or name another."),
            )
        elif not secret.remote and name in known and os.environ.get(secret.source):
            text = f"{name} is the workspace's secret of that name, not this shell's."
            yield Finding("info", text, profile=plan.profile, key=f"secrets.{secret.name}")
        elif not secret.remote and os.environ.get(secret.source):
            text = f"{name} will be kept as a secret of the workspace."
            yield Finding("info", text, profile=plan.profile, key=f"secrets.{secret.name}")


async def _storage(lepton: Lepton, plan: Plan, group: str) -> AsyncGenerator[Finding]:
    groups = {id_of(row): row for row in await lepton.node_groups()}
    volumes = (groups[group].get("spec") or {}).get("volumes") or []
    known = {f"node-{volume.get('from')}:{volume.get('name')}" for volume in volumes}
    for number, mount in enumerate(profile_of(plan.profile_values).mounts):
        if mount.source == "node-local" or mount.source in known or not known:
            continue
        yield Finding(
            "error",
            f"The node group has no storage '{mount.source}'. "
            f"{did_you_mean(str(mount.source), known)}".rstrip(),
            profile=plan.profile,
            key=f"mounts.{number}.from",
            fix=Fix(f"Set from to one of: node-local, {', '.join(sorted(known))}."),
        )


async def _queue(lepton: Lepton, plan: Plan, group: str) -> AsyncGenerator[Finding]:
    asked = [key for key in _QUEUE_KEYS if plan.profile_values.get(key) is not None]
    if not asked:
        return
    row = next(row for row in await lepton.node_groups() if id_of(row) == group)
    if not (row.get("status") or {}).get("quota_enabled"):
        yield Finding(
            "warning",
            f"The node group {name_of(row)} has no queue with priorities.",
            profile=plan.profile,
            key=asked[0],
            fix=Fix(f"Leave out {', '.join(asked)}, or choose another node group."),
        )


async def _reservation(lepton: Lepton, plan: Plan, group: str) -> AsyncGenerator[Finding]:
    wanted = plan.profile_values.get("node_reservation")
    if not wanted:
        return
    rows = await lepton.rows(f"/dedicated-node-groups/{group}/reservations")
    known: Mapping[str, Any] = {id_of(row): row for row in rows}
    if str(wanted) not in known:
        yield Finding(
            "error",
            f"The node group has no reservation '{wanted}'. "
            f"{did_you_mean(str(wanted), known)}".rstrip(),
            profile=plan.profile,
            key="node_reservation",
            fix=Fix(f"Set it to one of: {', '.join(sorted(known)) or 'none is there'}."),
        )
        return
    row = known[str(wanted)]
    if (phase := (row.get("status") or {}).get("phase")) in ("Rejected", "Expired"):
        text = f"The reservation {name_of(row)} is {str(phase).lower()}."
        fix = Fix("Name another, or leave node_reservation out.")
        yield Finding("error", text, profile=plan.profile, key="node_reservation", fix=fix)
