"""The first stage: which step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ...core.text import counted, holds, strip_controls
from ..widgets.lists import refill
from ..words import cell, safe
from .stage import Chosen, StageView

if TYPE_CHECKING:
    from ...core.catalog import Step

_USUAL = "peft/automodel"


class StepStage(StageView):
    """The catalog, searchable, with what each step takes, makes and needs."""

    HELP = (
        "Choose what to do. Type / to narrow the list down; enter takes the marked step. Below is "
        "what it takes and makes, which models it knows and what they need at least."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", id="step.search", tooltip="Narrow the list down"),
    ]

    def compose(self) -> ComposeResult:
        """Search line, list, details."""
        yield Input(placeholder="/ search by name, tag, input or output", id="step-search")
        yield OptionList(id="steps", markup=False)
        with VerticalScroll(id="step-about"):
            yield Static(id="step-text", markup=False)

    def show(self) -> None:
        """List the steps, the chosen one marked."""
        self._list(self.query_one("#step-search", Input).value)

    def take_focus(self) -> None:
        """The list is where one begins."""
        self.query_one("#steps").focus()

    def _list(self, typed: str) -> None:
        if self.walk.catalog is None:
            return
        found = [step for step in self.walk.offered if holds(_words(step), typed)]
        options = _options(found, self.app.size.width - 6)
        refill(self.query_one("#steps", OptionList), options, self.walk.selection.step, _USUAL)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        self._list(event.value)

    @on(Input.Submitted)
    def _to_list(self) -> None:
        self.take_focus()

    def action_search(self) -> None:
        """Type to narrow the list down."""
        self.query_one("#step-search").focus()

    @on(OptionList.OptionHighlighted)
    def _explain(self, event: OptionList.OptionHighlighted) -> None:
        if self.walk.catalog is not None and event.option.id:
            step = self.walk.catalog.find(event.option.id)
            self.query_one("#step-text", Static).update(_about(step))

    @on(OptionList.OptionSelected)
    def _choose(self, event: OptionList.OptionSelected) -> None:
        chosen = self.walk.selection
        if event.option.id != chosen.step:
            chosen = replace(chosen, step=event.option.id or "", config=None, overrides=())
        self.post_message(Chosen(chosen, "config"))


def _words(step: Step) -> str:
    manifest = step.manifest
    types = [artifact.type for artifact in (*manifest.consumes, *manifest.produces)]
    words = (step.id, manifest.step.name, manifest.step.description, *manifest.step.tags, *types)
    return " ".join(words)


def _options(steps: list[Step], width: int) -> Iterator[Option]:
    for category, members in groupby(steps, key=lambda step: step.manifest.step.category):
        heading = Content.styled(safe(category), "bold $primary")
        yield Option(heading, id=f"category:{category}", disabled=True)
        for step in members:
            name = step.manifest.step.name
            reason = step.not_runnable("local")
            note = f"{name}  (not on this machine)" if reason else name
            yield Option(
                Content.assemble((cell(step.id, 26), "bold"), cell(note, width - 26)), id=step.id
            )


def _about(step: Step) -> Content:
    manifest = step.manifest
    parts: list[str | tuple[str, str]] = [
        (safe(manifest.step.name), "bold"),
        f"\n{strip_controls(' '.join(manifest.step.description.split()))}\n",
    ]
    for title, artifacts in (("takes", manifest.consumes), ("makes", manifest.produces)):
        for artifact in artifacts:
            optional = "" if artifact.required else " (optional)"
            parts += [
                (f"{title}  ", "bold $primary"),
                f"{artifact.type}{optional}: ",
                (f"{safe(artifact.description)}\n", "$text-muted"),
            ]
    for model in manifest.models:
        need = f"{counted(model.min_gpus, 'GPU')} at least" if model.min_gpus else "a CPU will do"
        parts += [
            ("model  ", "bold $primary"),
            f"{safe(model.name)}: ",
            (f"{need}\n", "$text-muted"),
        ]
    for strategy in manifest.strategies:
        parts += [
            ("when   ", "bold $primary"),
            f"{safe(strategy.when)}: ",
            (f"{safe(strategy.then)}\n", "$text-muted"),
        ]
    if reason := step.not_runnable("local"):
        parts.append((f"! not on this machine: {safe(reason)}\n", "$warning"))
    return Content.assemble(*parts)
