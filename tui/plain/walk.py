"""The walk: step, config, environment, review; each can be gone back to, and a draft is kept."""

from __future__ import annotations

from dataclasses import replace

from ...core.catalog import Catalog, load_catalog
from ...core.choices import steps_for
from ...core.cli.output import note, print_error
from ...core.drafts import STAGES, Draft, Stage, save_draft
from ...core.errors import TunedeckError
from ...core.replays.replay import Replay
from ...core.selection import Selection
from .ask import BACK, Session, choose
from .fields import change_fields
from .places import choose_place
from .review import review

_USUAL = "peft/automodel"


def walk(
    session: Session, draft: Draft, *, made_by: str | None = None, replay: Replay | None = None
) -> None:
    """Go through the stages from the draft's own, until the launch is sent or one goes home.

    Args:
        session: what holds for all prompts.
        draft: where to begin or to go on.
        made_by: offer only the steps that take what this step makes.
        replay: the saved launch that is launched again.

    Raises:
        Left: if the person leaves; the draft is kept.
        TunedeckError: if the catalog cannot be read.
    """
    catalog = load_catalog(draft.selection.catalog)
    stage: Stage | None = draft.stage if draft.selection.step else "step"
    while stage is not None:
        draft = keep(session, replace(draft, stage=stage))
        try:
            if stage == "step":
                selection, on = _step(session, draft.selection, catalog, made_by)
            elif stage == "config":
                selection, on = _config(session, draft, catalog)
            elif stage == "environment":
                selection, on = choose_place(session, draft.selection)
            else:
                stage = review(session, draft, replay)
                continue
        except TunedeckError as error:
            print_error(error)
            selection, on = draft.selection, False
        draft = keep(session, replace(draft, selection=selection))
        at = STAGES.index(stage) + (1 if on else -1)
        stage = STAGES[at] if at >= 0 else None


def keep(session: Session, draft: Draft) -> Draft:
    """Save a draft, unless nothing is to be written; where it cannot be, say so and go on."""
    try:
        return draft if session.read_only else save_draft(draft)
    except OSError as error:
        session.once(f"What you choose cannot be kept: {error}")
        return draft


def _step(
    session: Session, selection: Selection, catalog: Catalog, made_by: str | None
) -> tuple[Selection, bool]:
    steps = [
        (step.id, f"{step.manifest.step.name}{_takes(step.id, catalog)}")
        for step in steps_for(catalog, made_by)
    ]
    names = [name for name, _ in steps]
    usual = selection.step if selection.step in names else _USUAL
    default = usual if usual in names else names[0] if names else ""
    actions = {"about": "and a step's name tells all of it", BACK: "goes home"}
    while True:
        answer = choose(session, "Step", steps, default, actions=actions)
        if answer == BACK:
            return selection, False
        first, _, rest = answer.partition(" ")
        if first != "about":
            break
        from .ask import command

        command("steps", "show", rest or default)
    if answer == selection.step:
        return selection, True
    return replace(selection, step=answer, config=None, overrides=()), True


def _takes(step_id: str, catalog: Catalog) -> str:
    manifest = catalog.find(step_id).manifest
    takes = ", ".join(one.type for one in manifest.consumes if one.required)
    makes = ", ".join(one.type for one in manifest.produces)
    return (f"; takes {takes}" if takes else "") + (f"; makes {makes}" if makes else "")


def _config(session: Session, draft: Draft, catalog: Catalog) -> tuple[Selection, bool]:
    """Which config, and what is changed in it."""
    selection = draft.selection
    step = catalog.find(selection.step)
    configs = [(name, step.config_about(name)) for name in step.configs]
    if configs:
        default = selection.config or step.default_config or ""
        note("A config of the step, or the path of a YAML file.")
        chosen = choose(session, "Config", configs, default, actions={BACK: "goes back"}, free=True)
        if chosen == BACK:
            return selection, False
        if chosen != selection.config:
            step.config_path(chosen, selection.cwd)  # that it is not there is said at once
            selection = replace(selection, config=chosen)

    def keep_changed(now: Selection) -> None:
        keep(session, replace(draft, selection=now))

    return change_fields(session, selection, catalog, keep_changed)
