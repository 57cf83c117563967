"""`python -m tunedeck.trainer.answer BASE TUNED`: answers of both, as JSON lines.

The models load once. On stdin each line is `{"prompt": …, "max_new_tokens": …, "temperature": …}`.
On stdout the first line is `{"ready": true}`; then each prompt gets `{"side": "base", "text": …}`
and `{"side": "tuned", "text": …}`, or `{"error": …}`. What cannot be loaded is told as
`{"error": …, "fix": …}` in place of the first line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TextIO, cast

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from ..core.chat import RowError, open_chat_tokenizer
from ..core.errors import TunedeckError
from .merging.adapter import CONFIG_FILE, attach_adapter
from .model.build import unloadable
from .model.kinds import loader_of, trained_kind
from .reporting.samples import answer

Side = tuple[str, PreTrainedModel, Callable[[], AbstractContextManager[None]]]
"""What a line calls it, the model, and the state it answers in."""


def main(arguments: list[str] | None = None) -> int:
    """Answer until stdin ends, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tunedeck.trainer.answer", description=__doc__)
    parser.add_argument("base", help="hub id or folder of the model before training")
    parser.add_argument("tuned", type=Path, help="folder of an adapter or of a whole model")
    parser.add_argument("--revision", help="of a base from the hub")
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--template-arguments", type=json.loads, default={}, metavar="JSON")
    options = parser.parse_args(arguments)
    replies = _reserve_stdout()
    cast(Any, transformers.logging).disable_progress_bar()
    try:
        tokenizer = open_chat_tokenizer(
            options.tuned, chat_template_kwargs=options.template_arguments
        )
        sides = list(_load_sides(options))
    except TunedeckError as error:
        _reply(replies, error=error.message, fix=error.fix)
        return int(error.exit_code)
    _reply(replies, ready=True)
    for line in sys.stdin:
        request = json.loads(line)
        prompt = request.pop("prompt")
        try:
            for name, model, state in sides:
                with state():
                    _reply(replies, side=name, text=answer(model, tokenizer, prompt, **request))
        except RowError as error:
            _reply(replies, error=str(error))
    return 0


def _load_sides(options: argparse.Namespace) -> Iterator[Side]:
    """Base and tuned: one model with its adapter off and on, or two models."""
    base = _load(options.base, revision=options.revision, remote=options.trust_remote_code)
    if (options.tuned / CONFIG_FILE).is_file():
        adapter = attach_adapter(base, options.tuned)
        yield "base", base, adapter.disable_adapter
        yield "tuned", base, nullcontext
    else:
        yield "base", base, nullcontext
        yield "tuned", _load(str(options.tuned), remote=options.trust_remote_code), nullcontext


def _load(name: str, *, revision: str | None = None, remote: bool) -> PreTrainedModel:
    """A model, on the GPU in the format it is stored in, or on the CPU in float32.

    Raises:
        UsageError: it cannot be loaded.
    """
    gpu = torch.cuda.is_available()
    try:
        source: dict[str, Any] = {"revision": revision, "trust_remote_code": remote}
        loader = loader_of(trained_kind(AutoConfig.from_pretrained(name, **source)))
        model: PreTrainedModel = loader.from_pretrained(
            name,
            dtype="auto" if gpu else torch.float32,
            device_map="cuda" if gpu else None,
            **source,
        )
    except (OSError, ValueError) as error:
        raise unloadable(name, "model", error) from error
    return model


def _reserve_stdout() -> TextIO:
    """A stream to the real stdout; whatever else prints there goes to stderr from now on."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _reply(stream: TextIO, **values: Any) -> None:
    stream.write(f"{json.dumps(values)}\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
