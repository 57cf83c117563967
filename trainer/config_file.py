"""Reading the resolved config of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import Place, UsageError
from ..core.schema import SCHEMAS
from ..core.text import did_you_mean

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
    from pydantic import ValidationError
    from yaml import YAMLError

    if recipe not in RECIPES:
        raise UsageError(
            f"There is no recipe '{recipe}'.",
            fix=f"{did_you_mean(recipe, RECIPES)} It is one of {', '.join(RECIPES)}.".strip(),
        )
    place = Place(str(file))
    try:
        given = OmegaConf.from_dotlist([word.removeprefix("--") for word in overrides])
        said = OmegaConf.load(file)
        if not isinstance(said, DictConfig):
            raise UsageError("The config is not a mapping of keys to values.", place=place)
        values = OmegaConf.to_container(OmegaConf.merge(said, given), resolve=True)
        return SCHEMAS[recipe].model_validate(values)
    except FileNotFoundError as error:
        raise UsageError("There is no such config.", place=place) from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"The config cannot be read: {error}", place=place) from error
    except ValidationError as error:
        wrong = error.errors(include_url=False)
        words = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong)
        fix = next((e["ctx"]["fix"] for e in wrong if "fix" in e.get("ctx", {})), "")
        raise UsageError(words, place=place, fix=fix) from error
