"""What `tunedeck` without a command does: open the wizard where there is a terminal to draw on."""

from __future__ import annotations

import os
import sys

from ..core.errors import ExitCode, UsageError

_HEADLESS = "Use the commands instead: tunedeck steps run --help"
_PLAIN = "Ask for plain prompts: tunedeck --plain"


def start(*, read_only: bool, plain: bool) -> int:
    """Open the wizard, or its plain prompts, and return the exit code.

    Args:
        read_only: look, and neither submit nor cancel anything.
        plain: ask line by line instead of drawing screens; ACCESSIBLE=1 asks for the same.

    Raises:
        UsageError: if there is no terminal to draw on or to ask at.
    """
    if plain or os.environ.get("ACCESSIBLE", "") not in ("", "0"):
        if not sys.stdin.isatty():
            raise UsageError("The prompts need a terminal to be answered at.", fix=_HEADLESS)
        from .plain import run_prompts

        return run_prompts(read_only=read_only)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("The wizard needs a terminal to draw on.", fix=_HEADLESS)
    if os.environ.get("TERM", "") in ("", "dumb"):
        raise UsageError(
            f"The wizard cannot draw on a terminal of TERM='{os.environ.get('TERM', '')}'.",
            fix=f"{_PLAIN}\n{_HEADLESS}",
        )
    from .app import WizardApp

    app = WizardApp(read_only=read_only)
    app.run()
    return app.return_code or ExitCode.OK
