"""`python -m tunedeck.trainer.torchrun`: torchrun, which says in one line which rank failed.

Options and behaviour are those of torchrun, but for what SIGTERM and SIGUSR1 mean. What a rank has
to say it has said itself; the traceback of the launcher, which would follow, is about the launcher
alone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from .exit_file import tell
from .preempt import EXIT_PREEMPTED, SIGNALS

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_PREEMPTING = tuple(signal.Signals[name] for name in SIGNALS)
_PATIENCE_S = 24 * 3600
"""How long ranks may take to save. Who takes the machine away has a limit of his own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the ranks, wait for them, and return an exit code.

    Returns:
        0; 75 if the ranks were told to save and end; 1 if the nodes did not meet, or if a rank
        failed, which may mean another code (see `exit_file`); 128 and the signal that ended this
        process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Importing torch takes seconds. It listens for SIGTERM itself once it has ranks.
    for number in _PREEMPTING:
        signal.signal(number, _end)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_PATIENCE_S))
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError

    # It tells of each rank's end in several lines.
    logging.getLogger("torch.distributed.elastic.multiprocessing").setLevel(logging.CRITICAL)
    # It warns, in four lines, that each of several processes gets one thread.
    logging.getLogger("torch.distributed.run").setLevel(logging.ERROR)
    try:
        run.run(run.parse_args(given))
    except ChildFailedError as error:
        return _judge(error.failures)
    except SignalException as error:
        sys.stderr.write(f"tunedeck: torchrun was ended by {error.sigval.name}\n")
        return EXIT_PREEMPTED if error.sigval in _PREEMPTING else 128 + int(error.sigval)
    except (DistError, RendezvousError) as error:
        why = str(error).partition("\n")[0]
        sys.stderr.write(
            f"tunedeck: error: The nodes of the run did not find each other: {why}\n"
            "tunedeck: fix: Check that all of them were started and reach the first one's address "
            "and port, and that nothing else holds that port there.\n"
        )
        return 1
    return 0


def _end(_number: int, _frame: FrameType | None) -> None:
    """On the way out torch sends the ranks SIGTERM, and waits for them."""
    raise SystemExit(EXIT_PREEMPTED)


def _judge(failures: dict[int, ProcessFailure]) -> int:
    """Say which rank ended first; see that the exit file tells of one that a signal ended."""
    # Times are whole seconds, within which torchrun ends the other ranks by SIGTERM.
    ended = [(f.timestamp, _by(f) == "SIGTERM", rank) for rank, f in failures.items()]
    rank = min(ended)[-1]
    first, killed = failures[rank], _by(failures[rank])
    said = f"signal {-first.exitcode}" if killed else str(first.exitcode)
    sys.stderr.write(f"tunedeck: rank {rank} ended first, with {said}\n")
    # It could not tell, and the others were told to stop.
    if killed:
        code = EXIT_PREEMPTED if killed in SIGNALS else 128 - first.exitcode
        tell(code, over=EXIT_PREEMPTED)
    return 1


def _by(failure: ProcessFailure) -> str:
    """The name of the signal that ended a rank; empty if none did."""
    return failure.signal_name() if failure.exitcode < 0 else ""


if __name__ == "__main__":
    sys.exit(main())
