"""`python -m tunedeck.trainer consolidate CHECKPOINT`: the Hugging Face form, made afterwards.

For a checkpoint that was saved without it (`checkpoint.save_consolidated`): its shards are put
together tensor by tensor, on one process and without a GPU.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from ...core.errors import ExitCode, UsageError
from ..lines import say
from .checksums import damage, read_sums, sha256, write_sums
from .published import find_checkpoint, flush
from .training_state import STATE_FOLDER, SavedState
from .weights import Weights

_UNFINISHED = ".consolidating"


def main(arguments: list[str]) -> int:
    """Write the weights beside the shards.

    Raises:
        UsageError: there is no checkpoint, it is damaged, or has its weights already.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tunedeck.trainer consolidate", description=__doc__
    )
    parser.add_argument("checkpoint", help="a checkpoint, or a folder whose latest one is meant")
    options = parser.parse_args(arguments)
    folder = find_checkpoint(options.checkpoint, key="")
    consolidate(folder)
    say(f"tunedeck: the model is in {folder}")
    return int(ExitCode.OK)


def consolidate(folder: Path) -> None:
    """Put a checkpoint's weights together in Hugging Face form, in the checkpoint itself.

    Raises:
        UsageError: it is damaged, of an unknown architecture, or has its weights already.
        OSError: the disk is full or the folder not writable.
    """
    sums = read_sums(folder)
    if any(name.endswith(".safetensors") for name in sums):
        raise UsageError(f"'{folder}' has its weights already.", fix="It loads as it is.")
    if (found := damage(folder, (n for n in sums if n.startswith(f"{STATE_FOLDER}/")))) is not None:
        raise UsageError(found, fix="Take another checkpoint of the run.")
    weights = Weights(_empty_model(folder), None, AutoTokenizer.from_pretrained(folder), None)
    temporary = folder / _UNFINISHED
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        written = weights.write(temporary, SavedState(folder).whole, rank=0, ranks=1)
        for file in written:
            flush(file)
            sums[file.name] = sha256(file)
        for file in written:
            file.replace(folder / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    write_sums(folder, sums)


def _empty_model(folder: Path) -> PreTrainedModel:
    config: Any = AutoConfig.from_pretrained(folder)
    name = (config.architectures or [""])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise UsageError(
            f"The library does not know '{name}', the architecture of '{folder}'.",
            fix="Train with checkpoint.save_consolidated=true, which has the model at hand.",
        )
    with torch.device("meta"):
        model: PreTrainedModel = kind._from_config(config, dtype=config.dtype)
    return model
