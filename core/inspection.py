"""`python -m tunedeck.core.inspection --config FILE`: what `data_prep/inspect` executes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from .config.compose import compose
from .data.look import look_at_data
from .data.text import look_lines
from .errors import ExitCode, TunedeckError, UsageError
from .files import write_atomic
from .findings import Finding, blocking
from .schema import InspectConfig

REPORT = "inspection.json"


def main(arguments: list[str] | None = None) -> int:
    """Look at the data, print what there is to say, write the report, and return the exit code.

    It is 0 where the rows can be trained on, and 1 where a finding would block a launch.
    """
    parser = argparse.ArgumentParser(prog="python -m tunedeck.core.inspection", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="the resolved config, YAML")
    file = parser.parse_args(arguments).config
    try:
        return _inspect(file)
    except TunedeckError as error:
        _complain(error.message, str(error.place or ""), error.fix)
        return int(error.exit_code)
    except OSError as error:
        _complain(error.strerror or str(error), str(error.filename or ""), "")
        return int(ExitCode.FAILURE)


def _inspect(file: Path) -> int:
    composed = compose(file, schema=InspectConfig)
    config = composed.values
    if config["tokenizer"].get("name") is None:
        raise UsageError("tokenizer.name is not set.", fix="Name a model's folder or hub id.")
    look = look_at_data(config, rows=config["show"], limit=config["limit"])
    if look.padding is None:
        raise UsageError(
            f"The tokenizer '{config['tokenizer']['name']}' is not on this machine.",
            fix="Give tokenizer.name a folder with a tokenizer.json, or download the model first.",
        )
    run_dir = Path(os.environ.get("TUNEDECK_RUN_DIR") or Path.cwd())
    output = Path(config["output_path"] or run_dir / REPORT)
    write_atomic(output, json.dumps(look.to_json(), indent=2, ensure_ascii=False) + "\n")
    write_atomic(run_dir / "result.json", json.dumps({"artifact": str(output)}) + "\n")
    for text in look_lines(look, color=False):
        sys.stdout.write(f"{text}\n")
    for finding in look.findings:
        sys.stdout.write(f"tunedeck: {_said(finding)}\n")
    sys.stdout.write(f"tunedeck: the report is {output}\n")
    return int(ExitCode.FAILURE if blocking(list(look.findings)) else ExitCode.OK)


def _said(finding: Finding) -> str:
    fix = f" {finding.fix.words}" if finding.fix and finding.fix.words else ""
    where = f"{finding.place}: " if finding.place.file else ""
    return f"{finding.severity}: {where}{finding.key}: {finding.message}{fix}"


def _complain(message: str, place: str, fix: str) -> None:
    where = f"{place}: " if place else ""
    sys.stderr.write(f"tunedeck: error: {where}{message}\n")
    if fix:
        sys.stderr.write(f"tunedeck: fix: {fix}\n")


if __name__ == "__main__":
    sys.exit(main())
