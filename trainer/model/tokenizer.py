"""The tokenizer of a run, with the chat template of its config."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import AutoProcessor, AutoTokenizer, PreTrainedTokenizerBase

from ...core.chat import resolve_templates
from ...core.errors import UsageError
from ...core.schema.model import TokenizerConfig
from ..config_file import as_table
from .build import unloadable

if TYPE_CHECKING:
    from ...core.schema import TrainConfig


def tokenizer_of(config: TrainConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of a run: the model's own where the config names no other.

    Raises:
        UsageError: as `get_tokenizer` does; or the model is built from a table of sizes, which has
            no tokenizer.
    """
    tokenizer: PreTrainedTokenizerBase = get_tokenizer(
        _settings(config), trust_remote_code=config.model.trust_remote_code
    )
    return tokenizer


def _settings(config: TrainConfig) -> TokenizerConfig:
    if config.tokenizer.name is not None:
        return config.tokenizer
    name = config.model.pretrained_model_name_or_path or config.model.config
    if not isinstance(name, str):
        raise UsageError(
            "tokenizer.name is not set, and model.config has no tokenizer of its own.",
            fix="Set tokenizer.name to a folder or hub id.",
        )
    revision = config.tokenizer.revision or config.model.revision
    return config.tokenizer.model_copy(update={"name": name, "revision": revision})


def get_tokenizer(
    tokenizer_config: TokenizerConfig | Mapping[str, Any],
    get_processor: bool = False,
    *,
    trust_remote_code: bool = False,
) -> Any:
    """Load the tokenizer, or the processor that holds it, with the chat template of the config.

    Args:
        tokenizer_config: a table, or its keys; `name` must be set. `chat_template` is `default`
            (as where it is absent) for the tokenizer's own, None for the messages' contents alone,
            a `.jinja` file, or a template inline.
        get_processor: load a multimodal processor instead.
        trust_remote_code: run Python code that comes with it.

    Returns:
        A fast tokenizer with a pad token, or a processor, which has its special tokens and their
        ids. Its `apply_chat_template` has the config's `chat_template_kwargs` bound.

    Raises:
        UsageError: it cannot be loaded, has no fast form, or has no template.
    """
    config = as_table(TokenizerConfig, tokenizer_config)
    name = config.name
    if name is None:
        raise UsageError("tokenizer.name is not set.", fix="Name a folder or a hub id.")
    loader = AutoProcessor if get_processor else AutoTokenizer
    try:
        loaded: Any = loader.from_pretrained(
            name, revision=config.revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, KeyError) as error:
        raise unloadable(name, "tokenizer", error) from error
    # Of a text model there is no processor, and the loader gives its tokenizer.
    tokenizer = getattr(loaded, "tokenizer", loaded)
    if not tokenizer.is_fast:
        raise UsageError(
            f"The tokenizer '{name}' has no tokenizer.json.",
            fix="Convert it: AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER).",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if loaded is not tokenizer:
        for token in ("pad_token", "eos_token", "bos_token"):
            setattr(loaded, token, getattr(tokenizer, token))
            setattr(loaded, f"{token}_id", getattr(tokenizer, f"{token}_id"))
    own = loaded.chat_template
    own = {"default": own} if isinstance(own, str) else dict(own or {})
    templates = resolve_templates(config.chat_template, own)
    loaded.chat_template = templates["default"] if len(templates) == 1 else templates
    if config.chat_template_kwargs:
        loaded.apply_chat_template = functools.partial(
            loaded.apply_chat_template, **config.chat_template_kwargs
        )
    return loaded
