from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tunedeck.core.catalog import LaunchFacts, Step, load_catalog
from tunedeck.core.errors import UsageError

WriteStep = Callable[..., Path]

HEADER = textwrap.dedent("""\
    # /// script
    # [tool.runspec]
    # schema = "1"
    # name = "steps/sft/theirs"
    # image = "registry.example/trainer:1.0"
    #
    # [tool.runspec.run]
    # launch = "{launch}"
    {more}
    # [tool.runspec.config]
    # dir = "./config"
    # default = "small"
    # format = "omegaconf"
    #
    # [tool.runspec.resources]
    # nodes = 2
    # gpus_per_node = 8
    # ///

    {body}
""")


def header(launch: str = "torchrun", more: str = "#", body: str = "import json") -> str:
    return HEADER.format(launch=launch, more=more, body=body)


@pytest.fixture
def theirs(own: Path, foreign: Path, step_in: WriteStep) -> Callable[[str], Step]:
    """A step of an added folder with the given `step.py`."""

    def build(script: str) -> Step:
        configs = {"small": "a: 1\n", "large": "a: 2\n", "_shared": "b: 1\n"}
        step_in(foreign, "sft/theirs", script=script, configs=configs)
        return load_catalog([foreign]).find("sft/theirs")

    return build


def test_launch_facts_and_resources_are_read_from_the_scripts_header(
    theirs: Callable[[str], Step],
) -> None:
    step = theirs(header())
    assert step.launch == LaunchFacts("torchrun", script=step.folder / "step.py")
    assert step.resources == {
        "nodes": 2,
        "gpus_per_node": 8,
        "container_image": "registry.example/trainer:1.0",
    }
    assert step.default_config == "small"
    assert list(step.configs) == ["large", "small"]
    assert step.not_runnable("local") is None


@pytest.mark.parametrize(
    ("launch", "more", "kind", "command"),
    [
        ("python", "#", "python", None),
        ("ray", '# workdir = "/opt/rl"', "python", None),
        ("python", '# cmd = "uv run {script} --config {config}"', "command", "uv run {script} "),
    ],
)
def test_every_launcher_of_nemotrons_has_its_kind(
    theirs: Callable[[str], Step], launch: str, more: str, kind: str, command: str | None
) -> None:
    facts = theirs(header(launch, more)).launch
    assert facts.kind == kind
    assert (facts.command or "").startswith(command or "")
    assert facts.workdir == ("/opt/rl" if launch == "ray" else None)


def test_a_step_that_says_nothing_of_its_start_cannot_be_run_anywhere(
    theirs: Callable[[str], Step],
) -> None:
    step = theirs("print('no header')\n")
    assert step.launch.kind == "unknown"
    assert "[tool.runspec]" in (step.not_runnable("slurm") or "")


def test_a_mistake_in_the_header_is_noted_at_its_line_of_the_script(
    theirs: Callable[[str], Step],
) -> None:
    step = theirs(header("torchrum"))
    (note,) = step.notes
    assert note.place.file == str(step.folder / "step.py")
    assert (note.place.line, note.place.column) == (8, 3)
    assert note.fix is not None
    assert "'torchrun'" in note.fix.words


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ("import no_such_package_a.b", "no_such_package_a"),
        ("def main():\n    from no_such_package_b import c", "no_such_package_b"),
        ("try:\n    import no_such_package_c\nexcept ImportError:\n    pass", None),
        ("import os.path, click", None),
        ("from neighbor import x", None),
        ("from . import x", None),
        ("import namespace_only.inner", "namespace_only"),
        ("def broken(:", "cannot be read as Python"),
    ],
)
def test_what_a_foreign_script_imports_must_be_here_to_run_it_here(
    theirs: Callable[[str], Step], body: str, missing: str | None
) -> None:
    step = theirs(header(body=body))
    (step.folder / "neighbor.py").touch()
    (step.folder / "namespace_only").mkdir()
    reason = step.not_runnable("local")
    assert (missing in reason) if missing and reason else reason is missing
    assert step.not_runnable("slurm") is None


@pytest.mark.parametrize(("workdir", "missing"), [("/opt/none", True), ("/", False)])
def test_a_step_that_starts_in_a_folder_of_its_container_needs_it_here(
    theirs: Callable[[str], Step], workdir: str, missing: bool
) -> None:
    reason = theirs(header(more=f'# workdir = "{workdir}"')).not_runnable("local")
    assert (workdir in reason) if reason else not missing


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("no-such-program run {script}", "no-such-program"),
        ("A=1 no-such-program {script}", "no-such-program"),
        ("sh {script} --config {config}", None),
        ("cd /tmp && no-such-program {script}", None),  # where the shell begins, nothing is guessed
        ("$HOME/bin/x {script}", None),
        ("{script} {config}", None),
    ],
)
def test_the_program_that_a_command_starts_must_be_here_to_run_it_here(
    theirs: Callable[[str], Step], command: str, missing: str | None
) -> None:
    step = theirs(header(more=f'# cmd = "{command}"'))
    reason = step.not_runnable("local")
    assert (missing in reason) if missing and reason else reason is missing
    assert step.not_runnable("slurm") is None


def test_a_step_that_needs_an_extra_says_how_to_get_it(
    own: Path, step_in: WriteStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.metadata

    step_in(own, "sft/one", "[launch]\nkind='python'\nmodule='tunedeck.trainer'\nextra='train'\n")
    step = load_catalog().find("sft/one")
    assert step.not_runnable("local") is None
    version = importlib.metadata.version

    def without_torch(name: str) -> str:
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_torch)
    reason = step.not_runnable("local") or ""
    assert "lacks torch" in reason
    assert "pip install 'tunedeck[train]'" in reason
    assert step.not_runnable("lepton") is None


def test_a_config_is_taken_by_name_or_path(theirs: Callable[[str], Step], tmp_path: Path) -> None:
    step = theirs(header())
    (tmp_path / "mine.yaml").touch()
    assert step.config_path() == step.configs["small"]
    assert step.config_path("large") == step.folder / "config" / "large.yaml"
    assert step.config_path("mine.yaml", tmp_path) == tmp_path / "mine.yaml"
    assert step.config_path(f"{tmp_path}/mine.yaml") == tmp_path / "mine.yaml"


def test_a_config_says_what_it_is_for_by_its_first_comment(
    foreign: Path, step_in: WriteStep
) -> None:
    texts = {
        "default": "# One GPU. Give it your data:\n#   a=1\na: 1\n",
        "licensed": "# Copyright (c) 2026, Somebody. All rights reserved.\na: 1\n",
        "plain": "a: 1\n",
        "tiny": "# A minute on two cores, without network: all ships with it.\na: 1\n",
    }
    step_in(foreign, "sft/theirs", configs=texts)
    step = load_catalog([foreign]).find("sft/theirs")
    assert {name: step.config_about(name) for name in texts} == {
        "default": "the default: One GPU",
        "licensed": "",
        "plain": "",
        "tiny": "A minute on two cores, without network: all ships with it",
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("larg", "'large'"),
        ("small.yml", "no config file"),
        ("./min.yaml", "mine.yaml'"),
        ("nowhere/mine.yaml", "Its configs: large, small"),
        ("./", "is a folder"),
    ],
)
def test_a_config_that_is_not_there_is_answered_with_the_nearest(
    theirs: Callable[[str], Step], tmp_path: Path, config: str, words: str
) -> None:
    step = theirs(header())
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(UsageError) as caught:
        step.config_path(config, tmp_path)
    assert words in f"{caught.value.message} {caught.value.fix}"


def test_a_step_without_a_default_config_asks_for_one(
    own: Path, foreign: Path, step_in: WriteStep
) -> None:
    step_in(foreign, "sft/theirs", configs={"other": "a: 1\n"})
    with pytest.raises(UsageError, match="no default config") as caught:
        load_catalog([foreign]).find("sft/theirs").config_path()
    assert "other" in caught.value.fix


def test_the_digest_follows_the_definition_and_nothing_else(
    theirs: Callable[[str], Step], foreign: Path
) -> None:
    step = theirs(header())
    before = step.digest
    (step.folder / "config" / "small.yaml").write_text("a: 3\n")
    (step.folder / "README.md").touch()
    moved = foreign.rename(foreign.parent / "moved")
    assert load_catalog([moved]).find("sft/theirs").digest == before
    (moved / "sft/theirs/step.py").write_text(header(body="import re"))
    assert load_catalog([moved]).find("sft/theirs").digest != before
