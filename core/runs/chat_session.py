"""The base and the result of a run, loaded once in another process that has torch, to be asked."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import TunedeckError, UsageError
from ..keys import table_in

if TYPE_CHECKING:
    from .record import RunRecord

_MODULE = "tunedeck.trainer.answer"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two models to compare, and how to load them.

    Attributes:
        base: hub id or folder of the model before training.
        tuned: folder of what training made of it: an adapter or a whole model.
        step: the step of the checkpoint, where it is one.
        python: the interpreter of the run's profile.
        options: further arguments of the answering process.
    """

    base: str
    tuned: Path
    step: int | None
    python: str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What training made, in words for a heading."""
        adapter = (self.tuned / "adapter_config.json").is_file()
        kind = "adapter" if adapter else "tuned model"
        return kind if self.step is None else f"{kind}, step {self.step}"


@dataclass(frozen=True, slots=True)
class Answers:
    """What both said to one prompt."""

    prompt: str
    base: str
    tuned: str


def pair_of(record: RunRecord) -> Pair:
    """The models of a run: its base, and its best checkpoint, else its latest, else its result.

    Raises:
        UsageError: the run has made no model, or none yet.
    """
    from ..backends.local.backend import interpreter
    from .outcome import is_here, list_checkpoints, read_result

    result = read_result(record)
    config = record.plan["config_values"]
    model = table_in(config, "model")
    base = model.get("pretrained_model_name_or_path") or result.get("base")
    checkpoints = list_checkpoints(record)
    chosen = next((c for name in ("best", "latest") for c in checkpoints if c[name]), None)
    brought = [record.run_dir / "checkpoints" / name for name in ("best", "latest")]
    here = next((str(path) for path in brought if path.is_dir()), result.get("artifact"))
    tuned = chosen["path"] if chosen else here
    if tuned is None or not is_here(tuned):
        raise _nothing_yet(record)
    if base is None:
        raise UsageError(
            f"Run {record.run_id} started from no model: there is nothing to compare with.",
            fix="Ask a run that fine-tuned a model: tunedeck runs list",
        )
    options = []
    if model.get("revision"):
        options += ["--revision", str(model["revision"])]
    if model.get("trust_remote_code") or config.get("trust_remote_code"):
        options.append("--trust-remote-code")
    if arguments := table_in(config, "tokenizer").get("chat_template_kwargs"):
        options += ["--template-arguments", json.dumps(arguments)]
    python = interpreter(record.plan["profile_values"] if record.backend == "local" else {})
    return Pair(base, Path(tuned), chosen["step"] if chosen else None, python, tuple(options))


def _nothing_yet(record: RunRecord) -> UsageError:
    run = f"Run {record.run_id} ({record.state})"
    if record.backend != "local":
        return UsageError(
            f"Nothing that {run} has made is on this machine.",
            fix=f"Bring it home: tunedeck runs fetch {record.run_id}",
        )
    if record.state.terminal:
        return UsageError(
            f"{run} has left no adapter and no model on this machine.",
            fix=f"See how it ended: tunedeck runs show {record.run_id}",
        )
    return UsageError(
        f"{run} has saved no checkpoint yet.",
        fix=f"See how far it is: tunedeck runs logs -f {record.run_id}",
    )


@contextmanager
def chat_session(pair: Pair) -> Iterator[ChatSession]:
    """Load both models in a process of their own, and end it afterwards.

    Raises:
        TunedeckError: they cannot be loaded, or what that takes is not installed.
    """
    if pair.python == sys.executable:
        _need_training_packages()
    words = [pair.python, "-P", "-m", _MODULE, pair.base, str(pair.tuned), *pair.options]
    with (
        tempfile.TemporaryFile() as errors,
        # A session of its own: Ctrl-C ends what is typed here, not the process in mid-sentence.
        subprocess.Popen(
            words,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        try:
            session = ChatSession(process, errors)
            session.wait()
            yield session
        finally:
            process.kill()


class ChatSession:
    """Two loaded models, in the process that `chat_session` started.

    Args:
        process: speaks the lines of `tunedeck.trainer.answer`.
        errors: where its stderr goes.
    """

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._errors = process, errors
        self._stdin, self._stdout = process.stdin, process.stdout

    def wait(self) -> None:
        """Return once both models are loaded; raise TunedeckError if they cannot be."""
        self._read()

    def ask(self, prompt: str, *, max_new_tokens: int, temperature: float) -> Answers:
        """Both models' answers to a prompt, as a conversation of one turn.

        Args:
            prompt: the user's message.
            max_new_tokens: the longest answer.
            temperature: 0 takes the most likely token each time; above, tokens are drawn.

        Raises:
            TunedeckError: the chat template refuses the prompt, or the process has died.
        """
        request = {"prompt": prompt, "max_new_tokens": max_new_tokens, "temperature": temperature}
        with contextlib.suppress(BrokenPipeError):  # reading tells why
            self._stdin.write(json.dumps(request).encode() + b"\n")
        texts = {reply["side"]: reply["text"] for reply in (self._read(), self._read())}
        return Answers(prompt, texts["base"], texts["tuned"])

    def _read(self) -> dict[str, Any]:
        line = self._stdout.readline()
        if not line:
            raise self._died()
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise UsageError(reply["error"], fix=reply.get("fix", ""))
        return reply

    def _died(self) -> TunedeckError:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        last = said[-1] if said else "it said nothing"
        return TunedeckError(
            f"The process that holds the models ended with {code}: {last}",
            fix="It was killed, most likely for want of memory." if code == -signal.SIGKILL else "",
        )


def _need_training_packages() -> None:
    from ..catalog.requirements import missing_of_extra

    if missing := missing_of_extra("train"):
        raise UsageError(
            f"Answering needs {', '.join(missing)}, which this machine lacks.",
            fix="Install them: pip install 'tunedeck[train]'",
        )
