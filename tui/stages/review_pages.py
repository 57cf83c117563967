"""The pages of the review: what will happen, what is other than before, and the very bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...core.backends.base import NamesPrices
from ...core.config_view import yaml_text
from ...core.keys import table_in
from ...core.locations import assets_dir
from ...core.prepare import Prepared
from ...core.price import price_words
from ...core.replays.lock import Change
from ...core.runs.registry import Registry
from ...core.since import Since, since_last
from ...core.text import counted
from ..code import code
from ..words import safe
from .review_sent import sent

if TYPE_CHECKING:
    from ...core.replays.replay import Replay

_MEMORY = "Estimated memory: "
_PLACE = (
    *("host", "partition", "account", "namespace", "flavor", "node_group", "resource_shape"),
    *("project_name", "node_pools", "container_image", "time", "timeout"),
)
"""Keys of profiles that say which part of a place is used, with what image, and how long."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What is other than it was.

    Attributes:
        since: against the last run of the same step and config; None where there is none.
        replay: the name of the saved launch that is launched again.
        changes: against its lock.
    """

    since: Since | None = None
    replay: str | None = None
    changes: Sequence[Change] = ()


def compare(prepared: Prepared, replay: Replay | None) -> Compared:
    """Hold what was prepared against the last run, and against the saved launch that it is."""
    from ...core.replays.replay import changes_since

    since = since_last(prepared.plan.to_json(), Registry())
    if replay is None or replay.ingredients.lock is None:
        return Compared(since)
    return Compared(since, replay.name, changes_since(replay, prepared.plan))


def pages() -> dict[str, Callable[[Prepared, Compared], Iterator[RenderableType]]]:
    """Title → what is on the page."""
    return {"summary": _summary, "changes": _changes, "config": _config, "what is sent": _sent}


def render(title: str, prepared: Prepared, compared: Compared) -> Group:
    """A page as Rich draws it."""
    return Group(*pages()[title](prepared, compared))


def _summary(prepared: Prepared, compared: Compared) -> Iterator[RenderableType]:
    plan = prepared.plan
    model = table_in(plan.config, "model").get("pretrained_model_name_or_path")
    data = table_in(plan.config, "dataset").get("path_or_dataset_id")
    said = [one.message for one in prepared.findings if one.severity == "info"]
    memory = [one for one in said if one.startswith(_MEMORY)]
    price = price_words(prepared.price) if prepared.price else ""
    if not price and isinstance(prepared.backend, NamesPrices):
        price = "o asks for it"
    rows: dict[str, object] = {
        "run": f"{plan.run_id} ({plan.name})",
        "step": plan.step,
        "config": plan.config_name,
        "changed": " ".join(plan.overrides),
        "since": _since_words(compared),
        "model": _shown_path(model),
        "data": _shown_path(data),
        "profile": f"{plan.profile} ({plan.executor})",
        "there": _place_words(plan.profile_values),
        "shape": plan.launch.shape,
        "price": price,
        "memory": " ".join(one.removeprefix(_MEMORY) for one in memory),
        "secrets": ", ".join(secret.name for secret in plan.secrets),
        "folder": plan.run_dir,
        "digest": plan.digest[:26] + "…",
    }
    table = Table.grid(padding=(0, 2))
    for label, value in rows.items():
        if value not in (None, ""):
            table.add_row(Text(label, "bright_black"), Text(safe(value)))
    yield table
    text = Text("\n")
    for note in (one for one in said if one not in memory):
        text.append(f"· {safe(note)}\n")
    for note in plan.notes:
        text.append(f"! {safe(note)}\n", "yellow")
    yield text


def _shown_path(value: object) -> object:
    """A path; of what ships with the product, its name alone: where that lies tells nothing."""
    shipped, text = f"{assets_dir()}/", str(value)
    return f"shipped: {text.removeprefix(shipped)}" if text.startswith(shipped) else value


def _place_words(values: Mapping[str, Any]) -> str:
    """What a person knows a place by, as far as its profile says."""
    return ", ".join(f"{key} {safe(values[key])}" for key in _PLACE if values.get(key))


def _since_words(compared: Compared) -> str:
    if compared.replay is not None:
        count = len(compared.changes)
        return f"{counted(count, 'value')} other than '{compared.replay}' was saved with"
    if compared.since is None:
        return "the first of this step and config"
    count, record = len(compared.since.changes), compared.since.record
    return f"{counted(count, 'value')} other than in {record.run_id} ({record.name})"


def _changes(prepared: Prepared, compared: Compared) -> Iterator[RenderableType]:
    if compared.replay is not None:
        yield from _listed(f"Since '{compared.replay}' was saved", compared.changes)
    if compared.since is not None:
        record = compared.since.record
        title = f"Since {record.run_id} ({record.name}, {record.state})"
        yield from _listed(title, compared.since.changes)
    if compared.replay is None and compared.since is None:
        yield Text(f"No run of {prepared.plan.step} with this config to compare with yet.")


def _listed(title: str, changes: Sequence[Change]) -> Iterator[RenderableType]:
    yield Text(safe(title), style="bold")
    if not changes:
        yield Text("  ✓ nothing is other than it was\n")
    text = Text()
    for change in changes:
        key, _, values = str(change).partition(": ")
        before, _, now = values.partition(" → ")
        text.append(f"  {safe(key)}\n", "bold")
        text.append(f"    - {safe(before)}\n", "red").append(f"    + {safe(now)}\n", "green")
    yield text


def _config(prepared: Prepared, _compared: Compared) -> Iterator[RenderableType]:
    yield code(yaml_text(prepared.plan.config), "yaml")


def _sent(prepared: Prepared, _compared: Compared) -> Iterator[RenderableType]:
    yield from sent(prepared.submission)
