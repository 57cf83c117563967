"""What is kept and said when Tunedeck itself breaks."""

from __future__ import annotations

import time
import traceback

from . import locations
from .errors import TunedeckError
from .files import write_atomic
from .text import strip_controls


def crash_report(error: BaseException) -> TunedeckError:
    """Keep where a bug struck in a file, and say it in words that tell what to do.

    The file holds the lines of code that led there and no values of variables, which may hold what
    a person typed. Text that looks like a secret is masked in both.

    Args:
        error: what nobody foresaw.
    """
    from .secrets import mask_text

    lines = mask_text("".join(traceback.format_exception(error)))
    what = strip_controls(mask_text(f"{type(error).__name__}: {error}")).partition("\n")[0]
    file = locations.state_dir() / "crashes" / f"{time.strftime('%Y%m%d-%H%M%S')}.txt"
    try:
        write_atomic(file, lines, mode=0o600)
        report = f"Where it happened is in {file}: please report it with that file."
    except OSError:
        report = "Where it happened could not be kept: please report what you did."
    return TunedeckError(
        f"Tunedeck itself broke ({what}).",
        fix=f"Runs that were started go on, and what was saved is kept. {report}",
    )
