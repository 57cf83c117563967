"""What the threads of a run's screen tell it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textual.content import Content
from textual.message import Message

from ...core.charts.curves import Batch
from ...core.logs.filtered_reader import FilteredReader
from ...core.logs.spool_reader import SpoolReader

if TYPE_CHECKING:
    from ...core.runs.record import RunRecord


class News(Message):
    """The run's state is another one."""

    def __init__(self, record: RunRecord) -> None:
        super().__init__()
        self.record = record


class Points(Message):
    """The log measures more."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch


class Opened(Message):
    """The log has been indexed and can be shown."""

    def __init__(self, reader: SpoolReader | FilteredReader) -> None:
        super().__init__()
        self.reader = reader


class Found(Message):
    """A search in the log has ended: with the line, or none."""

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.number = number


class Told(Message):
    """What there is to read about the run: its outcome in a few lines, and all facts."""

    def __init__(self, outcome: Content, facts: Content) -> None:
        super().__init__()
        self.outcome, self.facts = outcome, facts


class Troubled(Message):
    """Something that is being tried again, in words; none once it is well again."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


class Fetched(Message):
    """Files of the run were brought home."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__()
        self.paths = paths
