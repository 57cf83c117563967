"""Whose code a model is built from, and what its settings must not be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PretrainedConfig
from transformers.utils.hub import cached_file

from ...core.errors import UsageError
from ...core.schema.conditions import conditions_of, uses_own_code
from ...core.schema.model_facts import ModelFacts, model_facts, own_code_file
from ..lines import say
from .build import load_model_config

if TYPE_CHECKING:
    from ...core.schema import TrainConfig
    from ...core.schema.model import ModelConfig


def settle_implementation(
    config: TrainConfig, *, vision: bool = False
) -> tuple[PretrainedConfig, bool]:
    """Load the architecture and decide by whose code it is built, before anything large is loaded.

    A model may come with its own implementation, which runs with `trust_remote_code`. `force_hf`
    takes transformers' one instead; not set, it does so with a warning where the model's own
    cannot give its weights tensor by tensor, and false is refused there.

    Args:
        config: the run's config.
        vision: the model is to take images, whatever its files say.

    Returns:
        The architecture, and whether the model's own implementation is used.

    Raises:
        UsageError: there is no such model, or a condition of the table that preflight uses as well.
    """
    architecture = load_model_config(config.model)
    facts = _facts(config.model, architecture)
    facts = facts._replace(vision=vision or facts.vision)
    for found in conditions_of(config, facts):
        if found.severity == "error":
            raise UsageError(f"{found.key}: {found.message}", fix=found.fix)
        say(f"tunedeck: warning: {found.key}: {found.message}")
    own = uses_own_code(config, facts)
    if config.model.trust_remote_code and not own:
        # The config too may have come as code.
        without = config.model.model_copy(update={"trust_remote_code": False})
        architecture = load_model_config(without)
    return architecture, own


def check_recipe(config: TrainConfig) -> None:
    """Refuse what the recipe cannot train, whatever the model.

    Raises:
        UsageError: a condition of the recipe.
    """
    for found in conditions_of(config, model_facts({}), recipe=config.recipe):
        if found.recipe == config.recipe and found.severity == "error":
            raise UsageError(f"{found.key}: {found.message}", fix=found.fix)


def _facts(config: ModelConfig, architecture: PretrainedConfig) -> ModelFacts:
    values = {**architecture.to_dict(), "auto_map": getattr(architecture, "auto_map", None)}
    file, code = own_code_file(values), None
    if file is not None and config.trust_remote_code:
        source = str(config.config or config.pretrained_model_name_or_path)
        try:
            path = cached_file(source, file, revision=config.revision)
        except OSError:
            path = None
        if path is not None:
            code = Path(path).read_text(encoding="utf-8", errors="replace")
    return model_facts(values, code)
