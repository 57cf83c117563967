"""The low-rank adapter that is trained in place of the model's own weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from .base import Foreign, Ignored, Names, Number, Positive, Shorthand, Table, Target


class LoraConfig(Table):
    """LoRA (arXiv:2106.09685): the update of a weight is B·A·alpha/dim with A, B of rank `dim`."""

    dim: Positive = Field(default=8, description="Rank of the adapter. 8 to 32 is typical.")
    alpha: Annotated[Number, Field(gt=0)] = Field(
        default=32,
        description="Scale of the update: alpha/dim, or alpha/sqrt(dim) with use_rslora.",
    )
    dropout: Annotated[Number, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Dropout on the adapter's input."
    )
    target_modules: Names = Field(
        default=(),
        description="Linear layers that are adapted, by name or wildcard (`*_proj`). Empty: all of "
        "them.",
    )
    exclude_modules: Names = Field(default=(), description="Layers left out, by name or wildcard.")
    match_all_linear: bool = Field(
        default=True,
        description="Adapt every linear layer but the output head. Off where target_modules are "
        "given.",
    )
    use_dora: bool = Field(
        default=False, description="Train the weight's magnitude apart from its direction (DoRA)."
    )
    use_rslora: bool = Field(
        default=False,
        description="Scale by alpha/sqrt(dim), which keeps high ranks stable (rsLoRA).",
    )
    modules_to_save: Names = Field(
        default=(),
        description="Modules trained in full beside the adapter, by the end of their name, e.g. "
        "embed_tokens for new tokens.",
    )
    quantization: Literal["nf4", "int8"] | None = Field(
        default=None,
        description="Keep the frozen base in four (nf4) or eight bits to save memory (QLoRA). "
        "Needs the bitsandbytes package.",
    )

    target_: Annotated[
        str | None,
        Target(
            ("PeftConfig", "peft.LoraConfig", "peft.tuners.lora.LoraConfig", "config.LoraConfig"),
            "The nearest is nemo_automodel.components._peft.lora.PeftConfig.",
        ),
    ] = Field(default=None, alias="_target_", exclude=True, repr=False)
    dropout_position: Ignored = Field(default=None, exclude=True, repr=False)
    use_triton: Ignored = Field(default=None, exclude=True, repr=False)
    use_memory_efficient_lora: Ignored = Field(default=None, exclude=True, repr=False)
    lora_dtype: Ignored = Field(default=None, exclude=True, repr=False)
    lora_A_init: Annotated[
        str | None, Foreign(("xavier", "kaiming"), "A starts from Kaiming's distribution here.")
    ] = Field(default=None, exclude=True, repr=False)
    moe_rank_scaling: Annotated[
        bool | None, Foreign((False,), "All layers have the same rank here; drop the key.")
    ] = Field(default=None, exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _all_or_some(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("match_all_linear") is None:
            rest = {key: value for key, value in data.items() if key != "match_all_linear"}
            return {**rest, "match_all_linear": not data.get("target_modules")}
        return data

    @model_validator(mode="after")
    def _targets_are_clear(self) -> LoraConfig:
        if self.match_all_linear == bool(self.target_modules):
            raise PydanticCustomError(
                "target_modules",
                "match_all_linear and target_modules contradict each other",
                {
                    "key": "target_modules",
                    "fix": "Give target_modules with match_all_linear=false, or "
                    "match_all_linear=true alone.",
                },
            )
        return self

    @model_validator(mode="after")
    def _saved_by_name(self) -> LoraConfig:
        for name in self.modules_to_save:
            if set(name) & set("*?["):
                raise PydanticCustomError(
                    "modules_to_save",
                    "modules_to_save knows no wildcards, so '{name}' is no module",
                    {
                        "name": name,
                        "key": "modules_to_save",
                        "fix": "Name modules by the end of their names: embed_tokens, or norm for "
                        "each whose name ends so.",
                    },
                )
        return self


def matching(names: Iterable[str], pattern: str) -> list[str]:
    """The layers that an entry of `target_modules` or `exclude_modules` means.

    A wildcard matches a full name, or its end from a dot on.
    """
    return [name for name in names if fnmatchcase(f".{name}", f"*.{pattern}")]


Peft = Annotated[
    LoraConfig | None, Shorthand({"lora": {}, "none": None, "null": None}, "adapter method")
]
"""An adapter's table, `lora` for its defaults, or null to train the whole model."""
