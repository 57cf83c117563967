"""Reading the config of a recipe: a resolved file, or values that are at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..core.config.problems import ConfigErrors
from ..core.config.validate import check
from ..core.errors import NOWHERE, Place, UsageError
from ..core.findings import Finding
from ..core.schema import SCHEMAS
from ..core.text import did_you_mean

if TYPE_CHECKING:
    from ..core.schema.base import Table

AnyTable = TypeVar("AnyTable", bound="Table")

RECIPES = ("sft", "merge_lora")
"""What the trainer runs."""


def load_config(recipe: str, file: Path, overrides: Sequence[str] = ()) -> Any:
    """The recipe's config.

    Args:
        recipe: its name.
        file: the resolved config, YAML.
        overrides: `key=value` over what the file says, as a job's own variables add them
            (SFT_ARGS); two dashes before a key mean nothing.

    Raises:
        UsageError: there is no such recipe, or the file is no config of it.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if recipe not in RECIPES:
        raise UsageError(
            f"There is no recipe '{recipe}'.",
            fix=f"{did_you_mean(recipe, RECIPES)} It is one of {', '.join(RECIPES)}.".strip(),
        )
    if bare := [word for word in overrides if "=" not in word]:
        raise UsageError(f"The override '{bare[0]}' has no value.", fix="Write it as key=value.")
    place = Place(str(file))
    try:
        given = OmegaConf.from_dotlist([word.removeprefix("--") for word in overrides])
        said = OmegaConf.load(file)
        if not isinstance(said, DictConfig):
            raise UsageError("The config is not a mapping of keys to values.", place=place)
        values: Any = OmegaConf.to_container(OmegaConf.merge(said, given), resolve=True)
    except FileNotFoundError as error:
        raise UsageError("There is no such config.", place=place) from error
    except OSError as error:
        raise UsageError(f"The config cannot be read: {error.strerror}.", place=place) from error
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise UsageError(f"The config cannot be read: {error}", place=place) from error
    return as_table(SCHEMAS[recipe], values, place)


def as_table(
    schema: type[AnyTable], values: AnyTable | Mapping[str, Any], place: Place = NOWHERE
) -> AnyTable:
    """A table of a config, from its values where it is none yet.

    Args:
        schema: the table.
        values: one, or its keys and values.
        place: where they were read, for messages.

    Raises:
        UsageError: they are no such table; names all mistakes.
    """
    if isinstance(values, schema):
        return values
    if not isinstance(values, Mapping):
        raise UsageError("The config is not a mapping of keys to values.", place=place)
    table, problems = check(schema, values)
    if table is None:
        raise ConfigErrors([Finding("error", p.message, place, fix=p.fix) for p in problems])
    return cast(AnyTable, table)
