"""Showing a prepared launch: what will run, with what, and what the checks say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..price import price_words
from ..runs.registry import Registry
from ..since import since_last
from ..text import counted
from .output import line, note, print_findings, print_json

if TYPE_CHECKING:
    from ..origins import Sourced
    from ..prepare import Prepared


def print_preview(prepared: Prepared, *, explain: bool, as_json: bool) -> None:
    """Print what submitting would send; with `explain`, where each config value came from."""
    since = since_last(prepared.plan.to_json(), Registry())
    if as_json:
        document = prepared.to_json()
        document["since"] = since.to_json() if since else None
        if explain:
            document["explain"] = {
                key: _explained(sourced) for key, sourced in prepared.plan.config_origins.items()
            }
        print_json(document)
        return
    import yaml

    plan, submission = prepared.plan, prepared.submission
    _heading("Plan")
    nodes = counted(plan.launch.nodes, "node")
    shape = f"{nodes} x {counted(plan.launch.nproc_per_node, 'process', 'processes')}"
    for label, text in (
        ("run", f"{plan.run_id} ({plan.name})"),
        ("step", plan.step),
        ("config", plan.config_name),
        ("profile", f"{plan.profile} (executor {plan.executor}), {shape}"),
        ("digest", plan.digest),
        ("run dir", str(plan.run_dir)),
    ):
        line(f"  {label:<8} {text}")
    if explain:
        _heading("Where each value came from")
        _print_origins(plan.config_origins)
        _heading(f"Profile {plan.profile}")
        _print_origins(plan.profile_origins)
    else:
        _heading("Resolved config")
        _indented(yaml.safe_dump(dict(plan.config), sort_keys=False, allow_unicode=True))
    if submission.script:
        _heading("Script")
        line(submission.script.rstrip())
    if submission.payload is not None:
        _heading("Payload")
        print_json(submission.payload)
    _heading("Command")
    line(f"  {submission.command}")
    shown = submission.to_json()
    if shown["env"]:
        _heading("Environment")
        for name, value in shown["env"].items():
            line(f"  {name}={value}")
    if submission.files:
        _heading("Files that will be written")
        for file in submission.files:
            line(f"  {file.path} ({len(file.content.encode())} bytes, mode {file.mode:o})")
    if prepared.price:
        _heading("Price")
        line(f"  {price_words(prepared.price)}")
    if since:
        _heading(f"Since {since.record.run_id} ({since.record.name})")
        for text in map(str, since.changes):
            line(f"  {text}")
        if not since.changes:
            line("  nothing has changed")
    line(err=True)
    print_findings(prepared.findings)
    for text in plan.notes:
        note(text)


def _heading(text: str) -> None:
    line()
    line(text, bold=True)


def _indented(text: str) -> None:
    for part in text.splitlines():
        line(f"  {part}")


def _print_origins(origins: Any) -> None:
    for key, sourced in origins.items():
        over = "".join(f", over {value!r} of {origin}" for value, origin in sourced.overrode)
        line(f"  {key} = {sourced.value!r}  [{sourced.origin}{over}]")


def _explained(sourced: Sourced) -> dict[str, Any]:
    return {
        "value": sourced.value,
        "layer": sourced.origin.layer,
        "file": sourced.origin.place.file,
        "line": sourced.origin.place.line,
        "text": sourced.origin.text,
        "overrode": [
            {
                "value": value,
                "layer": origin.layer,
                "file": origin.place.file,
                "line": origin.place.line,
            }
            for value, origin in sourced.overrode
        ],
    }
