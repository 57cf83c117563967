"""Runs, drafts and saved launches, as lines of home's list."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from textual.content import Content
from textual.widgets.option_list import Option

from ...core.text import four_digits
from ..words import MARKS, age, cell, safe

if TYPE_CHECKING:
    from ...core.drafts import Draft
    from ...core.replays.replay import Listed
    from ...core.runs.overview import Glance
    from .home_watch import Seen


def home_options(seen: Seen, compared: Collection[str], width: int) -> Iterator[Option]:
    """Where to begin, what was left unfinished, the runs, what was saved; ids are `kind:name`.

    Args:
        seen: what there is.
        compared: ids of the runs that are marked.
        width: columns that a line may take.
    """
    if not seen.runs:
        yield Option("▶ Demo launch    a LoRA fine-tune of a tiny model, here", id="demo")
    yield Option("+ New launch     choose a step, a config and where to run it", id="new")
    if seen.drafts:
        yield _heading("Unfinished")
        for draft in seen.drafts:
            yield Option(_draft_row(draft, width), id=f"draft:{draft.draft_id}")
    if seen.runs:
        yield _heading("Runs")
        for glance in seen.runs:
            run_id = glance.record.run_id
            yield Option(
                _run_row(glance, width, chosen=run_id in compared),
                id=f"run:{run_id}",
            )
        if seen.has_older:
            words = Content.styled("  all, the older ones too: tunedeck runs list", "$text-muted")
            yield Option(words, id="heading:older", disabled=True)
    if seen.replays:
        yield _heading("Saved launches")
        for listed in seen.replays:
            yield Option(_replay_row(listed, width), id=f"replay:{listed.name}")
    yield _heading("Elsewhere")
    yield Option("⇄ Attach         follow a job that another machine launched", id="attach")


def _heading(text: str) -> Option:
    return Option(Content.styled(text, "bold $primary"), id=f"heading:{text}", disabled=True)


def _run_row(glance: Glance, width: int, *, chosen: bool) -> Content:
    """Mark and state, name, curve of the loss with its newest value, where, how long ago."""
    record = glance.record
    mark, color = MARKS[record.state]
    loss = (glance.latest or {}).get("loss")
    name = max(width - 67, 12) if width >= 88 else max(width - 58, 12)
    parts: list[str | tuple[str, str]] = [
        (f"{mark} {cell(record.state, 10)} ", color),
        (cell(f"◆ {record.name}" if chosen else record.name, name) + " ", "bold"),
        (cell(glance.curve, 16) + " ", "$accent"),
        cell("" if loss is None else _short(loss), 6) + " ",
        (cell(record.profile, 20 if width >= 88 else 11) + " ", "$text-muted"),
        (f"{age(time.time() - record.created_at):>5}", "$text-muted"),
    ]
    return Content.assemble(*parts)


def _short(value: float) -> str:
    """A number in six characters, where it has so few."""
    text = four_digits(value)
    return text if len(text) <= 6 else f"{value:.3g}"


def _draft_row(draft: Draft, width: int) -> Content:
    chosen = draft.selection
    what = f"{chosen.step or 'nothing chosen yet'} {chosen.config or ''}".rstrip()
    return Content.assemble(
        (f"✎ {cell(draft.stage, 12)}", "$warning"),
        cell(f"{what} → {chosen.profile}", max(width - 24, 10)),
        (f"{age(time.time() - draft.saved_at):>5}", "$text-muted"),
    )


def _replay_row(listed: Listed, width: int) -> Content:
    saved = listed.replay.ingredients if listed.replay else None
    if saved is None:
        words, color = safe(listed.problem), "$error"
    else:
        words, color = saved.description or f"{saved.step} → {saved.profile}", "$text-muted"
    return Content.assemble(
        ("↻ ", "$secondary"),
        (cell(listed.name, 20) + " ", "bold"),
        (cell(words, max(width - 26, 10)), color),
    )
