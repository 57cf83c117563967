"""Where it runs: the profiles of the env files, what is wrong with them, and how to mend it."""

from __future__ import annotations

from dataclasses import replace

from ...core.cli.output import note, print_findings
from ...core.errors import UsageError
from ...core.profiles import ProfileLook, Profiles, look_at_profiles
from ...core.selection import Selection
from ...core.text import counted, did_you_mean
from .ask import BACK, Session, ask, choose, command
from .profile import edit_keys

_ACTIONS = {
    "show NAME": "tells a profile's values and what is wrong",
    "edit NAME": "sets its keys",
    "rename NAME": "gives it another name, also where others extend it",
    "delete NAME": "takes it out of its file",
    "fix NAME": "makes the mends that are beyond doubt",
    "free NAME": "asks what it has free now",
    "new KIND": "makes an env file: local, slurm, lepton, dgxcloud or hf_jobs",
    BACK: "goes back",
}


def choose_place(session: Session, selection: Selection) -> tuple[Selection, bool]:
    """Ask for a profile, and do with the env files what is asked.

    Returns:
        The selection, and whether one goes on (or back).

    Raises:
        Left: if the person leaves.
        UsageError: if an env file that was named is not there.
    """
    actions = {word.partition(" ")[0]: what for word, what in _ACTIONS.items()}
    while True:
        found = look_at_profiles(selection.cwd, selection.env_file)
        note(f"Env files: {', '.join(map(str, found.files)) or found.reason}")
        print_findings(found.findings)
        names = [(profile.name, _about(profile)) for profile in found.profiles]
        default = selection.profile if selection.profile in dict(names) else "local"
        answer = choose(session, "Where it runs", names, default, actions=actions)
        if answer in dict(names):
            return replace(selection, profile=answer), True
        first, _, rest = answer.partition(" ")
        if first == BACK:
            return selection, False
        if first == "new":
            if session.may_change("Writing an env file"):
                command("env", "init", "-c", rest or "slurm")
            continue
        name = _named(found, rest or default)
        if name is None:
            continue
        file = ["--env-file", str(selection.env_file)] if selection.env_file else []
        if first == "show":
            profile = next(one for one in found.profiles if one.name == name)
            command("env", "show", name, *file)
            print_findings(profile.findings)
        elif first == "free":
            command("queue", name, *file)
        elif first == "edit" and session.may_change("Writing an env file"):
            try:
                edit_keys(name, selection)
            except UsageError as error:
                from ...core.cli.output import print_error

                print_error(error)
        elif first == "rename" and session.may_change("Renaming"):
            command("env", "rename", name, ask("Its new name"), *file)
        elif first == "delete" and session.may_change("Deleting"):
            command("env", "delete", name, *file)
        elif first == "fix" and session.may_change("Mending"):
            profile = next(one for one in found.profiles if one.name == name)
            keys = [f"{one.profile}.{one.key}" for one in profile.findings if _mendable(one)]
            if not keys:
                note("None of this can be mended without you: edit sets its keys.")
            for key in keys:
                command("env", "check", "--fix", "--only", key, *file)


def _mendable(finding: object) -> bool:
    fix = getattr(finding, "fix", None)
    return fix is not None and fix.edit is not None


def _about(profile: ProfileLook) -> str:
    errors = sum(finding.severity == "error" for finding in profile.findings)
    wrong = f", {counted(errors, 'error')}" if errors else ""
    values = profile.values
    shape = f", {counted(values.get('nodes') or 1, 'node')}"
    gpus = f" of {counted(values['gpus_per_node'], 'GPU')}" if values.get("gpus_per_node") else ""
    place = f", {profile.place}" if profile.place.file else ", built in"
    return f"{profile.executor or 'no executor'}{shape}{gpus}{place}{wrong}"


def _named(found: Profiles, text: str) -> str | None:
    names = [profile.name for profile in found.profiles]
    if text.isdigit() and 1 <= int(text) <= len(names):
        return names[int(text) - 1]
    if text in names:
        return text
    note(f"There is no profile '{text}'. {did_you_mean(text, names)}".strip())
    return None
