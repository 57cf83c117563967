"""What libraries would say into every log as they are loaded."""

from __future__ import annotations

import logging


def quiet_loading() -> None:
    """Let libraries tell of errors alone; before any of them is imported.

    PEFT loads bitsandbytes wherever that is installed, also for a run that has no use for it.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
