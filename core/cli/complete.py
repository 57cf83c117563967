"""What the shell offers for step ids and config names. A completion never fails aloud."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..catalog import Catalog


def complete_step(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Step ids, with their names as help."""
    from click.shell_completion import CompletionItem

    catalog = _catalog(ctx)
    return [
        CompletionItem(step.id, help=step.manifest.step.name)
        for step in (catalog.steps if catalog else ())
        if step.id.startswith(incomplete)
    ]


def complete_config(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Config names of the step that stands on the line, or files once there is a slash."""
    from click.shell_completion import CompletionItem

    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    # A line that ends in `-c` does not parse yet: what was typed is then left in `args`.
    query = ctx.params.get("step_id") or next((a for a in ctx.args if not a.startswith("-")), None)
    catalog = _catalog(ctx)
    if catalog is None or not query:
        return []
    from ..errors import UsageError

    try:
        step = catalog.find(query)
    except UsageError:
        return []
    return [CompletionItem(name) for name in step.configs if name.startswith(incomplete)]


def _catalog(ctx: click.Context) -> Catalog | None:
    from ..catalog import load_catalog
    from ..errors import UsageError

    try:
        return load_catalog(Path(folder) for folder in ctx.params.get("catalog") or ())
    except UsageError:
        return None
