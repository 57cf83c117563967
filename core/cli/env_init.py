"""`tunedeck env init`: ask what only the site can say, show the file, write it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ExitCode
from ..keys import split_key
from .complete import complete_generator
from .env_print import short
from .options import examples, json_option, yes_option

if TYPE_CHECKING:
    from ..env.generate import Generated
    from ..env.generate_config import GeneratorConfig

_EPILOG = examples("""
  tunedeck env init -c slurm
  tunedeck env init -c slurm force=true sections.slurm_base.account=nlp
  tunedeck env init -c lepton output_path=env.toml sections.lepton_base.node_group=h100-pool
""")


@click.command("init", epilog=_EPILOG)
@click.argument("overrides", nargs=-1, metavar="[key=value]...")
@click.option(
    "-c",
    "--config",
    default="lepton",
    show_default=True,
    shell_complete=complete_generator,
    help="local, slurm, lepton, dgxcloud, hf_jobs, or the path of a generator config.",
)
@yes_option
@click.option("-d", "--dry-run", is_flag=True, help="Show the file and write nothing.")
@json_option
def init_command(
    overrides: tuple[str, ...], config: str, yes: bool, dry_run: bool, as_json: bool
) -> int:
    """Generate an env file: a profile for every kind of step.

    An existing file is kept unless force=true is given; then your comments, your further profiles
    and keys stay, and the old file is kept beside it as .bak.
    """
    return run_generator(config, overrides, yes=yes, dry_run=dry_run, as_json=as_json)


def run_generator(
    config: str,
    overrides: Sequence[str] = (),
    *,
    yes: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Generate an env file and print what was done; also what `steps run env/env_toml` does.

    Questions are asked only on a terminal, and none with `yes`, `dry_run` or `as_json`.
    """
    from ..env.generate import generate, output_file, write
    from ..env.generate_config import load_generator
    from .output import note, print_findings, print_json

    cwd = Path.cwd()
    loaded = load_generator(config, overrides, cwd)
    output_file(loaded, cwd)  # that a file is in the way is said before anything is asked
    asking = not (yes or dry_run or as_json) and sys.stdin.isatty() and sys.stdout.isatty()
    generated = generate(config, overrides, cwd, _ask(loaded) if asking else None)
    if (asking or dry_run) and not as_json:
        _show(generated)
    wanted = not dry_run and (not asking or _confirmed(generated))
    backup = write(generated) if wanted else None
    if as_json:
        print_json(_document(generated, backup, written=wanted))
        return ExitCode.OK
    # What is still open is said in a line each, below.
    open_keys = {".".join(map(str, split_key(value.key))) for value in generated.open_values}
    print_findings(f for f in generated.findings if f"{f.profile}.{f.key}" not in open_keys)
    if wanted:
        click.echo(f"Wrote {short(generated.path)} with {len(generated.profiles)} profiles.")
        if backup:
            note(f"The file as it was is in {short(backup)}.")
        _say_what_is_next(generated)
    elif asking:
        note("Nothing was written.")
    return ExitCode.OK


def _ask(config: GeneratorConfig) -> dict[str, str]:
    """The site's answers; what is left empty stays as the config has it."""
    from .output import note

    if config.site:
        note("A few values that only your site can give. Enter keeps what is in brackets.")
    answers: dict[str, str] = {}
    for value in config.site:
        known = os.environ.get(value.env, "")
        answer = click.prompt(
            f"{value.question} (such as {value.example})",
            default=known,
            show_default=bool(known),
            err=True,
        )
        if answer.strip():
            answers[value.key] = answer.strip()
    return answers


def _confirmed(generated: Generated) -> bool:
    return click.confirm(f"Write {short(generated.path)}?", default=True, err=True)


def _show(generated: Generated) -> None:
    """The file, or what changes in the one that is there; highlighted on a terminal."""
    from .output import color_wanted

    text, language = generated.text, "toml"
    if generated.existing is not None:
        text, language = generated.diff or "(no change)\n", "diff"
    if not sys.stdout.isatty() or color_wanted() is False:
        click.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(Syntax(text, language, theme="ansi_dark", background_color="default"))


def _document(generated: Generated, backup: Path | None, *, written: bool) -> dict[str, Any]:
    return {
        "path": str(generated.path),
        "written": written,
        "backup": str(backup) if backup else None,
        "profiles": list(generated.profiles),
        "open_values": [{"key": v.key, "env": v.env} for v in generated.open_values],
        "findings": [finding.to_json() for finding in generated.findings],
        "text": generated.text,
    }


def _say_what_is_next(generated: Generated) -> None:
    from ..env.find import find_env_files
    from .output import note

    if generated.open_values:
        note("Still to fill in, in the file or by the environment variable:")
    for value in generated.open_values:
        note(f"  {value.key:<30} {value.env}")
    found = generated.path in find_env_files(Path.cwd()).files
    file = "" if found else f" --env-file {short(generated.path)}"
    lora = next((name for name in generated.profiles if name.endswith("peft_automodel")), None)
    note(f"Next:  tunedeck env check{'' if found else f' {short(generated.path)}'}")
    if lora:
        note(f"       tunedeck steps run peft/automodel -c tiny -r {lora} --dry-run{file}")
