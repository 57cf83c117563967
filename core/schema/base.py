"""What all tables of a config share: strictness, markers, and how AutoModel's own keys are met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, core_schema

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler


class Table(BaseModel):
    """A table of a config: it knows all its keys, refuses any other, and never changes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )

    def remarks(self) -> list[tuple[str, str]]:
        """Dotted key and words for what is allowed but most likely not meant."""
        return []


@dataclass(frozen=True, slots=True)
class LocalPath:
    """Marks a field whose value may name a file or folder of this machine.

    Attributes:
        direction: `input` is read by the run and travels with it; `output` is written by it.
        suffix: only a value with this ending is a path (a chat template may be inline text).
    """

    direction: Literal["input", "output"]
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Spelling:
    """Marks a field that AutoModel's configs set by another key, so that its origin is found.

    Attributes:
        key: their key: beside the field, or dotted from the root with `root`.
    """

    key: str
    root: bool = False


@dataclass(frozen=True, slots=True)
class Shorthand:
    """Marks a table that a single word stands for: `peft: lora` is the table of the defaults.

    Attributes:
        words: each word and the value it stands for.
        name: what the words name, for messages.
    """

    words: Mapping[str, Any]
    name: str

    def expand(self, value: Any) -> Any:
        """What a word stands for; another value is given back as it is."""
        return self.words.get(value.lower(), value) if isinstance(value, str) else value

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Expand the word before the table is read."""

        def read(value: Any) -> Any:
            value = self.expand(value)
            if isinstance(value, str):
                raise PydanticCustomError(
                    "word",
                    "there is no {name} of that name",
                    {
                        "name": self.name,
                        "fix": f"Use {', '.join(self.words)}, or a table with its keys.",
                    },
                )
            return value

        return core_schema.no_info_before_validator_function(read, handler(source))


@dataclass(frozen=True, slots=True)
class Foreign:
    """Marks a key of AutoModel's that has no counterpart here, so that its configs load.

    Forms and documentation leave such a key out, and a dump does not hold it.

    Attributes:
        accepts: the values that change nothing here; None accepts any value. Null always passes.
        instead: what to do when another value is given.
    """

    accepts: tuple[Any, ...] | None = None
    instead: str = ""

    def allows(self, value: Any) -> bool:
        """Whether a run with this value does what its author expects."""
        return value is None or self.accepts is None or value in self.accepts

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Check the value after its type."""

        def check(value: Any) -> Any:
            if self.allows(value):
                return value
            raise PydanticCustomError(
                "unavailable",
                "this is not available here",
                {"fix": self.instead},
            )

        return core_schema.no_info_after_validator_function(check, handler(source))


@dataclass(frozen=True, slots=True)
class Target(Foreign):
    """A `_target_` of AutoModel's, accepted by the end of its dotted path in whatever module."""

    def allows(self, value: Any) -> bool:
        """Whether the last components of the dotted path are among the accepted ones."""
        return value is None or any(
            f".{value}".endswith(f".{known}") for known in self.accepts or ()
        )


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError(
            "number_type", "Input should be a number, not {value}", {"value": str(value).lower()}
        )
    return value


def _none_word(value: Any) -> Any:
    return None if isinstance(value, str) and value.lower() in {"none", "null", ""} else value


def _one_is_a_list(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Positive = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
"""A count of at least one."""

Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
"""A count that may be zero."""

Number = Annotated[float, BeforeValidator(_no_bool)]
"""A finite number; an integer is taken for one, a boolean is not."""

Names = Annotated[tuple[str, ...], BeforeValidator(_one_is_a_list)]
"""A list of strings; a single string is taken for a list of one."""

NoneWord = BeforeValidator(_none_word)
"""Takes the word `none`, as AutoModel writes it, for null."""

Ignored = Annotated[Any, Foreign()]
"""A key of AutoModel's that only concerns its own implementation."""
