"""`python -m tunedeck.trainer RECIPE --config resolved.yaml`: what a run executes.

Beside the recipes there are tools for what a run left: see `docs/trainer.md`.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import ExitCode
from .config_file import RECIPES, load_config
from .exit_file import tell
from .failure import failure_of
from .preempt import AskedToEnd, StopRequest, fall_deaf
from .rank_lines import mark_lines

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
    parser.add_argument(
        "overrides", nargs="*", default=[], help="key=value, over what the config says"
    )
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
    except (AskedToEnd, Exception) as error:
        failure = failure_of(error)
        if failure is None:
            raise
        lost = failure.lost
        code = failure.say()
    finally:
        # A rank that was left by another does not know how the run ended.
        if not lost:
            tell(code)
        fall_deaf()
    return code


def _use(tool: str, arguments: list[str]) -> int:
    try:
        code: int = importlib.import_module(tool, __package__).main(arguments)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        code = failure.say()
    return code


def _run(recipe: str, file: Path, overrides: Sequence[str], stop: StopRequest) -> int:
    config = load_config(recipe, file, overrides)
    run_dir = Path(os.environ.get("TUNEDECK_RUN_DIR") or Path.cwd())
    if recipe == "merge_lora":
        from .merging import merge

        return merge.main(config, run_dir)
    from . import sft

    return sft.main(config, run_dir, stop=stop)


if __name__ == "__main__":
    sys.exit(main())
