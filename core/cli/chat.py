"""`tunedeck chat`: the base and a run's result, asked the same things, side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..errors import ExitCode
from ..text import strip_controls
from .complete import complete_run
from .options import examples, json_option
from .output import line, note, print_json, print_json_line, width

if TYPE_CHECKING:
    from ..runs.chat_session import Answers

_SIDE_BY_SIDE = 60
"""On a narrower terminal the answers stand below each other."""


@click.command(
    epilog=examples("""
    tunedeck chat demo
    tunedeck chat demo --prompt 'What is 27 plus 45?' --json
    """),
)
@click.argument("run", shell_complete=complete_run)
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", help="Ask this. Repeatable.")
@json_option
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Longest answer in tokens.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0: the likeliest answer. Above: drawn by chance, the higher the freer.",
)
def chat(
    run: str, prompts: tuple[str, ...], as_json: bool, max_new_tokens: int, temperature: float
) -> int:
    """Ask the base model and a run's result the same things.

    RUN is a run's id or name. Its best checkpoint answers, else its latest. Without --prompt,
    prompts are read line by line. Each is asked by itself, without what was said before.
    """
    from ..runs.chat_session import chat_session, pair_of
    from ..runs.registry import Registry

    record = Registry().find(run)
    pair = pair_of(record)
    note(f"Loading {pair.base} and the {pair.name} of {record.run_id}")
    with chat_session(pair) as session:

        def ask(prompt: str) -> Answers:
            return session.ask(prompt, max_new_tokens=max_new_tokens, temperature=temperature)

        if prompts and as_json:
            answers = [asdict(ask(prompt)) for prompt in prompts]
            models = {"base": pair.base, "tuned": str(pair.tuned), "step": pair.step}
            print_json({"run_id": record.run_id, **models, "answers": answers})
            return ExitCode.OK
        for prompt in prompts or _typed():
            if as_json:
                print_json_line(asdict(ask(prompt)))
            else:
                _show(ask(prompt), pair.name, typed=not prompts and sys.stdin.isatty())
    return ExitCode.OK


def _typed() -> Iterator[str]:
    """What is typed, or comes through a pipe, a prompt a line."""
    if not sys.stdin.isatty():
        yield from filter(None, map(str.strip, sys.stdin))
        return
    note("Ask something. Ctrl-D ends.")
    while True:
        try:
            text = click.prompt(">", prompt_suffix=" ", default="", show_default=False, err=True)
        except click.Abort:
            note("")
            return
        if text.strip():
            yield text.strip()


def _show(answers: Answers, tuned: str, *, typed: bool) -> None:
    """Print both answers, below the prompt unless that was just typed."""
    if sys.stdout.isatty() and width() >= _SIDE_BY_SIDE:
        _show_beside(answers, tuned, title=None if typed else answers.prompt)
        return
    for name, text in (("asked", answers.prompt), ("base", answers.base), (tuned, answers.tuned)):
        line(f"{name}: ", bold=True)
        for part in text.splitlines() or [""]:
            line(f"  {part}")


def _show_beside(answers: Answers, tuned: str, *, title: str | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", width=width(), title_justify="left")
    if title is not None:
        table.title = Text(strip_controls(title))
    for name in ("base", tuned):
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(Text(strip_controls(answers.base)), Text(strip_controls(answers.tuned)))
    Console().print(table)
