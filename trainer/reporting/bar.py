"""A progress bar, where someone sits at a terminal; in a log it has no place."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from ..checkpoints.progress import Progress

_PER_SECOND = 4


class _Following(Bar):
    """A bar that reads where the run stands whenever it is drawn.

    Args:
        progress: where the run stands.
        total: steps of the run.
        options: of rich's `Progress`.
    """

    def __init__(self, progress: Progress, total: int, *columns: Any, **options: Any) -> None:
        super().__init__(*columns, **options)
        self._progress = progress
        self._task = self.add_task("training", total=total, completed=progress.step, loss="")

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar as it is now."""
        if hasattr(self, "_task"):
            loss = self._progress.loss
            shown = "" if math.isnan(loss) else f"loss {loss:.4f}"
            self.update(self._task, completed=self._progress.step, loss=shown)
        yield from super().get_renderables()


@contextmanager
def progress_bar(progress: Progress, total: int) -> Iterator[None]:
    """Show a bar on the terminal of stderr while the run goes on, on the first rank.

    What is printed meanwhile stands above it. Elsewhere than on a terminal nothing is shown.

    Args:
        progress: where the run stands; read as the bar is drawn.
        total: steps of the run.
    """
    if not sys.stderr.isatty() or os.environ.get("RANK", "0") != "0":
        yield
        return
    columns = (
        TextColumn("step"),
        MofNCompleteColumn(),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with _Following(
        progress,
        total,
        *columns,
        console=Console(stderr=True),
        refresh_per_second=_PER_SECOND,
        # stdout may go to a file while stderr is a terminal.
        redirect_stdout=sys.stdout.isatty(),
    ):
        yield
