"""`python -m tunedeck.trainer.torchrun`: torchrun, which says in one line which rank failed.

Options and behaviour are those of torchrun. What a rank has to say it has said itself; the
traceback of the launcher, which would follow, is about the launcher alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the ranks, wait for them, and return an exit code.

    Returns:
        0; 1 if a rank failed, which may mean another code (see `TUNEDECK_EXIT_FILE`); 128 and the
        signal that ended this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # It tells of each rank's end in several lines.
    logging.getLogger("torch.distributed.elastic.multiprocessing").setLevel(logging.CRITICAL)
    try:
        run.run(run.parse_args(given))
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        ended = f"signal {-failure.exitcode}" if failure.exitcode < 0 else str(failure.exitcode)
        sys.stderr.write(f"tunedeck: rank {rank} ended first, with {ended}\n")
        return 1
    except SignalException as error:
        sys.stderr.write(f"tunedeck: torchrun was ended by {error.sigval.name}\n")
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main())
