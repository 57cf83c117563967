"""The configuration of folding a LoRA adapter into its base model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import Foreign, Ignored, LocalPath, Table
from .model import Precision
from .output import RunConfig

_MEGATRON = Foreign(
    (), "Megatron checkpoints are not merged here; convert the adapter to Hugging Face PEFT."
)


class MergeConfig(Table):
    """An adapter and its base in, a standalone Hugging Face model out."""

    recipe: Literal["merge_lora"] = Field(default="merge_lora", description="What is done.")
    backend: Literal["auto", "hf_peft"] = Field(
        default="auto",
        description="Format of the adapter: Hugging Face PEFT, which `auto` means too.",
    )
    lora_checkpoint: Annotated[str, LocalPath("input")] = Field(
        description="Folder of the adapter, or of the run that trained it.", min_length=1
    )
    base_hf_path: Annotated[str, LocalPath("input")] | None = Field(
        default=None,
        description="Hub id or local folder of the base model. Null is the one that the adapter "
        "was trained on; any other is checked against it.",
    )
    output_hf_path: Annotated[str, LocalPath("output")] | None = Field(
        default=None,
        description="Folder of the merged model; it must not exist yet. Null is `merged-hf` in the "
        "run's folder.",
    )
    torch_dtype: Precision = Field(
        default="auto", description="Format of the merged weights. `auto` is the base's own."
    )
    trust_remote_code: bool = Field(
        default=False,
        description="Run Python code that comes with the base. Only for a source you trust.",
    )
    save_tokenizer: bool = Field(
        default=True,
        description="Put the tokenizer and its chat template beside the merged weights.",
    )
    run: RunConfig = Field(default_factory=RunConfig, description="About the launch itself.")

    device_map: Ignored = Field(default=None, exclude=True, repr=False)
    low_cpu_mem_usage: Ignored = Field(default=None, exclude=True, repr=False)
    safe_serialization: Annotated[
        bool | None, Foreign((True,), "Weights are written as safetensors here; drop the key.")
    ] = Field(default=None, exclude=True, repr=False)
    cpu: Ignored = Field(default=None, exclude=True, repr=False)
    strict: Annotated[
        bool | None, Foreign((True,), "An adapter that does not fit is refused here; drop the key.")
    ] = Field(default=None, exclude=True, repr=False)
    show_progress: Ignored = Field(default=None, exclude=True, repr=False)
    debug: Ignored = Field(default=None, exclude=True, repr=False)
    upstream_script: Ignored = Field(default=None, exclude=True, repr=False)
    hf_model_path: Ignored = Field(default=None, exclude=True, repr=False)
    hf_model_id: Ignored = Field(default=None, exclude=True, repr=False)
    base_megatron_path: Annotated[Any, _MEGATRON] = Field(default=None, exclude=True, repr=False)
    output_megatron_path: Ignored = Field(default=None, exclude=True, repr=False)
    export_hf: Ignored = Field(default=None, exclude=True, repr=False)
    tp: Ignored = Field(default=None, exclude=True, repr=False)
    pp: Ignored = Field(default=None, exclude=True, repr=False)
    ep: Ignored = Field(default=None, exclude=True, repr=False)
    nproc_per_node: Ignored = Field(default=None, exclude=True, repr=False)
