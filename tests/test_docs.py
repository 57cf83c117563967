"""What the pages and the help texts tell people to type can be typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from tunedeck.core.catalog import Catalog, load_catalog
from tunedeck.core.cli.main import cli, run
from tunedeck.core.config.describe import describe
from tunedeck.core.config.overrides import parse_override
from tunedeck.core.env.generate_config import config_names, load_generator
from tunedeck.core.keys import dotted
from tunedeck.core.schema import schema_for

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(tunedeck [^`…]+)`")
MISTAKE = "optimiser."
PREFIXES = tuple(f"{name}_" for name in ("slurm", "lepton", "dgxcloud", "hf", "local"))


def shown_by(page: Path) -> Iterator[str]:
    """The commands of a page, each as one line without what is said beside it."""
    text = page.read_text()
    for language, block in FENCED.findall(text):
        if language in ("", "console", "sh"):
            yield from commands_of(re.sub(r"\\\n\s*", " ", block))
    yield from INLINE.findall(FENCED.sub("", text))


def commands_of(block: str) -> Iterator[str]:
    for line in block.splitlines():
        typed = line.strip().removeprefix("$ ")
        if typed.startswith("tunedeck ") and "…" not in typed.partition("#")[0]:
            # What is said of a command stands two spaces behind it, or behind a '#'.
            yield re.split(r"\s{2,}|\s+[#>|]", typed)[0]


def all_commands(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def parsed(typed: str) -> click.Context:
    """What click makes of a command, which is not run.

    Raises:
        click.UsageError: if there is no such command, option or choice, or an argument is missing.
    """
    optional = re.sub(r"(?<=\s)\[|\](?=\s|$)", "", typed)
    words = ["1" if word == "N" else word for word in shlex.split(optional)][1:]
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    if not words:  # a command that is spoken of, without what it takes
        return context
    return command.make_context(context.info_name or "tunedeck", words, parent=context.parent)


def check_names(context: click.Context) -> None:
    """Hold the step, config, keys and generated profiles of a command against what there is."""
    given = context.params
    for option in ("attached", "detached", "profile", "a", "b"):
        name = given.get(option)
        if isinstance(name, str) and name.startswith(PREFIXES):
            assert name in generated_profiles(), name
    if "step_id" not in given or given["step_id"] == "STEP":
        return
    step = catalog().find(given["step_id"])
    config = given.get("config")
    assert config is None or config.endswith(".yaml") or config in step.configs, config
    schema = schema_for(step.launch.schema)
    keys = {info.key for info in describe(schema)} if schema else None
    for text in given.get("overrides", ()):
        key = dotted(parse_override(text).path)
        assert keys is None or key in keys or key.startswith("run.env."), key


@cache
def catalog() -> Catalog:
    return load_catalog()


@cache
def generated_profiles() -> set[str]:
    return {name for config in config_names() for name in load_generator(config).sections}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_can_be_typed(page: Path) -> None:
    shown = list(shown_by(page))
    assert shown or page.stem == "parallelism"
    for typed in shown:
        if MISTAKE not in typed:
            check_names(parsed(typed))


def test_every_command_ends_its_help_with_examples_that_can_be_typed() -> None:
    for path, command in all_commands():
        examples = (command.epilog or command.help or "").partition("Examples:")[2]
        shown = list(commands_of(examples))
        assert any(typed.startswith(f"tunedeck {path}") for typed in shown), path
        for typed in shown:
            check_names(parsed(typed))


def test_the_mistake_that_the_readme_shows_is_answered_as_it_says(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    block = next(block for _, block in FENCED.findall(PAGES[0].read_text()) if MISTAKE in block)
    typed, _, answer = block.partition("\n")
    assert run(shlex.split(typed)[2:]) == 2
    assert capsys.readouterr().err == answer
