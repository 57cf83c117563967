"""One run: what is known of it, and what can be done with it."""

from __future__ import annotations

from ...core.choices import selection_after, selection_of
from ...core.cli.output import note
from ...core.drafts import Draft
from ...core.runs.registry import Registry
from ...core.selection import resume_selection
from ...core.states import RunState
from .ask import BACK, Session, ask, choose, command, sure

_TAIL = "40"
_ACTIONS = {
    "log": "says the last lines",
    "errors": "says the lines that are errors",
    "rank N": "says the lines of one process",
    "follow": "follows it; ctrl-C leaves it running",
    "curves": "tells what it measured",
    "facts": "tells all that is known of it",
    "cancel": "stops it",
    "resume": "goes on from its last checkpoint",
    "again": "changes it and launches it anew",
    "next": "takes its result to another step",
    "fetch": "brings its files home",
    "save": "saves it as a launch",
    BACK: "goes home",
}


def see_run(session: Session, run_id: str) -> None:
    """Tell of a run, and do with it what is asked, until one goes back.

    Raises:
        Left: if the person leaves.
        TunedeckError: if the run is no longer there.
    """
    from .walk import walk

    command("runs", "show", run_id)
    actions = {word.partition(" ")[0]: what for word, what in _ACTIONS.items()}
    while True:
        record = Registry().get(run_id)
        first, _, rest = choose(session, "This run", [], "log", actions=actions).partition(" ")
        if first == BACK:
            return None
        if first == "log":
            command("runs", "logs", run_id, "--tail", _TAIL)
        elif first == "errors":
            command("runs", "logs", run_id, "--level", "error")
        elif first == "rank":
            command("runs", "logs", run_id, "--rank", rest or ask("Rank", "0"))
        elif first == "follow":
            command("runs", "logs", "-f", run_id, "--tail", _TAIL)
        elif first == "curves":
            command("runs", "metrics", run_id)
        elif first == "facts":
            command("runs", "show", run_id)
        elif first == "fetch":
            command("runs", "fetch", run_id, *rest.split())
        elif first == "cancel":
            question = f"Cancel {record.name}? Its last published checkpoint is kept."
            if session.may_change("Cancelling") and sure(question, default=False):
                command("runs", "cancel", run_id)
        elif first == "save":
            if session.may_change("Saving") and (name := rest or ask("Name", record.name)):
                command("replays", "save", name, "--from", run_id)
        elif first in ("again", "resume") and "cwd" not in record.plan["selection"]:
            note("It was launched from another machine, which knows what it was made of.")
        elif first == "again":
            return walk(session, Draft.begin(selection_of(record), "config"))
        elif first == "resume":
            if record.state.terminal:
                return walk(session, Draft.begin(resume_selection(record, ()), "review"))
            note("It goes on as it is; only a run that has ended can be resumed.")
        elif first == "next":
            if record.state is RunState.SUCCEEDED:
                draft = Draft.begin(selection_after(record), "step")
                return walk(session, draft, made_by=record.step)
            note("Only what a run has finished can be handed on.")
