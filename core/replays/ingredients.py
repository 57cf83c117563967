"""What a replay file says: taken from a plan, written as TOML, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import UsageError
from ..secrets import holds_secret
from ..text import did_you_mean
from ..toml.source import TomlSource, read_toml
from ..toml.text import toml_pair
from .lock import Lock, leaves, lock_of


class Ingredients(BaseModel):
    """A replay file.

    Attributes:
        description: what it is for, in words.
        step, config, overrides, profile, env_file, catalog: as `Selection` has them.
        run_name: the name that its runs get; the replay's own where there is none.
        cwd: the folder that relative paths start from; relative to the repository for a replay in
            its `profiles/`. None is the repository's own, or where one is.
        lock: what it came to when it was saved.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    step: str
    config: str | None = None
    overrides: list[str] = []
    profile: str = "local"
    env_file: str | None = None
    catalog: list[str] = []
    run_name: str | None = None
    cwd: str | None = None
    lock: Lock | None = None


def ingredients_of(plan: Mapping[str, Any], base: Path | None, description: str) -> Ingredients:
    """What a plan was made of.

    Args:
        plan: `Plan.to_json()`.
        base: the folder of the repository that it is saved in, if it is.
        description: what it is for.

    Raises:
        UsageError: if an override holds a secret.
    """
    chosen = plan["selection"]
    cwd = Path(chosen["cwd"])
    config = chosen["config"]
    given = [description, *plan["overrides"]]
    for text in given:
        if holds_secret(text):
            raise UsageError(
                "A replay holds no secret, and one of its values looks like one: "
                f"{text.partition('=')[0]}=…",
                fix="Take it out; name the secret in the profile's 'secrets'.",
            )
    return Ingredients(
        description=description,
        step=plan["step"],
        config=_below(config, cwd) if config and "/" in config else config,
        overrides=list(plan["overrides"]),
        profile=plan["profile"],
        env_file=_below(chosen["env_file"], cwd) if chosen["env_file"] else None,
        catalog=[_below(folder, cwd) for folder in chosen["catalog"]],
        run_name=chosen["name"],
        cwd=_folder(cwd, base),
        lock=lock_of(plan),
    )


def _folder(cwd: Path, base: Path | None) -> str | None:
    if base is None:
        return str(cwd)
    return None if cwd == base.absolute() else _below(str(cwd), base.absolute())


def _below(path: str, folder: Path) -> str:
    """A path relative to a folder that it lies in; any other as it is."""
    try:
        return str(Path(path).relative_to(folder))
    except ValueError:
        return path


def replay_text(name: str, ingredients: Ingredients) -> str:
    """The file: ingredients above, the lock below, what is empty left out."""
    values = {"profile": ingredients.profile, **ingredients.model_dump(exclude_defaults=True)}
    lock = values.pop("lock", {})
    lines = [
        f"# A saved launch. Run it again: tunedeck replay {name}",
        "# Edit what you like above [lock], which says what it came to when it was saved.",
        *(toml_pair(key, values[key]) for key in Ingredients.model_fields if key in values),
    ]
    tables = {key: lock.pop(key) for key in ("launch", "config", "profile") if key in lock}
    lines += ["", "[lock]", *(toml_pair(key, value) for key, value in lock.items())]
    for table, inner in tables.items():
        lines += ["", f"[lock.{table}]"]
        lines += [toml_pair(key.split("."), value) for key, value in leaves(inner)]
    return "\n".join(lines) + "\n"


def read_ingredients(file: Path) -> Ingredients:
    """Read a replay file.

    Raises:
        UsageError: if it cannot be read or says what it must not; with the place.
    """
    text = read_toml(file)
    try:
        return Ingredients.model_validate(text.data)
    except ValidationError as error:
        raise _invalid(text, error) from error


def _invalid(text: TomlSource, error: ValidationError) -> UsageError:
    found = error.errors(include_url=False)
    # A key that is missing may be there misspelt.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    *way, last = first["loc"]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = (Lock if way else Ingredients).model_fields
        return UsageError(
            f"A replay has no key '{key}'. {did_you_mean(str(last), known)}".strip(),
            place=text.locate(first["loc"]),
            fix=f"The keys are: {', '.join(known)}.",
        )
    return UsageError(
        f"'{key}': {first['msg']}.",
        place=text.locate(first["loc"]),
        fix="Mend it in the file, or save the launch again.",
    )
