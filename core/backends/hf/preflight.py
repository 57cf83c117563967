"""What the service says of a plan for Hugging Face Jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from typing import Any

from ...errors import AuthenticationError, NotFoundError
from ...findings import Edit, Finding, Fix
from ...plan import Plan
from ...text import counted, did_you_mean
from ..cloud.checks import gathered
from .client import UPGRADE, Hub
from .inventory import gpus_of
from .meaning import SIGN_IN
from .place import Storage, storage_of
from .settings import namespace_of

_READERS = {"model": "model_info", "dataset": "dataset_info", "space": "space_info"}


async def check_service(hub: Hub, plan: Plan) -> list[Finding]:
    """What the service says: one look each, side by side, once the token is known to be good.

    Raises:
        AuthenticationError: if there is no token, or it is refused.
        ReachError: if the service cannot be reached.
    """
    me = await hub.call("whoami")
    namespace = list(_namespace(plan, me))
    found = await gathered(
        _flavor(hub, plan), *_volumes(hub, plan, own=not namespace), sign_in=SIGN_IN
    )
    return [*namespace, *_library(hub, plan), *found]


def _namespace(plan: Plan, me: dict[str, Any]) -> Iterable[Finding]:
    namespace = namespace_of(plan.profile_values)
    mine = [str(me.get("name")), *(str(org.get("name")) for org in me.get("orgs") or ())]
    if namespace not in mine:
        yield Finding(
            "error",
            f"The token is of {mine[0]}, who is not in '{namespace}'. "
            f"{did_you_mean(namespace, mine)}".strip(),
            profile=plan.profile,
            key="namespace",
            fix=Fix(f"Set namespace to one of: {', '.join(mine)}. Or use another token."),
        )


def _library(hub: Hub, plan: Plan) -> Iterable[Finding]:
    """What the installed library cannot ask the service for."""
    if plan.profile_values.get("attempts") and not hub.knows("run_job", "attempts"):
        yield Finding(
            "error",
            f"The installed huggingface_hub {hub.version} cannot ask for attempts.",
            profile=plan.profile,
            key="attempts",
            fix=Fix(f"{UPGRADE}. Or leave attempts out.", Edit("remove", "attempts")),
        )


async def _flavor(hub: Hub, plan: Plan) -> AsyncGenerator[Finding]:
    wanted = str(plan.profile_values.get("flavor") or "")
    known = {flavor.name: flavor for flavor in await hub.call("list_jobs_hardware")}
    if wanted not in known:
        yield Finding(
            "error",
            f"There is no flavor '{wanted}'. {did_you_mean(wanted, known)}".strip(),
            profile=plan.profile,
            key="flavor",
            fix=Fix(f"Choose one of: {', '.join(known)}. See: tunedeck queue {plan.profile}"),
        )
        return
    there, asked = gpus_of(known[wanted]), plan.launch.gpus_per_node
    if there < asked:
        yield Finding(
            "error",
            f"The plan asks for {counted(asked, 'GPU')}; flavor '{wanted}' has {there}.",
            profile=plan.profile,
            key="flavor",
            fix=Fix("Choose a larger flavor, or set gpus_per_node.",
                    Edit("set", "gpus_per_node", there)),
        )  # fmt: skip
    elif there > asked:
        yield Finding(
            "warning",
            f"Flavor '{wanted}' has {counted(there, 'GPU')}, all paid for; the plan uses {asked}.",
            profile=plan.profile,
            key="gpus_per_node",
            fix=Fix(f"Set gpus_per_node = {there}.", Edit("set", "gpus_per_node", there)),
        )


def _volumes(hub: Hub, plan: Plan, *, own: bool) -> Iterable[AsyncGenerator[Finding]]:
    """A look at each volume; at the run's bucket only where the namespace is the token's own."""
    storage = storage_of(plan)
    named = plan.profile_values.get("volumes") or ()
    for number, volume in enumerate(named):
        if not storage or volume["type"] != "bucket" or volume["source"] != storage.bucket:
            yield _volume(hub, plan, f"volumes.{number}", volume["type"], volume["source"])
    if storage and own:
        yield _own_bucket(hub, plan, storage)


async def _volume(
    hub: Hub, plan: Plan, key: str, kind: str, source: str
) -> AsyncGenerator[Finding]:
    try:
        await hub.call("bucket_info" if kind == "bucket" else _READERS[kind], source)
    except (NotFoundError, AuthenticationError):
        yield Finding(
            "error",
            f"There is no {kind} '{source}', or the token may not see it.",
            profile=plan.profile,
            key=key,
            fix=Fix("Check its id, namespace/name, and the token's permissions."),
        )


async def _own_bucket(hub: Hub, plan: Plan, storage: Storage) -> AsyncGenerator[Finding]:
    try:
        found = await hub.call("bucket_info", storage.bucket)
    except NotFoundError:
        yield Finding("info", f"The bucket {storage.bucket} will be made, private.")
        return
    if not getattr(found, "private", True):
        yield Finding(
            "warning",
            f"The bucket {storage.bucket} is public: code, inputs and results can be read by all.",
            profile=plan.profile,
            key="volumes",
            fix=Fix("Make it private in its settings, or name another bucket in volumes."),
        )
