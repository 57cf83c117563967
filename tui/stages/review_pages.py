"""The pages of the review: what will happen, what is other than before, and the very bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from ...core.config_view import yaml_text
from ...core.prepare import Prepared
from ...core.replay_lock import Change
from ...core.since import Since
from ...core.text import strip_controls
from ..words import safe

_MEMORY = "Estimated memory: "


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


def pages() -> dict[str, Callable[[Prepared, Compared], Iterator[RenderableType]]]:
    """Title → what is on the page."""
    return {"summary": _summary, "changes": _changes, "config": _config, "what is sent": _sent}


def render(title: str, prepared: Prepared, compared: Compared) -> Group:
    """A page as Rich draws it."""
    return Group(*pages()[title](prepared, compared))


def copied(prepared: Prepared) -> str:
    """What the copy key takes: the script, the payload, or the command where there is neither."""
    submission = prepared.submission
    payload = json.dumps(submission.payload, indent=2) if submission.payload else None
    return submission.script or payload or submission.command


def _summary(prepared: Prepared, compared: Compared) -> Iterator[RenderableType]:
    plan = prepared.plan
    model = (plan.config.get("model") or {}).get("pretrained_model_name_or_path")
    data = (plan.config.get("dataset") or {}).get("path_or_dataset_id")
    said = [one.message for one in prepared.findings if one.severity == "info"]
    memory = [one for one in said if one.startswith(_MEMORY)]
    rows: dict[str, object] = {
        "run": f"{plan.run_id} ({plan.name})",
        "step": plan.step,
        "config": plan.config_name,
        "changed": " ".join(plan.overrides),
        "since": _since_words(compared),
        "model": model,
        "data": data,
        "profile": f"{plan.profile} ({plan.executor})",
        "shape": f"{plan.launch.nodes} node(s) × {plan.launch.nproc_per_node} process(es)",
        "memory": " ".join(one.removeprefix(_MEMORY) for one in memory),
        "secrets": ", ".join(secret.name for secret in plan.secrets),
        "folder": plan.run_dir,
        "digest": plan.digest[:26] + "…",
    }
    if prepared.price:
        rows |= prepared.price
    elif prepared.backend.capabilities.price:
        rows["price"] = "o asks for it"
    table = Table.grid(padding=(0, 2))
    for label, value in rows.items():
        if value not in (None, ""):
            table.add_row(Text(label, "dim"), Text(safe(value)))
    yield table
    text = Text("\n")
    for note in (one for one in said if one not in memory):
        text.append(f"· {safe(note)}\n")
    for note in plan.notes:
        text.append(f"! {safe(note)}\n", "yellow")
    yield text


def _since_words(compared: Compared) -> str:
    if compared.replay is not None:
        count = len(compared.changes)
        return f"{count or 'no'} value(s) other than '{compared.replay}' was saved with"
    if compared.since is None:
        return "the first of this step and config"
    count, record = len(compared.since.changes), compared.since.record
    return f"{count or 'no'} value(s) other than in {record.run_id} ({record.name})"


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
    submission = prepared.submission
    shown = submission.to_json()
    if submission.script:
        yield code(submission.script, "bash")
    if submission.payload is not None:
        yield code(json.dumps(submission.payload, indent=2), "json")
    yield Text("Command", style="bold")
    yield code(submission.command, "bash")
    if shown["env"]:
        yield Text("\nEnvironment", style="bold")
        yield Text("\n".join(f"{name}={safe(value)}" for name, value in shown["env"].items()))
    for file in submission.files:
        yield Text(f"\n{safe(file.path)}  (mode {file.mode:o})", style="bold")
        yield code(file.content, "yaml" if file.path.endswith((".yaml", ".yml")) else "text")


def code(text: str, language: str) -> Syntax:
    """Highlighted text, without anything that a terminal would act on."""
    return Syntax(
        strip_controls(text),
        language,
        theme="ansi_dark",
        background_color="default",
        word_wrap=True,
    )
