"""Which model and tokenizer are trained, and how they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Foreign, Ignored, LocalPath, Spelling, Table, Target

_DTYPES = {
    "bf16": "bfloat16",
    "fp16": "float16",
    "half": "float16",
    "fp32": "float32",
    "float": "float32",
}


def _dtype(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    name = value.removeprefix("torch.").lower()
    return _DTYPES.get(name, name)


Precision = Annotated[Literal["auto", "float32", "bfloat16", "float16"], BeforeValidator(_dtype)]
"""A floating-point format by torch's name; `auto` leaves the choice to the machine."""


class FreezeConfig(Table):
    """Parts of a multimodal model that are left as they are. Text-only models have none of them."""

    vision_tower: bool = Field(default=True, description="Leave the image encoder untrained.")
    audio_tower: bool = Field(default=True, description="Leave the audio encoder untrained.")
    language_model: bool = Field(default=False, description="Leave the language model untrained.")


class RewardModelConfig(Table):
    """A model with a score in place of the next token, as reward learning trains it."""

    enabled: bool = Field(default=False, description="Build a reward model.")
    reward_model_type: Literal["bradley_terry"] = Field(
        default="bradley_terry", description="`bradley_terry` gives one score a sequence."
    )


class ModelConfig(Table):
    """The model that is trained: loaded from a folder or hub id, or built from a config."""

    pretrained_model_name_or_path: Annotated[str, LocalPath("input")] | None = Field(
        default=None,
        description="Hub id or local folder of the model to start from.",
        examples=["Qwen/Qwen3-0.6B", "./my-model"],
    )
    torch_dtype: Precision = Field(
        default="auto",
        description="Format of the weights in training. `auto`, on a GPU that can, multiplies in "
        "bfloat16 and keeps trained weights in float32, frozen ones in bfloat16; elsewhere all is "
        "float32.",
    )
    attn_implementation: (
        Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3"] | None
    ) = Field(
        default=None,
        description="Attention kernel. Null takes the fastest that is right for the batch.",
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that comes with the model. Only for a source you trust.",
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of the hub id. Null is its main branch."
    )
    force_hf: bool | None = Field(
        default=None,
        description="Use transformers' implementation of a model that comes with its own "
        "(trust_remote_code). Null does so where its own cannot give its weights tensor by tensor.",
    )
    reward_model_cfg: RewardModelConfig = Field(
        default_factory=RewardModelConfig,
        description="Build a model that scores sequences.",
    )
    config: Annotated[str, LocalPath("input")] | dict[str, Any] | None = Field(
        default=None,
        description="Build an untrained model instead of loading one: a hub id or folder that "
        "holds a config.json, or its contents as a table (`model_type` and sizes).",
    )
    freeze: FreezeConfig = Field(
        default_factory=FreezeConfig, description="Parts of a multimodal model left untrained."
    )

    target_: Annotated[
        str | None,
        Target(
            (
                "AutoModelForCausalLM.from_pretrained",
                "AutoModelForCausalLM.from_config",
                "NeMoAutoModelForCausalLM.from_pretrained",
                "NeMoAutoModelForCausalLM.from_config",
            ),
            "Causal language models are trained here; the nearest is "
            "transformers.AutoModelForCausalLM.from_pretrained.",
        ),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    backend: Ignored = Field(default=None, exclude=True, repr=False)
    use_liger_kernel: Ignored = Field(default=None, exclude=True, repr=False)
    use_sdpa_patching: Ignored = Field(default=None, exclude=True, repr=False)
    output_hidden_states: Ignored = Field(default=None, exclude=True, repr=False)
    load_base_model: Annotated[
        bool | None,
        Foreign((True,), "To train from scratch, give model.config instead of a pretrained model."),
    ] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _auto_config(cls, data: Any) -> Any:
        config = data.get("config") if isinstance(data, Mapping) else None
        if isinstance(config, Mapping) and "_target_" in config:
            source = config.get("pretrained_model_name_or_path") or config.get("name_or_path")
            if str(config["_target_"]).endswith("Config.from_pretrained") and source:
                return {**data, "config": source}
        return data

    @model_validator(mode="after")
    def _one_source(self) -> ModelConfig:
        if (self.pretrained_model_name_or_path is None) == (self.config is None):
            raise PydanticCustomError(
                "model_source",
                "exactly one of pretrained_model_name_or_path and config must be set",
                {
                    "key": "pretrained_model_name_or_path",
                    "fix": "Set model.pretrained_model_name_or_path to a hub id or a local folder.",
                },
            )
        if isinstance(self.config, dict) and "model_type" not in self.config:
            raise PydanticCustomError(
                "model_type",
                "the table has no model_type",
                {
                    "key": "config",
                    "fix": "Name the architecture, e.g. model.config.model_type=llama.",
                },
            )
        return self


_THEIR_NAME = "pretrained_model_name_or_path"


class TokenizerConfig(Table):
    """The tokenizer and the chat template that turns messages into tokens."""

    name: Annotated[
        Annotated[str, LocalPath("input")] | None,
        Spelling(_THEIR_NAME),
        Spelling(f"dataset.tokenizer.{_THEIR_NAME}", root=True),
    ] = Field(
        default=None,
        validation_alias=AliasChoices("name", _THEIR_NAME),
        description="Hub id or local folder. Null is the model's own.",
    )
    chat_template: Annotated[
        Annotated[str, LocalPath("input", ".jinja")] | None,
        Spelling("dataset.chat_template", root=True),
    ] = Field(
        default="default",
        description="`default` is the tokenizer's own; a path ending in `.jinja` or the template's "
        "text replaces it; null passes the messages' content through as it is.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Variables for the template, e.g. {enable_thinking: false}.",
    )
    revision: str | None = Field(
        default=None, description="Branch, tag or commit of the hub id. Null is its main branch."
    )

    target_: Annotated[
        str | None,
        Target(
            ("AutoTokenizer.from_pretrained", "NeMoAutoTokenizer.from_pretrained"),
            "The nearest is transformers.AutoTokenizer.from_pretrained.",
        ),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    trust_remote_code: Annotated[
        bool | None, Foreign(None, "model.trust_remote_code covers the tokenizer too.")
    ] = Field(default=None, exclude=True, repr=False)
