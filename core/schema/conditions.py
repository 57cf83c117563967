"""What a run's settings must not be together: one table, for preflight and for the trainer.

They are the conditions of NeMo RL's `nemo_rl.models.automodel.setup`, apart from those that the
schema itself refuses (an unknown format, an unknown kind of reward model, template variables that
are no mapping) and those of the mesh (`mesh_misfits`). Packing with context parallelism, which is
an error there, works here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from .model_facts import ModelFacts

if TYPE_CHECKING:
    from .train import TrainConfig


@dataclass(frozen=True, slots=True)
class Condition:
    """Settings that do not go together.

    Attributes:
        name: a short name.
        key: the dotted key to change.
        holds: whether a config and its model are in this condition.
        message: what is wrong.
        fix: what to do about it.
        severity: an error keeps a run from starting; a warning is said.
        recipe: the recipe it is about; None for all that set a model up.
    """

    name: str
    key: str
    holds: Callable[[TrainConfig, ModelFacts], bool]
    message: str
    fix: str
    severity: Literal["error", "warning"] = "error"
    recipe: str | None = None


CONDITIONS: tuple[Condition, ...] = (
    Condition(
        "packing_vision",
        "packed_sequence.packed_sequence_size",
        lambda config, model: _packs(config) and model.vision,
        "Packing does not go with a model that takes images.",
        "Set packed_sequence.packed_sequence_size=0.",
    ),
    Condition(
        "packing_reward",
        "packed_sequence.packed_sequence_size",
        lambda config, model: _packs(config) and config.model.reward_model_cfg.enabled,
        "Packing does not go with a reward model, which scores whole sequences.",
        "Set packed_sequence.packed_sequence_size=0.",
    ),
    Condition(
        "packing_carries",
        "packed_sequence.packed_sequence_size",
        lambda config, model: _packs(config) and model.carries,
        "Packing does not go with this architecture: it has layers (recurrent, convolutional, "
        "linear or chunked attention, or one that is not told where rows end) that carry one row "
        "into the next where rows share a sequence.",
        "Set packed_sequence.packed_sequence_size=0.",
    ),
    Condition(
        "packing_mixes",
        "model.attn_implementation",
        lambda config, model: _packs(config) and config.model.attn_implementation in model.mixes,
        "This kernel is not told where rows end in this architecture: packed rows would see each "
        "other.",
        "Leave model.attn_implementation out, or set packed_sequence.packed_sequence_size=0.",
    ),
    Condition(
        "context_carries",
        "distributed.cp_size",
        lambda config, model: config.distributed.cp_size > 1 and (model.carries or model.vision),
        "The layers of this architecture cannot share a sequence among ranks.",
        "Set distributed.cp_size=1, and shard with fsdp2 or tp_size.",
    ),
    Condition(
        "experts_missing",
        "distributed.ep_size",
        lambda config, model: (
            config.distributed.ep_size > 1 and model.model_type != "" and not model.experts
        ),
        "The model has no experts that could be spread over ranks.",
        "Set distributed.ep_size=1; fsdp2 shards any model.",
    ),
    Condition(
        "experts_adapted",
        "peft.target_modules",
        lambda config, model: any(
            _means_experts(pattern, model)
            for pattern in (config.peft.target_modules if config.peft is not None else ())
        ),
        "The names mean experts or their router, and those have no linear layers that could be "
        "adapted.",
        "Name layers of the attention (q_proj, k_proj, v_proj, o_proj), or set "
        "peft.modules_to_save=[experts] to train the experts whole.",
    ),
    Condition(
        "experts_unadapted",
        "peft.match_all_linear",
        lambda config, model: (
            config.peft is not None and config.peft.match_all_linear and bool(model.experts)
        ),
        "The experts of the model get no adapters, nor do dense layers that PEFT takes for them.",
        "Set peft.modules_to_save=[experts] to train the experts whole.",
        severity="warning",
    ),
    Condition(
        "encoder_decoder",
        "model.pretrained_model_name_or_path",
        lambda config, model: model.translates,
        "The model is an encoder with a decoder, and not a causal language model.",
        "Choose a model that transformers' AutoModelForCausalLM loads.",
    ),
    Condition(
        "encoder",
        "model.pretrained_model_name_or_path",
        lambda config, model: model.encodes and not config.model.reward_model_cfg.enabled,
        "The architecture is that of an encoder, which sees the tokens that it would predict.",
        "Choose a causal language model (Llama, Qwen, Mistral, Gemma, …).",
    ),
    Condition(
        "text_frozen",
        "model.freeze.language_model",
        lambda config, model: model.vision and config.model.freeze.language_model,
        "Training is on text alone, and the part of the model that reads text is frozen.",
        "Set model.freeze.language_model=false.",
    ),
    Condition(
        "quantized_anew",
        "peft.quantization",
        lambda config, model: (
            config.peft is not None
            and config.peft.quantization is not None
            and config.model.pretrained_model_name_or_path is None
        ),
        "A model that is built anew has no weights to quantize.",
        "Set model.pretrained_model_name_or_path, or leave the key out.",
    ),
    Condition(
        "quantized_whole",
        "peft",
        lambda config, model: config.peft is None and model.quantized,
        "The model is stored quantized (quantization_config in its config.json), and such weights "
        "are not trained.",
        "Set peft=lora to train an adapter beside them, or choose the model that it was quantized "
        "from.",
    ),
    Condition(
        "force_hf_refused",
        "model.force_hf",
        lambda config, model: config.model.force_hf is False and _cannot_convert(config, model),
        "The model's own implementation has a state dict adapter without "
        "convert_single_tensor_to_hf: its weights cannot be given tensor by tensor.",
        "Set model.force_hf=true to use transformers' implementation.",
    ),
    Condition(
        "force_hf_set",
        "model.force_hf",
        lambda config, model: config.model.force_hf is None and _cannot_convert(config, model),
        "The model's own implementation cannot give its weights tensor by tensor: transformers' "
        "implementation is used, as by model.force_hf=true.",
        "Set model.force_hf=true to say so yourself.",
        severity="warning",
    ),
    Condition(
        "quantized_and_split",
        "peft.quantization",
        lambda config, model: (
            _quantized(config)
            and (config.distributed.tp_size > 1 or config.distributed.ep_size > 1)
        ),
        "Weights in blocks of four or eight bits cannot be split: each process has all of them.",
        "Set distributed.tp_size=1 and distributed.ep_size=1, or leave peft.quantization out.",
    ),
    Condition(
        "quantized_and_offload",
        "distributed.cpu_offload",
        lambda config, model: _quantized(config) and config.distributed.cpu_offload,
        "cpu_offload moves what is sharded, and of a quantized model that is the adapter alone.",
        "Set distributed.cpu_offload=false.",
    ),
    Condition(
        "sequence_parallel_alone",
        "distributed.sequence_parallel",
        lambda config, model: (
            config.distributed.sequence_parallel and config.distributed.tp_size == 1
        ),
        "sequence_parallel does nothing with tp_size 1.",
        "Set distributed.tp_size, or leave sequence_parallel out.",
        severity="warning",
    ),
    Condition(
        "reward_sft",
        "model.reward_model_cfg.enabled",
        lambda config, model: config.model.reward_model_cfg.enabled,
        "The recipe sft predicts tokens, and a reward model scores sequences.",
        "Set model.reward_model_cfg.enabled=false.",
        recipe="sft",
    ),
)
"""All of them."""


def conditions_of(
    config: TrainConfig, model: ModelFacts, *, recipe: str | None = None
) -> Iterator[Condition]:
    """The conditions that a config and its model are in.

    Args:
        config: the run's config.
        model: from `model_facts`.
        recipe: also those of this recipe.
    """
    for condition in CONDITIONS:
        if condition.recipe in (None, recipe) and condition.holds(config, model):
            yield condition


def uses_own_code(config: TrainConfig, model: ModelFacts) -> bool:
    """Whether a model is built by the implementation that it comes with, not by transformers'."""
    wanted = model.own_code and config.model.trust_remote_code and config.model.force_hf is not True
    return wanted and model.converts


def _cannot_convert(config: TrainConfig, model: ModelFacts) -> bool:
    return model.own_code and config.model.trust_remote_code and not model.converts


def _means_experts(pattern: str, model: ModelFacts) -> bool:
    parts = pattern.split(".")
    experts = any("experts" in part and "shared" not in part for part in parts)
    layers = any(fnmatchcase(name, parts[-1]) for name in model.expert_layers)
    return bool(model.experts) and (experts or layers)


def _packs(config: TrainConfig) -> bool:
    return config.packed_sequence.packed_sequence_size > 0


def _quantized(config: TrainConfig) -> bool:
    return config.peft is not None and config.peft.quantization is not None
