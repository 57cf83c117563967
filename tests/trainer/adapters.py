"""Adapters of PEFT's on tiny models, merged by ours and, to hold it against, by none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from tunedeck.core.schema.merge import MergeConfig
from tunedeck.trainer.merging import merge

_IDS = torch.arange(2 * 24).reshape(2, 24) % 60


def load(folder: Path) -> PreTrainedModel:
    """A saved model in float32, with its tower where it has one."""
    seeing = "vision_config" in json.loads((folder / "config.json").read_text())
    auto: Any = AutoModelForImageTextToText if seeing else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_pretrained(folder, dtype=torch.float32)
    model.eval()
    return model


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    """What a model says to the same two rows of ids, all below 60."""
    found: torch.Tensor = model(input_ids=_IDS).logits
    return found


def make_adapter(base: Path, folder: Path, **options: Any) -> Path:
    """An adapter whose every trainable weight has been moved."""
    settings = {"target_modules": "all-linear", "r": 4, "lora_alpha": 12, "task_type": "CAUSAL_LM"}
    adapter = peft.get_peft_model(load(base), peft.LoraConfig(**{**settings, **options}))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapter.save_pretrained(str(folder))
    return folder


def adapted(base: Path, adapter: Path) -> peft.PeftModel:
    """The base with the adapter beside it, as PEFT computes it."""
    return peft.PeftModel.from_pretrained(load(base), str(adapter)).eval()


def run(adapter: Path, run_dir: Path, **config: Any) -> Path:
    """Merge as the step does; the folder of the merged model."""
    run_dir.mkdir(exist_ok=True)
    assert merge.main(MergeConfig(lora_checkpoint=str(adapter), **config), run_dir) == 0
    return Path(json.loads((run_dir / "result.json").read_text())["artifact"])
