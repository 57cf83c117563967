"""`tunedeck data`: what training makes of a config's data, without launching anything."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ExitCode, UsageError
from .options import (
    catalog_option,
    config_option,
    examples,
    json_option,
    overrides_argument,
    step_argument,
)
from .output import color_wanted, print_findings, print_json

if TYPE_CHECKING:
    from ..data.look import DataLook

_EPILOG = examples("""
  tunedeck data look peft/automodel -c tiny
  tunedeck data look sft/automodel -c my.yaml dataset.seq_length=1024 --rows 10
  tunedeck data look peft/automodel -c my.yaml --validation --json
""")


@click.group()
def data() -> None:
    """Look at training data as the model will see it."""


@data.command("look", short_help="Counts, lengths, and rows token by token.", epilog=_EPILOG)
@step_argument
@overrides_argument
@config_option
@click.option("--validation", is_flag=True, help="Look at validation_dataset instead.")
@click.option(
    "--rows",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Rows that are shown token by token.",
)
@click.option("--all", "whole", is_flag=True, help="Count every row, however many there are.")
@catalog_option
@json_option
def look(
    step_id: str,
    overrides: tuple[str, ...],
    config: str | None,
    validation: bool,
    rows: int,
    whole: bool,
    catalog: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Show what a training config makes of its data: counts, lengths, and rows token by token.

    Trained tokens are green (without colors: in ⟦ ⟧), context is plain, and what lies beyond
    seq_length is struck out (~~ ~~). Ends with 2 where a finding would block a launch.
    """
    from ..findings import blocking

    found = _look(step_id, config, overrides, validation, rows, whole, catalog)
    if as_json:
        print_json(found.to_json())
    else:
        from ..data.text import look_lines

        colored = color_wanted() is not False and sys.stdout.isatty()
        for text in look_lines(found, color=colored):
            click.echo(text, color=colored)
        print_findings(found.findings)
    return ExitCode.USAGE if blocking(list(found.findings)) else ExitCode.OK


def _look(
    step_id: str,
    config: str | None,
    overrides: tuple[str, ...],
    validation: bool,
    rows: int,
    whole: bool,
    catalog: tuple[Path, ...],
) -> DataLook:
    from ..catalog import load_catalog
    from ..chat.check import DEFAULT_LIMIT
    from ..config.compose import compose
    from ..data.look import look_at_data
    from ..schema import schema_for

    step = load_catalog(catalog).find(step_id)
    table = "validation_dataset" if validation else "dataset"
    schema = schema_for(step.launch.schema)
    steps = "a step that trains" if validation else "a step that trains, or data_prep/inspect"
    fix = f"Name {steps}, and set {table}.path_or_dataset_id."
    if schema is None and step.launch.kind != "builtin":
        words = f"{step.id} has a config of its own: what it makes of its data is not known here."
        raise UsageError(words, fix=fix)
    if schema is None or table not in schema.model_fields:
        raise UsageError(f"{step.id} reads no {table}.", fix=fix)
    path = step.config_path(config, Path.cwd())
    values = compose(path, overrides, schema=schema).values
    if not (values.get(table) or {}).get("path_or_dataset_id"):
        raise UsageError(f"{step.id} with {path.name} has no {table}.", fix=fix)
    return look_at_data(values, table, rows=rows, limit=None if whole else DEFAULT_LIMIT)
