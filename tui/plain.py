"""The same walk as plain prompts, for screen readers and dumb terminals.

The fields, their words and their checks are those of the form; what is launched goes through the
same functions as `tunedeck steps run`.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from ..core.catalog import load_catalog
from ..core.choices import Form, as_text, command_of, form_of, steps_for, with_override, with_value
from ..core.cli.output import line, note, print_error, print_findings
from ..core.cli.preview import print_preview
from ..core.cli.steps_run import Mode, launch_prepared
from ..core.drafts import Draft, delete_draft, list_drafts, save_draft
from ..core.errors import ExitCode, TunedeckError
from ..core.prepare import prepare
from ..core.profiles import look_at_profiles
from ..core.selection import Selection

if TYPE_CHECKING:
    from ..core.catalog import Catalog


def run_prompts(*, read_only: bool) -> int:
    """Ask for step, config, changes and profile, show the plan, and launch it.

    Args:
        read_only: stop after the plan has been shown.

    Returns:
        The exit code, as `tunedeck steps run` has it.
    """
    line("Tunedeck, as plain prompts. Ctrl-C leaves; what you chose is kept as a draft.")
    draft = _draft()
    catalog = load_catalog(draft.selection.catalog)
    draft = save_draft(replace(draft, selection=_step(draft.selection, catalog), stage="config"))
    draft = save_draft(replace(draft, selection=_config(draft.selection, catalog)))
    selection = _changes(draft, catalog)
    draft = save_draft(replace(draft, selection=selection, stage="environment"))
    draft = save_draft(replace(draft, selection=_profile(selection), stage="review"))
    return _review(draft, read_only=read_only)


def _draft() -> Draft:
    """A new draft, or the last one where it is to be gone on with."""
    drafts = list_drafts()
    if drafts and drafts[0].selection.step:
        chosen = drafts[0].selection
        words = f"{chosen.step} {chosen.config or ''} on {chosen.profile}"
        if click.confirm(f"Go on with the unfinished launch ({words})?", default=True, err=True):
            return drafts[0]
    return Draft.begin(Selection(""))


def _choose(question: str, choices: Sequence[tuple[str, str]], default: str) -> str:
    """One of several, by number or by name."""
    for number, (name, about) in enumerate(choices, 1):
        line(f"{number}. {name}: {about}" if about else f"{number}. {name}")
    names = [name for name, _ in choices]

    def read(text: str) -> str:
        if text.isdigit() and 1 <= int(text) <= len(names):
            return names[int(text) - 1]
        if text in names:
            return text
        raise click.BadParameter(f"'{text}' is none of them; type a number or a name.")

    first = default if default in names else names[0]
    chosen: str = click.prompt(question, default=first, value_proc=read, err=True)
    return chosen


def _step(selection: Selection, catalog: Catalog) -> Selection:
    steps = [(step.id, step.manifest.step.name) for step in steps_for(catalog)]
    chosen = _choose("Step", steps, selection.step or "peft/automodel")
    if chosen == selection.step:
        return selection
    return replace(selection, step=chosen, config=None, overrides=())


def _config(selection: Selection, catalog: Catalog) -> Selection:
    step = catalog.find(selection.step)
    configs = [
        (name, "the default" if name == step.default_config else "") for name in step.configs
    ]
    if not configs:
        return selection
    chosen = _choose("Config", configs, selection.config or step.default_config or "")
    return replace(selection, config=chosen)


def _changes(draft: Draft, catalog: Catalog) -> Selection:
    """Ask for changed fields until there are none, each checked as it is given."""
    selection = draft.selection
    _say_form(form_of(selection, catalog))
    note("Type a field's name to change it, key=value, 'list' to hear all, or nothing to go on.")
    while text := click.prompt("Change", default="", show_default=False, err=True).strip():
        form = form_of(selection, catalog)
        if text == "list":
            for row in form.rows:
                line(f"{row.info.key} = {as_text(row.value)}. {row.info.description}")
            continue
        try:
            changed = _changed(selection, form, text)
            wrong = [f for f in form_of(changed, catalog).findings if f.severity == "error"]
            wrong += [
                row.finding
                for row in form_of(changed, catalog).rows
                if row.finding and row.finding.severity == "error"
            ]
        except TunedeckError as error:
            print_error(error)
            continue
        if wrong:
            print_findings(wrong)
            if not click.confirm("Keep it all the same?", default=False, err=True):
                continue
        selection = changed
        draft = save_draft(replace(draft, selection=selection))
    return selection


def _say_form(form: Form) -> None:
    for row in form.rows:
        if row.common or row.changed:
            mark = " (changed)" if row.changed else ""
            line(f"{row.info.key} = {as_text(row.value)}{mark}. {row.info.description}")
    print_findings(form.findings)


def _changed(selection: Selection, form: Form, text: str) -> Selection:
    if "=" in text:
        return with_override(selection, text)
    row = form.row(text)
    if row is None:
        from ..core.errors import UsageError
        from ..core.text import did_you_mean

        hint = did_you_mean(text, [row.info.key for row in form.rows])
        raise UsageError(f"There is no field '{text}'. {hint}".strip(), fix="Type 'list'.")
    line(f"{row.info.description} It takes: {row.info.type}.")
    value = click.prompt(text, default=as_text(row.value), err=True)
    return with_value(selection, row.info, value)


def _profile(selection: Selection) -> Selection:
    profiles = look_at_profiles(selection.cwd, selection.env_file)
    note(f"Env files: {', '.join(map(str, profiles.files)) or profiles.reason}")
    choices = []
    for profile in profiles.profiles:
        errors = sum(finding.severity == "error" for finding in profile.findings)
        wrong = f", {errors} error(s)" if errors else ""
        choices.append((profile.name, f"{profile.executor or 'no executor'}{wrong}"))
    return replace(selection, profile=_choose("Where it runs", choices, selection.profile))


def _review(draft: Draft, *, read_only: bool) -> int:
    prepared = asyncio.run(prepare(draft.selection, online=not read_only))
    print_preview(prepared, explain=False, as_json=False)
    note(f"The same by command: {shlex.join(command_of(draft.selection))}")
    if read_only:
        note("Nothing is submitted: --read-only.")
        return ExitCode.OK
    if not click.confirm("Submit it?", default=True, err=True):
        note("Nothing was submitted. The draft is kept.")
        return ExitCode.OK
    code = launch_prepared(prepared, Mode())
    if code != ExitCode.USAGE:
        delete_draft(draft.draft_id)
    return code
