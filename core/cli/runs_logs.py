"""Printing a log: safe text on a terminal, the very bytes elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..backends.base import KeepsNodeLogs
from ..backends.tail import tail
from ..errors import ReachError, UsageError
from ..logs.spool import bring_home, catch_up
from ..runs.watch import backend_of
from ..text import counted, shown_line
from .output import note, print_json_line

if TYPE_CHECKING:
    from ..backends.base import Handle
    from ..logs.log_filter import LogFilter
    from ..runs.record import RunRecord


def bring_up_to_date(
    record: RunRecord, handle: Handle | None = None, log: Path | None = None
) -> None:
    """Copy home what a backend elsewhere has of the log; what is here serves if not.

    Args:
        record: the run.
        handle: the job by which another log than the run's is told.
        log: the place of that on this machine.
    """
    backend, handle = backend_of(record), handle or record.backend_handle
    if not backend.capabilities.remote or handle is None:
        return
    try:
        asyncio.run(catch_up(handle, backend, log or record.log))
    except ReachError as error:
        note(f"{error} This is the log as far as it is on this machine.")


def log_of_node(record: RunRecord, node: int) -> tuple[Handle, Path]:
    """The job and the place here of the log of a node other than the first.

    Raises:
        UsageError: if the run has no such node, or its backend keeps one log alone.
    """
    backend, handle = backend_of(record), record.backend_handle
    nodes = int((record.plan.get("launch") or {}).get("nodes") or 1)
    if handle is None or not isinstance(backend, KeepsNodeLogs) or node >= nodes:
        raise UsageError(
            f"{record.run_id} has no log of a node {node}: it runs on {counted(nodes, 'node')}.",
            fix="Leave --node out, or choose the lines of a process: --rank N",
        )
    return backend.of_node(handle, node), record.run_dir / f"node_{node}.txt"


async def follow_node(
    record: RunRecord, handle: Handle, log: Path, offset: int, wanted: LogFilter, *, as_json: bool
) -> None:
    """Print the log of one node as it is written, until the run has ended."""
    copying = asyncio.create_task(bring_home(handle, backend_of(record), log, note))
    shows = wanted.chooser() if wanted else lambda _line: True

    async def over() -> bool:
        return copying.done()

    try:
        async with aclosing(tail(log, offset, over, follow=True)) as lines:
            async for line in lines:
                if not shows(line.line):
                    continue
                if as_json:
                    print_json_line({"line": shown_line(line.line), "offset": int(line.cursor)})
                elif sys.stdout.isatty():
                    click.echo(shown_line(line.line))
                else:
                    sys.stdout.buffer.write(line.line + b"\n")
                    sys.stdout.buffer.flush()
        await copying
    finally:
        copying.cancel()


def print_log(log: Path, offset: int, *, as_json: bool) -> None:
    """Print a log from a byte offset on. A log that is not there is empty."""
    if not log.exists():
        return
    with log.open("rb") as file:
        file.seek(offset)
        if as_json:
            for line in file:
                offset += len(line)
                print_json_line({"line": shown_line(line.rstrip(b"\n")), "offset": offset})
        elif sys.stdout.isatty():
            for line in file:
                click.echo(shown_line(line.rstrip(b"\n")))
        else:
            sys.stdout.flush()
            shutil.copyfileobj(file, sys.stdout.buffer)


def print_filtered(log: Path, wanted: LogFilter, tail: int | None, *, as_json: bool) -> None:
    """Print the lines of a log that a filter lets through, or the last few of them."""
    from ..logs.filtered_reader import FilteredReader
    from ..logs.spool_reader import SpoolReader

    with SpoolReader(log) as reader:
        chosen = FilteredReader(reader, wanted)
        chosen.catch_up(ended=True)
        if not len(chosen):
            note(f"No line so far is of: {wanted}.")
        start = 0 if tail is None else max(0, len(chosen) - tail)
        for number in range(start, len(chosen)):
            line = chosen.raw(number)
            if as_json:
                print_json_line({"line": shown_line(line), "number": chosen.number(number) + 1})
            elif sys.stdout.isatty():
                click.echo(shown_line(line))
            else:
                sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()
