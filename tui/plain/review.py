"""The review: what will happen, what is other than before, and what stands in the way."""

from __future__ import annotations

import asyncio
import shlex
from io import StringIO

from ...core.choices import command_of
from ...core.cli.output import line, note, print_error, print_findings, width
from ...core.cli.steps_run import Mode, launch_prepared
from ...core.drafts import Draft, Stage, delete_draft
from ...core.errors import TunedeckError
from ...core.findings import Finding, blocking
from ...core.prepare import Prepared, check_online, prepare
from ...core.replays.replay import Replay, save_replay
from ...core.runs.registry import Registry
from ...core.selection import Selection
from ..stages.review_pages import Compared, compare, pages, render
from .ask import BACK, Session, ask, choose, sure

_ACTIONS = {
    "submit": "sends it and follows it",
    "leave": "sends it and does not follow it",
    "changes": "tells what is other than last time",
    "config": "tells the resolved config",
    "sent": "tells the exact script or command",
    "ask": "asks the place that it runs at",
    "fix": "goes to what is in the way",
    "save": "saves it as a launch",
    BACK: "goes back to where it runs",
}
_PAGES = {"changes": "changes", "config": "config", "sent": "what is sent"}


def review(session: Session, draft: Draft, replay: Replay | None) -> Stage | None:
    """Show the launch, and send it if that is wanted.

    Returns:
        The stage to go to; None once it was sent.

    Raises:
        Left: if the person leaves.
    """
    selection = draft.selection
    try:
        prepared = asyncio.run(prepare(selection, online=False))
        compared = compare(prepared, replay)
    except TunedeckError as error:
        return _stopped(error)
    asked = not prepared.backend.capabilities.remote
    _tell("summary", prepared, compared)
    _say_findings(prepared, selection)
    while True:
        errors = blocking(prepared.findings)
        first, _, rest = choose(
            session, "Review", [], "fix" if errors else "submit", actions=_ACTIONS
        ).partition(" ")
        if first == BACK:
            return "environment"
        if first in _PAGES:
            _tell(_PAGES[first], prepared, compared)
        elif first == "fix":
            if (stage := _stage_of(prepared.findings)) is not None:
                return stage
            note("Nothing is in the way that is about a field.")
        elif first == "ask":
            prepared, asked = asyncio.run(check_online(prepared)), True
            _say_findings(prepared, selection)
        elif first == "save":
            if session.may_change("Saving"):
                _save(prepared, rest)
        elif first in ("submit", "leave") and session.may_change("Submitting"):
            if not asked:
                prepared, asked = asyncio.run(check_online(prepared)), True
            forced = bool(blocking(prepared.findings))
            if forced:
                _say_findings(prepared, selection)
            if forced and not sure("Submit it all the same?", default=False):
                continue
            _send(draft, prepared, attach=first == "submit", forced=forced)
            return None


def _send(draft: Draft, prepared: Prepared, *, attach: bool, forced: bool) -> None:
    try:
        launch_prepared(prepared, Mode(attach=attach, force=forced))
    finally:
        # A run that the registry knows was sent, however following it ended.
        run_id = prepared.plan.run_id
        if any(record.run_id == run_id for record in Registry().list(limit=20)):
            delete_draft(draft.draft_id)


def _stopped(error: TunedeckError) -> Stage:
    """What cannot even be resolved leads back to where it is mended."""
    findings: tuple[Finding, ...] = getattr(error, "findings", ())
    note("This cannot be launched as it is.")
    if findings:
        print_findings(findings)
    else:
        print_error(error)
    return _stage_of(findings) or "environment"


def _stage_of(findings: list[Finding] | tuple[Finding, ...]) -> Stage | None:
    for finding in [*blocking(list(findings)), *findings]:
        if finding.key and finding.severity != "info":
            note(f"{finding.key}: {finding.message}")
            return "environment" if finding.profile is not None else "config"
    return None


def _say_findings(prepared: Prepared, selection: Selection) -> None:
    print_findings(one for one in prepared.findings if one.severity != "info")
    for text in prepared.plan.notes:
        note(text)
    note(f"The same by command: {shlex.join(command_of(selection))}")


def _tell(title: str, prepared: Prepared, compared: Compared) -> None:
    """A page of the wizard's review as plain lines."""
    from rich.console import Console

    assert title in pages()
    text = StringIO()
    console = Console(file=text, width=width(), color_system=None, highlight=False)
    console.print(render(title, prepared, compared))
    for row in text.getvalue().rstrip().splitlines():
        line(row.rstrip())


def _save(prepared: Prepared, name: str) -> None:
    plan = prepared.plan
    chosen = name or ask("Name", plan.name.replace("/", "-"))
    try:
        file = save_replay(plan.to_json(), chosen)
    except TunedeckError as error:
        print_error(error)
    else:
        note(f"Saved as {file}. Run it again: tunedeck replay {chosen}")
