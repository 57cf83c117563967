"""What a Run:ai control plane says of a plan before anything is submitted."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from ...errors import NotFoundError, UsageError
from ...findings import Finding, Fix
from ...plan import Plan
from ...text import did_you_mean
from ..cloud.checks import gathered
from ..cloud.mounted import check_mounted
from .client import SIGN_IN, RunAI
from .inventory import gpu_quota, node_pools
from .job import profile_of, secret_place
from .submit import secret_resources

_SOUND = ("Connected", "", "Unknown")


def check_plan(plan: Plan) -> list[Finding]:
    """What needs no network."""
    mounts = [mount.target for mount in profile_of(plan.profile_values).mounted()]
    return check_mounted(plan, mounts)


async def check_service(runai: RunAI, plan: Plan) -> list[Finding]:
    """What the service says: one look each, side by side, once project and token are known good.

    Raises:
        AuthenticationError: if the credential is missing or refused.
        ReachError: if the service cannot be reached.
    """
    try:
        project = await runai.project()
    except UsageError as error:
        fix = Fix(error.fix)
        return [Finding("error", error.message, profile=plan.profile, key="project_name", fix=fix)]
    found = await gathered(
        _cluster(runai, plan, project),
        _pools(runai, plan, project),
        _volumes(runai, plan, project),
        _secrets(runai, plan, project),
        sign_in=SIGN_IN,
    )
    return [*_quota(plan, project), *found]


def _quota(plan: Plan, project: Mapping[str, Any]) -> list[Finding]:
    quota, wanted = gpu_quota(project), plan.launch.gpus_per_node * plan.launch.nodes
    if quota is None or wanted <= quota:
        return []
    text = (
        f"The plan asks for {wanted} GPUs; project {project.get('name')} is entitled to {quota:g}. "
        "It runs on what others leave free, and may be preempted."
    )
    return [Finding("warning", text, profile=plan.profile, key="gpus_per_node")]


async def _cluster(runai: RunAI, plan: Plan, project: Mapping[str, Any]) -> AsyncGenerator[Finding]:
    try:
        cluster = await runai.cluster(str(project.get("clusterId")))
    except NotFoundError as error:
        yield Finding("error", error.message, profile=plan.profile, key="project_name")
        return
    state = str((cluster.get("status") or {}).get("state") or "")
    if state not in _SOUND:
        yield Finding(
            "error",
            f"The cluster {cluster.get('name')} is {state}: nothing can start on it.",
            profile=plan.profile,
            key="project_name",
            fix=Fix("Ask its administrators, or choose a project of another cluster."),
        )
    if not cluster.get("domain") and not plan.profile_values.get("kube_apiserver_url"):
        text = f"The cluster {cluster.get('name')} tells no domain: its logs cannot be followed."
        fix = Fix("Set kube_apiserver_url; a copy of the log is on the volume in any case.")
        yield Finding("warning", text, profile=plan.profile, key="kube_apiserver_url", fix=fix)


async def _pools(runai: RunAI, plan: Plan, project: Mapping[str, Any]) -> AsyncGenerator[Finding]:
    wanted = profile_of(plan.profile_values).node_pools
    if not wanted:
        return
    known = {str(row.get("name")) for row in await node_pools(runai, str(project["clusterId"]))}
    for name in wanted:
        if name not in known:
            yield Finding(
                "error",
                f"The cluster has no node pool '{name}'. {did_you_mean(name, known)}".rstrip(),
                profile=plan.profile,
                key="node_pools",
                fix=Fix(
                    f"Set node_pools to some of: {', '.join(sorted(known)) or 'none is there'}."
                ),
            )


async def _volumes(runai: RunAI, plan: Plan, project: Mapping[str, Any]) -> AsyncGenerator[Finding]:
    params = {"projectId": project["id"]}
    entries = await runai.entries("/asset/datasource/pvc", params)
    specs = [entry.get("spec") or {} for entry in entries]
    names = {str((entry.get("meta") or {}).get("name")) for entry in entries}
    claims = {str(spec["claimName"]) for spec in specs if spec.get("claimName")}
    for number, pvc in enumerate(profile_of(plan.profile_values).pvcs):
        claim = pvc.claim_name or ""
        if pvc.existing_pvc and claim not in claims and (pvc.name or "") not in names:
            # A claim may exist in Kubernetes without being registered as a data source.
            yield Finding(
                "warning",
                f"Run:ai lists no volume claim '{claim}' for the project. "
                f"{did_you_mean(claim, claims)}".rstrip(),
                profile=plan.profile,
                key=f"pvcs.{number}.claimName",
                fix=Fix(f"It lists: {', '.join(sorted(claims)) or 'none'}."),
            )


async def _secrets(runai: RunAI, plan: Plan, project: Mapping[str, Any]) -> AsyncGenerator[Finding]:
    if not plan.secrets:
        return
    known = await secret_resources(runai, project)
    names = {*known, *known.values()}
    for secret in plan.secrets:
        name, key = secret_place(secret)["name"], f"secrets.{secret.name}"
        if secret.remote and name not in names:
            yield Finding(
                "error",
                f"The project has no secret '{name}'. {did_you_mean(name, names)}".rstrip(),
                profile=plan.profile,
                key=key,
                fix=Fix("Make it in Run:ai (Workload manager, Credentials), or name another."),
            )
        elif not secret.remote and os.environ.get(secret.source):
            text = (
                f"{secret.name} is what the project's credential {name} holds, not this shell's."
                if name in known
                else f"{secret.name} will be kept as the project's credential {name}."
            )
            yield Finding("info", text, profile=plan.profile, key=key)
