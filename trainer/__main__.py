"""`python -m tunedeck.trainer RECIPE --config resolved.yaml`: what a run executes.

Beside the recipes there are tools for what a run left: see `docs/trainer.md`.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import ExitCode, TunedeckError
from .config_file import RECIPES, load_config
from .exit_file import asked, tell, told
from .preempt import EXIT_PREEMPTED, AskedToEnd, RestartError, StopRequest, fall_deaf
from .rank_lines import mark_lines

_RANK = int(os.environ["RANK"]) if os.environ.get("RANK", "").isdecimal() else None
_GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "remote process")
_WAITED = "Timed out waiting"
_LATE = "another process of the run did not come within dist_env.timeout_minutes"
_LOOK_AT_IT = "Look at what keeps it (its machine, its data), or raise dist_env.timeout_minutes."
_FIRST_SPEAKS_S = 20.0
"""How much later than the others the first rank of a machine may find a mistake, and say it."""
_ROOM = "Make room there, or choose another place, and start it again."
_MENDED = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EACCES: "Give this user the right to it, or choose another place.",
    errno.EROFS: "Choose a place that can be written to.",
}
_SMALLER = "Lower step_scheduler.local_batch_size or dataset.seq_length."
_TOOLS = {
    "consolidate": ".checkpoints.consolidate",
    "diff": ".reporting.diff",
    "prove": ".prove.command",
    "replay-step": ".reporting.replay_step",
}
"""What is no recipe, and the module whose `main` takes its arguments."""


def main(arguments: list[str] | None = None) -> int:
    """Run a recipe or a tool and return its exit code.

    What a person can act on is said in a few lines.
    """
    given = sys.argv[1:] if arguments is None else arguments
    # PEFT loads bitsandbytes wherever that is installed, also for a run that has no use for it.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    tool = _TOOLS.get(given[0]) if given else None
    if tool is not None:
        return _use(tool, given[1:])
    parser = argparse.ArgumentParser(prog="python -m tunedeck.trainer", description=__doc__)
    known = f"one of: {', '.join(RECIPES)}; or a tool: {', '.join(_TOOLS)}"
    parser.add_argument("recipe", help=known)
    parser.add_argument("--config", required=True, type=Path, help="the resolved config, YAML")
    parser.add_argument("overrides", nargs="*", help="key=value, over what the config says")
    options, dashed = parser.parse_known_args(given)
    if unknown := [word for word in dashed if "=" not in word]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    overrides = (*options.overrides, *dashed)
    # Idle threads of a kernel that wait in a loop take the other threads' time on a shared machine.
    # OpenMP reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Lines are of many lengths: without it, memory that was freed by one does not fit the next.
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    mark_lines()
    code, lost = int(ExitCode.FAILURE), False
    try:
        # What is imported from here on takes seconds, in which signals come as well.
        code = _run(options.recipe, options.config, overrides, StopRequest())
    except RestartError as error:
        code = _complain(str(error), error.fix, EXIT_PREEMPTED)
    except TunedeckError as error:
        code = _complain(str(error), error.fix, error.exit_code)
    except AskedToEnd as asked:
        code = _complain(asked.words, "", int(asked.code or 0))
    except OSError as error:
        code = _complain(*_os_error(error), ExitCode.FAILURE)
    except RuntimeError as error:
        # torch.OutOfMemoryError; by name, because torch may not have been imported yet.
        if lost := _others_ended(error):
            code = _complain("another process of the run ended", "", ExitCode.FAILURE)
        elif _RANK is not None and _WAITED in str(error):
            code = _complain(_LATE, _LOOK_AT_IT, ExitCode.FAILURE)
        elif type(error).__name__ != "OutOfMemoryError":
            raise
        else:
            code = _complain(str(error).partition("\n")[0], _SMALLER, ExitCode.FAILURE)
    finally:
        # A rank that was left by another does not know how the run ended.
        if not lost:
            tell(code)
        fall_deaf()
    return code


def _others_ended(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank is gone, which has said why."""
    said = str(error)
    return _RANK is not None and any(words in said for words in _GONE)


def _use(tool: str, arguments: list[str]) -> int:
    try:
        code: int = importlib.import_module(tool, __package__).main(arguments)
    except TunedeckError as error:
        code = _complain(str(error), error.fix, error.exit_code)
    except OSError as error:
        code = _complain(*_os_error(error), ExitCode.FAILURE)
    return code


def _run(recipe: str, file: Path, overrides: Sequence[str], stop: StopRequest) -> int:
    config = load_config(recipe, file, overrides)
    run_dir = Path(os.environ.get("TUNEDECK_RUN_DIR") or Path.cwd())
    if recipe == "merge_lora":
        from .merging import merge

        return merge.main(config, run_dir)
    from . import sft

    return sft.main(config, run_dir, stop=stop)


def _complain(message: str, fix: str, code: int) -> int:
    """Say what went wrong. What all ranks find in the config is said by one on each machine."""
    others = _RANK and os.environ.get("LOCAL_RANK", "0") != "0"
    if others and code == ExitCode.USAGE and _first_spoke():
        return int(code)
    sys.stderr.write(f"tunedeck: error: {message}\n")
    if fix:
        sys.stderr.write(f"tunedeck: fix: {fix}\n")
    sys.stderr.flush()
    return int(code)


def _first_spoke() -> bool:
    """Wait for torchrun to end this process, as it does once the machine's first rank has spoken.

    One that ended at once might end the first before it has; one that is not ended, or whose first
    merely lost it, is alone with what it found.
    """
    try:
        time.sleep(_FIRST_SPEAKS_S)
    except AskedToEnd:
        return not asked() or told() is not None
    return False


def _os_error(error: OSError) -> tuple[str, str]:
    """What the system refused and of what, and how it is mended."""
    said = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    return said, _MENDED.get(error.errno or 0, "")


if __name__ == "__main__":
    sys.exit(main())
