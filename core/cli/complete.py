"""What the shell offers for the words of a command. A completion never fails aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from ..catalog import Catalog, Step

_Source = Callable[[click.Context], Iterable[tuple[str, str]]]
_Complete = Callable[[click.Context, click.Parameter, str], "list[CompletionItem]"]
_NEWEST = 30


def _offering(source: _Source, *, or_files: bool = False) -> _Complete:
    """A completion from words and what is said of them; what cannot be read offers nothing.

    With `or_files`, what looks like a path is completed as one.
    """

    def complete(
        ctx: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from ..errors import TunedeckError

        if or_files and ("/" in incomplete or incomplete.startswith(".")):
            return [CompletionItem(incomplete, type="file")]
        try:
            offered = list(source(ctx))
        except (TunedeckError, OSError):
            return []
        return [
            CompletionItem(word, help=text or None)
            for word, text in offered
            if word.startswith(incomplete)
        ]

    return complete


def complete_override(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Keys of the step's config; after the `=`, the values where they are few."""
    key, given, _ = incomplete.partition("=")
    return _offering(lambda ctx: _values(ctx, key) if given else _keys(ctx))(
        ctx, parameter, incomplete
    )


def _steps(ctx: click.Context) -> Iterator[tuple[str, str]]:
    return ((step.id, step.manifest.step.name) for step in _catalog(ctx).steps)


def _configs(ctx: click.Context) -> Iterator[tuple[str, str]]:
    step = _step(ctx)
    return ((name, "") for name in (step.configs if step else ()))


def _keys(ctx: click.Context) -> Iterator[tuple[str, str]]:
    from ..config.describe import describe
    from ..schema import schema_for

    step = _step(ctx)
    schema = schema_for(step.launch.schema) if step else None
    for info in describe(schema) if schema else ():
        if info.kind != "table":
            yield f"{info.key}=", info.type


def _values(ctx: click.Context, key: str) -> Iterator[tuple[str, str]]:
    from ..config.describe import describe
    from ..schema import schema_for

    step = _step(ctx)
    schema = schema_for(step.launch.schema) if step else None
    for info in describe(schema) if schema else ():
        if info.key == key:
            yield from ((f"{key}={value}", "") for value in info.choices)


def _profiles(ctx: click.Context) -> Iterator[tuple[str, str]]:
    from ..env.find import find_env_files
    from ..env.load import load_env_files

    files = load_env_files(find_env_files(None, ctx.params.get("env_file")))
    for profile in files.profiles.values():
        file = profile.place().file
        yield profile.name, Path(file).name if file else "built in"


def _runs(_ctx: click.Context) -> Iterator[tuple[str, str]]:
    from ..runs.registry import Registry

    newest = Registry().list(limit=_NEWEST)
    for record in newest:
        yield record.run_id, f"{record.name}, {record.state}"
    # A name means the newest run that has it.
    for name, record in {record.name: record for record in reversed(newest)}.items():
        yield name, f"{record.run_id}, {record.state}"


def _replays(_ctx: click.Context) -> Iterator[tuple[str, str]]:
    from ..replays.files import replay_files

    return ((name, str(source)) for name, (_, source) in replay_files().items())


def _generators(_ctx: click.Context) -> Iterator[tuple[str, str]]:
    from ..env.generate_config import config_names

    return ((name, "") for name in config_names())


def _step(ctx: click.Context) -> Step | None:
    """The step that stands on the line, or the one of the run or replay that does, if any does."""
    if run := ctx.params.get("query"):
        from ..runs.registry import Registry

        query = Registry().find(run).step
    elif ctx.info_name == "replay" and "name" in ctx.params:
        from ..replays.replay import load_replay

        query = load_replay(ctx.params["name"]).ingredients.step
    else:
        # A line that ends in an option does not parse yet: what was typed is then left in `args`.
        words = (word for word in ctx.args if not word.startswith("-"))
        query = ctx.params.get("step_id") or next(words, "")
    return _catalog(ctx).find(query) if query else None


def _catalog(ctx: click.Context) -> Catalog:
    from ..catalog import load_catalog

    return load_catalog(Path(folder) for folder in ctx.params.get("catalog") or ())


complete_config = _offering(_configs, or_files=True)
"""Config names of the step that stands on the line, or files."""
complete_generator = _offering(_generators, or_files=True)
"""The configs of `env init`, or files."""
complete_step = _offering(_steps)
"""Step ids, with their names as help."""
complete_profile = _offering(_profiles)
"""Profiles of the env files that are found, with their file as help."""
complete_run = _offering(_runs)
"""The newest runs, with their name and last known state as help."""
complete_replay = _offering(_replays)
"""Saved launches."""
