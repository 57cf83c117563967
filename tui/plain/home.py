"""Where the prompts begin: runs, unfinished launches, saved launches, and a new one."""

from __future__ import annotations

import time

from ...core.cli.output import line, note, print_error
from ...core.drafts import Draft, delete_draft, list_drafts
from ...core.errors import ExitCode, TunedeckError
from ...core.replays.replay import changes_since, frozen, list_replays, load_replay
from ...core.resolve import resolve
from ...core.runs.overview import Overview
from ...core.runs.registry import Registry
from ...core.selection import Selection
from ...core.text import four_digits
from ..words import age, goes_on
from .ask import BACK, Left, Session, ask, choose, command
from .runs import see_run
from .walk import walk

_RUNS = 10


def run_prompts(*, read_only: bool) -> int:
    """Ask what is wanted, until there is nothing more.

    Args:
        read_only: look, and neither submit nor cancel nor write anything.

    Returns:
        The exit code: 0 however it was left.
    """
    line("Tunedeck, as plain prompts. Answer by number or name; enter takes what is in brackets.")
    line("'back' goes back, 'quit' or ctrl-C leaves. What you chose is kept as a draft.")
    session = Session(read_only)
    try:
        while True:
            try:
                _home(session)
            except TunedeckError as error:
                print_error(error)
            except OSError as error:
                note(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Left:
        for text in goes_on():
            note(text)
        return ExitCode.OK


def _home(session: Session) -> None:
    overview = Overview(Registry(), limit=_RUNS)
    for text in overview.ask():
        session.once(text)
    choices: list[tuple[str, str]] = []
    now = time.time()
    glances = overview.known()
    if overview.has_older:
        note("All runs, the older ones too: tunedeck runs list")
    for glance in glances:
        record, loss = glance.record, (glance.latest or {}).get("loss")
        measured = "" if loss is None else f", loss {four_digits(loss)}"
        about = f"run {record.name}, {record.state}{measured}, on {record.profile}"
        choices.append((record.run_id, f"{about}, {age(now - record.created_at)} ago"))
    drafts = {draft.draft_id: draft for draft in list_drafts()}
    for draft in drafts.values():
        chosen = draft.selection
        what = f"{chosen.step or 'nothing chosen yet'} {chosen.config or ''} on {chosen.profile}"
        choices.append((draft.draft_id, f"unfinished launch, at {draft.stage}: {what}"))
    replays = list_replays()
    for listed in replays:
        about = listed.problem.message if listed.problem else ""
        if listed.replay is not None:
            about = listed.replay.ingredients.description
        choices.append((listed.name, f"saved launch. {about}"))
    if not glances:
        note("Nothing has run yet. 'demo' fine-tunes a tiny model here in about a minute.")
    actions = {
        "new": "begins a launch",
        "demo": "reviews a tiny fine-tune on this machine",
        "attach": "follows a job that another machine launched",
        "forget NUMBER": "forgets an unfinished launch",
    }
    words = {word.partition(" ")[0]: what for word, what in actions.items()}
    default = next(iter(drafts), "new" if glances else "demo")
    answer = choose(session, "What", choices, default, actions=words)
    first, _, rest = answer.partition(" ")
    if answer in drafts:
        walk(session, drafts[answer])
    elif any(answer == glance.record.run_id for glance in glances):
        see_run(session, answer)
    elif any(answer == listed.name for listed in replays):
        _replay(session, answer)
    elif first == "new":
        walk(session, Draft.begin(Selection("")))
    elif first == "demo":
        walk(session, Draft.begin(Selection("peft/automodel", config="tiny"), "review"))
    elif first == "attach":
        profile = ask("Profile that it was submitted with", "local")
        command("runs", "attach", profile, ask("Its job"))
    elif first == "forget":
        names = [name for name, _ in choices]
        at = int(rest) - 1 if rest.isdigit() else -1
        if 0 <= at < len(names) and names[at] in drafts:
            delete_draft(names[at])
        else:
            note("Only unfinished launches are forgotten here: forget and its number.")


def _replay(session: Session, name: str) -> None:
    """A saved launch: what has changed since, and on to its review."""
    saved = load_replay(name)
    told = saved.ingredients
    note(f"{saved.file} ({saved.source}). All of it: tunedeck replays show {name}")
    for label, value in (
        ("about", told.description),
        ("step", told.step),
        ("config", told.config),
        ("changed", " ".join(told.overrides)),
        ("profile", told.profile),
    ):
        if value:
            line(f"{label:<9}{value}")
    changes = changes_since(saved, resolve(saved.selection()))
    for change in changes:
        line(f"Other than it was: {change}")
    if told.lock is not None and not changes:
        note("Nothing has changed since it was saved.")
    actions = {
        "go": "reviews it as it is now",
        "edit": "changes values first",
        "frozen": "reviews it with the values that were saved",
        BACK: "goes home",
    }
    word = choose(session, "This launch", [], "go", actions=actions).partition(" ")[0]
    if word == BACK:
        return
    selection = saved.selection()
    if word == "frozen":
        selection = frozen(saved, selection, changes)
    walk(session, Draft.begin(selection, "config" if word == "edit" else "review"), replay=saved)
