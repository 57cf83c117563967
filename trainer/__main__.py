"""`python -m tunedeck.trainer RECIPE --config resolved.yaml`: what a run executes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ..core.errors import ExitCode, Place, TunedeckError, UsageError
from ..core.schema import SCHEMAS
from ..core.text import did_you_mean

EXIT_FILE = "TUNEDECK_EXIT_FILE"
"""Names the file that the exit code is written to: torchrun does not hand it on."""
_SMALLER = "Lower step_scheduler.local_batch_size or dataset.seq_length."


def main(arguments: list[str] | None = None) -> int:
    """Run a recipe and return its exit code; what a person can act on is said in a few lines."""
    parser = argparse.ArgumentParser(prog="python -m tunedeck.trainer", description=__doc__)
    parser.add_argument("recipe", help=f"one of: {', '.join(SCHEMAS)}")
    parser.add_argument("--config", required=True, type=Path, help="the resolved config, YAML")
    options = parser.parse_args(arguments)
    # Idle threads of a kernel that wait in a loop take the other threads' time on a shared machine.
    # OpenMP reads this when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    code = int(ExitCode.FAILURE)
    try:
        code = _run(options.recipe, options.config)
    except TunedeckError as error:
        code = _complain(str(error), error.fix, error.exit_code)
    except SystemExit as ended:
        code = _complain("asked to end before there was anything to save", "", int(ended.code or 0))
    except OSError as error:
        code = _complain(_os_error(error), "", ExitCode.FAILURE)
    except RuntimeError as error:
        # torch.OutOfMemoryError; by name, because torch may not have been imported yet.
        if type(error).__name__ != "OutOfMemoryError":
            raise
        code = _complain(str(error).partition("\n")[0], _SMALLER, ExitCode.FAILURE)
    finally:
        if file := os.environ.get(EXIT_FILE):
            Path(file).write_text(f"{code}\n")
    return code


def _run(recipe: str, file: Path) -> int:
    config = _load(recipe, file)
    run_dir = Path(os.environ.get("TUNEDECK_RUN_DIR") or Path.cwd())
    if recipe == "merge_lora":
        from . import merge

        return merge.main(config, run_dir)
    from . import sft

    return sft.main(config, run_dir)


def _load(recipe: str, file: Path) -> Any:
    """The recipe's config.

    Raises:
        UsageError: there is no such recipe, or the file is no config of it.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from pydantic import ValidationError
    from yaml import YAMLError

    if recipe not in SCHEMAS:
        raise UsageError(
            f"There is no recipe '{recipe}'.",
            fix=f"{did_you_mean(recipe, SCHEMAS)} It is one of {', '.join(SCHEMAS)}.".strip(),
        )
    place = Place(str(file))
    try:
        values = OmegaConf.to_container(OmegaConf.load(file), resolve=True)
        if not isinstance(values, dict):
            raise UsageError("The config is not a mapping of keys to values.", place=place)
        return SCHEMAS[recipe].model_validate(values)
    except FileNotFoundError as error:
        raise UsageError("There is no such config.", place=place) from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"The config cannot be read: {error}", place=place) from error
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong)
        fix = next((e["ctx"]["fix"] for e in wrong if "fix" in e.get("ctx", {})), "")
        raise UsageError(said, place=place, fix=fix) from error


def _complain(message: str, fix: str, code: int) -> int:
    sys.stderr.write(f"tunedeck: error: {message}\n")
    if fix:
        sys.stderr.write(f"tunedeck: fix: {fix}\n")
    sys.stderr.flush()
    return int(code)


def _os_error(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


if __name__ == "__main__":
    sys.exit(main())
