"""`runs metrics --plot`: the curves of several runs in one frame, as the wizard draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..charts.curves import Curve, Curves, PointReader
from ..charts.plot import COLORS, Line, draw
from ..errors import NotFoundError
from ..text import did_you_mean, four_digits, strip_controls
from .output import color_wanted, line, print_json, width

if TYPE_CHECKING:
    from ..runs.record import RunRecord

_HEIGHT = 16


def plot_runs(records: Sequence[RunRecord], key: str, *, as_json: bool) -> None:
    """Draw one measured value of runs; as JSON, its points by run.

    Raises:
        NotFoundError: if none of them measured it; what they did measure is named.
    """
    curves = {record.run_id: _read(record) for record in records}
    found = [(record, curves[record.run_id].by_key.get(key)) for record in records]
    drawn = [(record, curve) for record, curve in found if curve and curve.values]
    if not drawn:
        known = sorted({name for one in curves.values() for name in one.by_key})
        raise NotFoundError(
            f"None of these runs has measured '{key}' yet. {did_you_mean(key, known)}".strip(),
            fix=f"They measured: {', '.join(known)}"
            if known
            else f"Look at the log: tunedeck runs logs {records[0].run_id}",
        )
    if as_json:
        print_json([_series(record, curve) for record, curve in drawn])
        return
    from rich.console import Console

    console = Console(no_color=color_wanted() is False, highlight=False)
    for number, (record, curve) in enumerate(drawn, 1):
        line(
            f"{number} {record.run_id}  {record.name}  {key} {four_digits(curve.values[-1])}  "
            f"{strip_controls(' '.join(record.plan['overrides']))}".rstrip(),
            fg=COLORS[(number - 1) % len(COLORS)],
        )
    lines = [Line(record.name, curve) for record, curve in drawn]
    console.print(draw(lines, max(width(), 24), _HEIGHT))


def _read(record: RunRecord) -> Curves:
    curves = Curves()
    for batch in PointReader(record.log).batches():
        curves.add(batch)
    return curves


def _series(record: RunRecord, curve: Curve) -> dict[str, object]:
    return {
        "run_id": record.run_id,
        "name": record.name,
        "steps": list(curve.steps),
        "values": list(curve.values),
    }
