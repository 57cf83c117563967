"""A config's values against its schema, with messages in the words of the config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..findings import Edit, Fix
from ..keys import KeyPath, dotted, split_key
from ..secrets import mask_text
from ..text import did_you_mean, nearest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from ..schema.base import Table
    from .describe import FieldInfo

WORDS_OF_OTHERS = {
    "r": "dim",
    "rank": "dim",
    "lora_r": "dim",
    "lora_rank": "dim",
    "learning_rate": "lr",
    "warmup_steps": "lr_warmup_steps",
    "max_seq_length": "seq_length",
    "per_device_train_batch_size": "local_batch_size",
    "micro_batch_size": "local_batch_size",
    "num_train_epochs": "num_epochs",
    "save_steps": "ckpt_every_steps",
    "eval_steps": "val_every_steps",
    "logging_steps": "log_every_steps",
    "save_total_limit": "keep_last",
}
"""What PEFT, TRL and the like call a key, where letters alone do not lead to ours."""

_LONGEST = 60  # characters of a value that a message shows


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that the schema refuses.

    Attributes:
        path: the key in question.
        message, fix: what is wrong, and what to do.
        about: whether the key itself, its value, or its absence is wrong.
    """

    path: KeyPath
    message: str
    fix: Fix | None
    about: str = "value"


def check(schema: type[Table], values: Mapping[str, Any]) -> tuple[Table | None, list[Problem]]:
    """Validate values.

    Returns:
        The config as a typed, frozen model and no problems; or None and all the problems.
    """
    from pydantic import ValidationError

    try:
        return schema.model_validate(values), []
    except ValidationError as error:
        problems = _Problems(schema, values)
        return None, problems.of(error.errors(include_url=False))


class _Problems:
    def __init__(self, schema: type[Table], values: Mapping[str, Any]) -> None:
        from .describe import describe

        self._schema = schema
        self._values = values
        self._fields = {info.key: info for info in describe(schema)}

    def of(self, errors: list[ErrorDetails]) -> list[Problem]:
        found: dict[KeyPath, Problem] = {}
        for error in errors:
            for problem in self._conflicts(error) or [self._problem(error)]:
                found.setdefault(problem.path, problem)
        foreign = [path[:-1] for path in found if path[-1:] == ("_target_",)]
        around = {path[:n] for path in found for n in range(1, len(path))}
        return [
            problem
            for path, problem in found.items()
            if path not in around and (problem.about == "value" or path[:-1] not in foreign)
        ]

    def _conflicts(self, error: ErrorDetails) -> list[Problem]:
        conflicts = error.get("ctx", {}).get("conflicts", ())
        return [Problem(split_key(key), f"{what}.", Fix(fix)) for key, what, fix in conflicts]

    def _problem(self, error: ErrorDetails) -> Problem:
        path = self._path(error)
        context = error.get("ctx", {})
        if error["type"] == "extra_forbidden":
            return self._unknown(path)
        if error["type"] == "missing" and path[-1:] == error["loc"][-1:]:
            return self._missing(path)
        if "fix" in context:
            if "key" in context:
                at = (*path, *split_key(context["key"]))
                where = f"{dotted(path)}: " if path else ""
                return Problem(at, f"{where}{error['msg']}.", Fix(context["fix"]))
            message = f"{dotted(path)} = {shown(self._value(path))}: {error['msg']}."
            return Problem(path, message, Fix(context["fix"]))
        return self._wrong(path, error)

    def _path(self, error: ErrorDetails) -> KeyPath:
        """The place of an error in the values: pydantic names the branch of a union as well."""
        from .fields import known_keys, table_at

        path: list[str | int] = []
        node: Any = self._values
        for part in error["loc"]:
            if _holds(node, part):
                node = node[part]
            elif isinstance(node, Mapping):
                table = table_at(self._schema, tuple(path))
                if table is None or part not in known_keys(table):
                    continue
                node = None
            else:
                continue
            path.append(part)
        return tuple(path)

    def _value(self, path: KeyPath) -> Any:
        node: Any = self._values
        for part in path:
            if not _holds(node, part):
                return None
            node = node[part]
        return node

    def _unknown(self, path: KeyPath) -> Problem:
        from .fields import table_at, visible

        key = dotted(path)
        table = table_at(self._schema, path[:-1])
        beside = list(visible(table)) if table else []
        word = str(path[-1])
        same_here = WORDS_OF_OTHERS.get(word)
        near = same_here if same_here in beside else nearest(word, beside)
        if near is not None:
            fix = Fix(f"Did you mean '{near}'?", Edit("rename", key, near))
            return Problem(path, f"There is no key '{key}'.", fix, "key")
        elsewhere = {known.rpartition(".")[2]: known for known in reversed(list(self._fields))}
        if (same := nearest(same_here or word, elsewhere)) is not None:
            fix = Fix(f"Did you mean '{elsewhere[same]}'?")
        else:
            fix = Fix(f"The keys here are: {', '.join(beside)}.", Edit("remove", key))
        return Problem(path, f"There is no key '{key}'.", fix, "key")

    def _missing(self, path: KeyPath) -> Problem:
        key = dotted(path)
        info = self._info(path)
        example = info.examples[0] if info and info.examples else "…"
        if info and info.kind == "table":
            inner = [known for known in self._fields if known.startswith(f"{key}.")]
            first = next((known for known in inner if self._fields[known].required), inner[0])
            return Problem(path, f"{key} is not set.", Fix(f"Set {first}=…"), "absence")
        words = f"Set {key}={example}"
        return Problem(path, f"{key} is not set.", Fix(words), "absence")

    def _wrong(self, path: KeyPath, error: ErrorDetails) -> Problem:
        info = self._info(path)
        value = self._value(path)
        if value is None and info and info.required:
            return self._missing(path)
        expected = f"expected {info.type}" if info else error["msg"][:1].lower() + error["msg"][1:]
        hint = ""
        if info and info.choices and isinstance(value, str):
            hint = did_you_mean(value, map(str, info.choices))
        words = hint or (info.description if info else "")
        return Problem(
            path, f"{dotted(path)} = {shown(value)}: {expected}.", Fix(words) if words else None
        )

    def _info(self, path: KeyPath) -> FieldInfo | None:
        """The row of a key, also of one inside a list of tables."""
        from .describe import describe
        from .fields import table_at

        if dotted(path) in self._fields:
            return self._fields[dotted(path)]
        table = table_at(self._schema, path[:-1])
        if table is None or not isinstance(path[-1], str):
            return None
        return next((row for row in describe(table) if row.key == path[-1]), None)


def _holds(node: Any, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, Mapping) and part in node


def shown(value: Any) -> str:
    """A value as a message shows it: as JSON-like text, without secrets, cut where it is long."""
    words = {True: "true", False: "false", None: "null"}
    simple = isinstance(value, bool) or value is None
    text = words[value] if simple else mask_text(repr(value))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
