"""`tunedeck steps`: what the catalog holds. Running a step is `steps_run`."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ExitCode
from .lazy import LazyGroup
from .options import catalog_option, examples, json_option, step_argument
from .output import line, note, print_findings, print_json, print_table

if TYPE_CHECKING:
    from ..catalog import Catalog, Step


_COMMANDS = {
    "list": "steps:list_command",
    "show": "steps:show_command",
    "run": "steps_run:run_command",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def steps() -> None:
    """List, show and run the steps of the catalog."""


@click.command(
    "list",
    epilog=examples("""
    tunedeck steps list --tree
    tunedeck steps list --consumes training_jsonl --json
    """),
)
@click.option("--category", metavar="NAME", help="Only this category: sft, peft, convert …")
@click.option("--consumes", metavar="TYPE", help="Only steps that can take this artifact type.")
@click.option("--produces", metavar="TYPE", help="Only steps that make this artifact type.")
@click.option("--tag", metavar="TAG", help="Only steps with this tag.")
@click.option("--tree", is_flag=True, help="Group by category.")
@catalog_option
@json_option
def list_command(
    category: str | None,
    consumes: str | None,
    produces: str | None,
    tag: str | None,
    tree: bool,
    catalog: tuple[Path, ...],
    as_json: bool,
) -> int:
    """List the steps: what each takes and makes. An input in parentheses is optional."""
    from ..catalog import load_catalog

    loaded = load_catalog(catalog)
    print_findings(loaded.findings)
    found = loaded.select(category=category, consumes=consumes, produces=produces, tag=tag)
    if as_json:
        print_json([_summary(step) for step in found])
    elif not found:
        note("No step has all of that. See all steps: tunedeck steps list")
    elif tree:
        _print_tree(found)
    else:
        _print_list(found)
    return ExitCode.OK


@click.command("show", epilog=examples("tunedeck steps show peft/automodel"))
@step_argument
@catalog_option
@json_option
def show_command(step_id: str, catalog: tuple[Path, ...], as_json: bool) -> int:
    """Show a step: inputs, configs, parameters, advice and known errors.

    STEP is an id or an unambiguous tail of one: merge_lora for convert/merge_lora.
    """
    from ..catalog import load_catalog

    loaded = load_catalog(catalog)
    step = loaded.find(step_id)
    if as_json:
        print_json(_details(step, loaded))
    else:
        print_findings(step.notes)
        from .step_page import print_step

        print_step(step, loaded)
    return ExitCode.OK


def _summary(step: Step) -> dict[str, Any]:
    """A step in `steps list --json`."""
    manifest = step.manifest
    return {
        "id": step.id,
        "name": manifest.step.name,
        "category": manifest.step.category,
        "tags": list(manifest.step.tags),
        "consumes": [artifact.model_dump() for artifact in manifest.consumes],
        "produces": [artifact.model_dump() for artifact in manifest.produces],
        "configs": list(step.configs),
        "source": step.source,
    }


def _details(step: Step, catalog: Catalog) -> dict[str, Any]:
    """A step in `steps show --json`."""
    manifest, launch = step.manifest, step.launch
    return {
        **_summary(step),
        "description": manifest.step.description,
        "folder": str(step.folder),
        "default_config": step.default_config,
        "config_files": {name: str(file) for name, file in step.configs.items()},
        "parameters": [parameter.model_dump() for parameter in manifest.parameters],
        "models": [model.model_dump() for model in manifest.models],
        "strategies": [strategy.model_dump() for strategy in manifest.strategies],
        "errors": [error.model_dump() for error in manifest.errors],
        "reference": manifest.reference,
        "launch": {
            "kind": launch.kind,
            "module": launch.module or None,
            "args": list(launch.args),
            "schema": launch.schema,
            "script": launch.script,
            "command": launch.command,
            "workdir": launch.workdir,
        },
        "resources": dict(step.resources),
        "digest": step.digest,
        "not_runnable_here": step.not_runnable("local"),
        "next": {
            artifact.type: [step.id for step in catalog.select(consumes=artifact.type)]
            for artifact in manifest.produces
        },
        "notes": [finding.to_json() for finding in step.notes],
    }


def _print_list(found: list[Step]) -> None:
    from ..catalog import SHIPPED

    print_table(("STEP", "NAME", "TAKES", "MAKES"), (_row(step) for step in found))
    for source, count in Counter(step.source for step in found).items():
        if source != SHIPPED:
            note(f"{count} of {len(found)} are from {source}.")


def _row(step: Step) -> list[Any]:
    takes, makes = (
        [artifact.type if artifact.required else f"({artifact.type})" for artifact in side]
        for side in (step.manifest.consumes, step.manifest.produces)
    )
    return [step.id, step.manifest.step.name, takes, makes]


def _print_tree(found: list[Step]) -> None:
    by_category = sorted(found, key=lambda step: (step.manifest.step.category, step.id))
    size = max(len(step.id) for step in found)
    for category, members in groupby(by_category, key=lambda step: step.manifest.step.category):
        line(category, bold=True)
        children = list(members)
        for step in children:
            branch = "└─" if step is children[-1] else "├─"
            line(f"{branch} {step.id.ljust(size)}  {step.manifest.step.name}")
