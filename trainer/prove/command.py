"""`python -m tunedeck.trainer prove --config FILE`: that a run does what it should, in a minute.

The model of the config is cut to two layers, the first rows of its data are taken, and short runs
of it are compared: packed with unpacked, many micro-batches with one, two processes with one, what
was saved with what was trained, merged with adapter, resumed with uninterrupted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from ... import __version__
from ...core.code_digest import code_digest
from ...core.errors import ExitCode
from ...core.files import write_atomic
from ...core.schema import TrainConfig
from ..config_file import load_config
from ..reporting.plain import plain
from .check import Check, row
from .checks import CLAIMS, Proof
from .cut import Cut, cut
from .runs import silence

RECEIPT = "proof.json"


def main(arguments: list[str]) -> int:
    """Prove, print a table and write the receipt; 0 if every claim holds, 1 if not.

    Raises:
        TunedeckError: the config, the model or the data cannot be used at all.
    """
    parser = argparse.ArgumentParser(prog="python -m tunedeck.trainer prove", description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="the resolved config, YAML")
    parser.add_argument(
        "--receipt",
        type=Path,
        help=f"where the receipt goes (default: {RECEIPT} in the run's or the working folder)",
    )
    parser.add_argument("--json", action="store_true", help="print the receipt instead of a table")
    options = parser.parse_args(arguments)
    config: TrainConfig = load_config("sft", options.config)
    receipt = options.receipt or Path(os.environ.get("TUNEDECK_RUN_DIR") or ".") / RECEIPT
    started = time.perf_counter()
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    # That the weights of other layers are left over is meant.
    transformers.utils.logging.set_verbosity_error()
    warnings.simplefilter("ignore", FutureWarning)
    with tempfile.TemporaryDirectory(prefix="tunedeck-proof-") as folder:
        with silence():
            found = cut(config, Path(folder))
        said = sys.stderr if options.json else sys.stdout
        said.write(
            f"{config.model.pretrained_model_name_or_path or 'a new model'}: {found.layers[0]} of "
            f"{found.layers[1]} layers, {found.parameters:,} weights, {found.rows} rows\n"
        )
        checks = []
        dropout = config.peft.dropout if config.peft is not None else 0.0
        for check in Proof(found.config, dropout, Path(folder)).checks():
            checks.append(check)
            if not options.json:
                said.write(f"{row(check, max(map(len, CLAIMS)))}\n")
                said.flush()
    document = plain(_receipt(config, found, checks, time.perf_counter() - started))
    write_atomic(receipt, json.dumps(document, indent=2) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        words = "Every claim holds" if document["ok"] else "NOT every claim holds"
        sys.stdout.write(f"{words}; the receipt is {receipt}\n")
    return int(ExitCode.OK if document["ok"] else ExitCode.FAILURE)


def _receipt(
    config: TrainConfig, found: Cut, checks: list[Check], seconds: float
) -> dict[str, Any]:
    text = config.model_dump_json(exclude={"run"})
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "ok": all(check.ok is not False for check in checks),
        "checks": [check.to_json() for check in checks],
        "model": config.model.pretrained_model_name_or_path,
        "layers": list(found.layers),
        "parameters": found.parameters,
        "rows": found.rows,
        "config": f"sha256:{hashlib.sha256(text.encode()).hexdigest()}",
        "code": code_digest(),
        "versions": {
            "tunedeck": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "device": gpu or "cpu",
        "seconds": round(seconds, 1),
    }
