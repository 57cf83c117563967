"""`step.toml`: what a step is, takes, makes and knows about its own failures."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, field_validator, model_validator

from .tables import CatalogTable

_ID = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"

Count = Annotated[StrictInt, Field(ge=0)]
"""A whole number that is not negative."""


class Header(CatalogTable):
    """`[step]`: what the step is called and what it does."""

    id: str = Field(pattern=_ID)
    name: str
    category: str
    description: str = ""
    tags: tuple[str, ...] = ()


class Artifact(CatalogTable):
    """`[[consumes]]` or `[[produces]]`: an artifact that goes in or comes out.

    Attributes:
        type: a name in the graph of artifact types.
        description: which one is meant.
        required: whether the step cannot do without it; for a product, whether it is always made.
        key: the config key that names it: how a required input is checked, and how one step's
            product is handed to the next.
        example: what one may write there, for the message when it is missing.
    """

    type: str
    description: str = ""
    required: StrictBool = True
    key: str | None = None
    example: str | None = None


class Parameter(CatalogTable):
    """`[[parameters]]`: a config key worth knowing. `choices` are enforced."""

    name: str
    description: str = ""
    default: Any = None
    choices: tuple[Any, ...] = ()


class ModelChoice(CatalogTable):
    """`[[models]]`: a model that the step is known to work with. `min_gpus` is enforced."""

    name: str
    description: str = ""
    default: StrictBool = False
    min_gpus: Count = 0


class Strategy(CatalogTable):
    """`[[strategies]]`: advice for a situation. `skill` is a page of Nemotron's on the matter."""

    when: str
    then: str
    skill: str | None = None


class KnownError(CatalogTable):
    """`[[errors]]`: a failure that people meet, and the way out of it.

    Attributes:
        name: a short name in snake case.
        recovery: what to do.
        pattern: a regular expression that finds the failure in a run's log; without one, the
            advice is only shown.
        skill: a page of Nemotron's on the matter.
    """

    name: str
    recovery: str
    pattern: str | None = None
    skill: str | None = None

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern


class LaunchTable(CatalogTable):
    """`[launch]`: how the step's processes are started.

    Attributes:
        kind: `torchrun` (one process a GPU), `python` (one process), `builtin` (in Tunedeck's own
            process) or `command` (a command line with the fields `{script}` and `{config}`).
        module: the Python module run with `-m`.
        args: its arguments before `--config`.
        schema: the schema its configs are checked against.
        extra: the extra of Tunedeck's that the machine it runs on must have.
        command: the command line, for that kind.
    """

    kind: Literal["torchrun", "python", "builtin", "command"]
    module: str = Field(default="", pattern=r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?$")
    args: tuple[str, ...] = ()
    config_schema: str | None = Field(default=None, alias="schema")
    extra: str | None = None
    command: str | None = None

    @model_validator(mode="after")
    def _says_what_to_start(self) -> LaunchTable:
        if self.kind in ("torchrun", "python") and not self.module:
            raise ValueError(f"kind '{self.kind}' needs a 'module' to run")
        if (self.kind == "command") != (self.command is not None):
            raise ValueError("kind 'command' and a 'command' belong together")
        return self


class ResourceTable(CatalogTable):
    """`[resources]`: what the step needs unless a profile says otherwise."""

    nodes: Annotated[StrictInt, Field(ge=1)] = 1
    gpus_per_node: Count = 0
    image: str | None = None


class ConfigTable(CatalogTable):
    """`[config]`: where the step's configs lie, relative to its folder, and which one is used."""

    dir: str = "config"
    default: str = "default"


class Manifest(CatalogTable):
    """A whole `step.toml`, in the schema of the Nemotron steps with Tunedeck's additions."""

    step: Header
    consumes: tuple[Artifact, ...] = ()
    produces: tuple[Artifact, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    models: tuple[ModelChoice, ...] = ()
    strategies: tuple[Strategy, ...] = ()
    errors: tuple[KnownError, ...] = ()
    launch: LaunchTable | None = None
    resources: ResourceTable | None = None
    config: ConfigTable | None = None
    reference: dict[str, Any] = Field(default_factory=dict)

    @field_validator("models")
    @classmethod
    def _one_default(cls, models: tuple[ModelChoice, ...]) -> tuple[ModelChoice, ...]:
        defaults = [model.name for model in models if model.default]
        if len(defaults) > 1:
            raise ValueError(f"only one model can be the default, not {' and '.join(defaults)}")
        return models
