"""Printing a log: safe text on a terminal, the very bytes elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import ReachError
from ..spool import catch_up
from ..watch import backend_of
from .live import shown_text
from .output import note, print_json_line

if TYPE_CHECKING:
    from ..log_filter import LogFilter
    from ..record import RunRecord


def bring_up_to_date(record: RunRecord) -> None:
    """Copy home what a backend elsewhere has of the log; what is here serves if not."""
    backend, handle = backend_of(record), record.backend_handle
    if not backend.capabilities.remote or handle is None:
        return
    try:
        asyncio.run(catch_up(handle, backend, record.log))
    except ReachError as error:
        note(f"{error} This is the log as far as it is on this machine.")


def print_log(log: Path, offset: int, *, as_json: bool) -> None:
    """Print a log from a byte offset on. A log that is not there is empty."""
    if not log.exists():
        return
    with log.open("rb") as file:
        file.seek(offset)
        if as_json:
            for line in file:
                offset += len(line)
                print_json_line({"line": shown_text(line.rstrip(b"\n")), "offset": offset})
        elif sys.stdout.isatty():
            for line in file:
                click.echo(shown_text(line.rstrip(b"\n")))
        else:
            sys.stdout.flush()
            shutil.copyfileobj(file, sys.stdout.buffer)


def print_filtered(log: Path, wanted: LogFilter, tail: int | None, *, as_json: bool) -> None:
    """Print the lines of a log that a filter lets through, or the last few of them."""
    from ..filtered_reader import FilteredReader
    from ..spool_reader import SpoolReader

    with SpoolReader(log) as reader:
        chosen = FilteredReader(reader, wanted)
        chosen.catch_up(ended=True)
        start = 0 if tail is None else max(0, len(chosen) - tail)
        for number in range(start, len(chosen)):
            line = chosen.raw(number)
            if as_json:
                print_json_line({"line": shown_text(line), "number": chosen.number(number) + 1})
            elif sys.stdout.isatty():
                click.echo(shown_text(line))
            else:
                sys.stdout.buffer.write(line + b"\n")
    sys.stdout.flush()
