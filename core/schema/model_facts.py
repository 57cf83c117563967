"""What a model's own files say of it, read without torch and without running any of its code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, NamedTuple

_CAUSAL = "AutoModelForCausalLM"
_ATTENTION = {"full_attention", "sliding_attention", "attention"}
_LAYER_KINDS = ("layer_types", "layers_block_type", "block_types")
"""Where a `config.json` lists what each of its layers is."""
_RECURRENT_SIZES = (
    *("mamba_d_state", "mamba_d_conv", "ssm_state_size", "state_size", "ssm_cfg"),
    *("linear_conv_kernel_dim", "linear_attn_config", "conv_L_cache", "hybrid_override_pattern"),
)
"""Sizes that only layers have which carry a state along the sequence."""
_RECURRENT = frozenset(
    (
        *("axk2", "bailing_hybrid", "bamba", "deepseek_v32", "deepseek_v4", "dots3_note"),
        *("falcon_h1", "falcon_mamba", "glm5_next", "glm_moe_dsa", "granitemoehybrid"),
        *("hy_v4", "inkling", "inkling2", "jamba", "kimi_linear", "lfm2", "lfm2_moe"),
        *("lfm2_vl", "lfm3", "llama4", "mamba", "mamba2", "minicpm_ocr", "minicpmv4_6"),
        *("minicpmv4_7", "minimax", "mistral_large4", "nemotron_h", "nemotron_h_omni"),
        *("olmo_hybrid", "qwen3_5", "qwen3_5_moe", "qwen3_next", "qwen4_exp"),
        *("recurrent_gemma", "rwkv", "unlimited_ocr", "xlstm", "zamba", "zamba2", "zaya"),
    )
)
"""Architectures of transformers with layers other than attention over a whole document (state
spaces, convolutions, linear or chunked or compressed attention): several of them leave the kinds of
their layers out of `config.json`."""
_ENCODERS = frozenset(
    (
        *("bert", "bert-generation", "big_bird", "camembert", "cpmant", "data2vec-text"),
        *("electra", "ernie"),
        *("megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer"),
        *("xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xmod"),
    )
)
"""Architectures whose attention sees the tokens that follow."""
_UNAWARE = frozenset(
    (
        *("bart", "bigbird_pegasus", "biogpt", "blenderbot", "blenderbot-small", "bloom", "blt"),
        *(
            "evolla",
            "falcon",
            "git",
            "gpt_neo",
            "marian",
            "mbart",
            "mpt",
            "mvp",
            "openai-gpt",
            "pegasus",
        ),
        *("plbart", "prophetnet", "reformer", "trocr", "whisper", "xglm"),
    )
)
"""Architectures of transformers whose attention is their own and is not told where one row of a
sequence ends: rows would see each other."""
_BY_BOUNDARIES = frozenset(("afmoe", "gpt_oss", "opt"))
"""Architectures of transformers that leave positions out of their masks, which so do not say where
one row of a sequence ends: attention that is told otherwise keeps rows apart."""
_BY_MASK = frozenset(("codegen", "doge", "gpt_neox_japanese", "gptj", "nemotron", "stablelm"))
"""Those whose attention is told by a mask alone."""
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_EXPERT_LAYERS = {
    ("gate", "gate_up_proj", "down_proj", "w1", "w2", "w3"): ("minimax", "minimax_m2", "mixtral"),
    ("gate", "gate_up_proj", "down_proj", "gate_proj", "up_proj"): (
        *("afmoe", "beam", "cohere2_moe", "deepseek_v2", "deepseek_v3", "deepseek_v32", "dots1"),
        *("ernie4_5_moe", "exaone_moe", "flex_olmo", "glm4_moe", "glm4_moe_lite", "glm4v_moe"),
        *("glm_moe_dsa", "hunyuan_v1_moe", "longcat_flash", "mellum", "olmoe", "qwen3_moe"),
        *("qwen3_next", "qwen3_omni_moe", "qwen3_omni_moe_text", "qwen3_omni_moe_thinker"),
        "solar_open",
    ),
}
"""What PEFT takes for the experts of a layer, which transformers keeps in one tensor, or for their
router, also where a dense layer is called so; and in which architectures."""


class ModelFacts(NamedTuple):
    """A model, as far as a run's settings depend on it.

    Attributes:
        model_type: the architecture's name in transformers.
        vision: whether it takes images.
        carries: whether it has layers that carry one row into the next where rows share a sequence.
        mixes: the attention kernels by which rows that share a sequence would see each other.
        encodes: whether it is an encoder, which sees the tokens that it would predict.
        translates: whether it is an encoder with a decoder, which predicts no next token.
        experts: how many experts a layer has; None where its config does not say that.
        expert_layers: names of layers that mean the experts of a layer, or their router.
        quantized: whether its weights are stored in blocks of few bits, or in eight.
        own_code: whether it comes with its own implementation of itself, in Python.
        converts: whether that implementation can give its weights tensor by tensor in Hugging
            Face's form: it stores them so, or has an adapter with `convert_single_tensor_to_hf`.
            True where its code cannot be read.
    """

    model_type: str
    vision: bool = False
    carries: bool = False
    mixes: tuple[str, ...] = ()
    encodes: bool = False
    translates: bool = False
    experts: int | None = None
    expert_layers: tuple[str, ...] = ()
    quantized: bool = False
    own_code: bool = False
    converts: bool = True


def model_facts(config: Mapping[str, Any], code: str | None = None) -> ModelFacts:
    """The facts of a model.

    Args:
        config: its `config.json`.
        code: the file that `own_code_file` names, where it is at hand.
    """
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else config
    kind = str(config.get("model_type") or "")
    return ModelFacts(
        kind,
        vision=isinstance(config.get("vision_config"), Mapping),
        carries=_carries(config) or _carries(text),
        mixes=_mixes(str(text.get("model_type") or kind)),
        encodes=kind in _ENCODERS,
        translates=config.get("is_encoder_decoder") is True,
        experts=next((text[k] for k in _EXPERTS if isinstance(text.get(k), int)), None),
        expert_layers=next((names for names, of in _EXPERT_LAYERS.items() if kind in of), ()),
        quantized=bool(config.get("quantization_config")),
        own_code=_CAUSAL in (config.get("auto_map") or {}),
        converts=code is None or _converts(code),
    )


def _carries(config: Mapping[str, Any]) -> bool:
    """Whether a table of a `config.json` is of an architecture that cannot keep rows apart."""
    name = str(config.get("model_type") or "").removesuffix("_text")
    if name in _RECURRENT | _UNAWARE or any(config.get(key) for key in _RECURRENT_SIZES):
        return True
    kinds = next((config[key] for key in _LAYER_KINDS if config.get(key)), ())
    return isinstance(kinds, list | tuple) and not _ATTENTION.issuperset(map(str, kinds))


def _mixes(name: str) -> tuple[str, ...]:
    if name in _BY_BOUNDARIES:
        return ("eager", "sdpa")
    return ("flash_attention_2", "flash_attention_3") if name in _BY_MASK else ()


def own_code_file(config: Mapping[str, Any]) -> str | None:
    """The file beside `config.json` that holds a model's own implementation, if it is there.

    An implementation in another repository (`owner/name--modeling_x.XForCausalLM`) is not.
    """
    name = (config.get("auto_map") or {}).get(_CAUSAL)
    if not isinstance(name, str) or "--" in name or "." not in name:
        return None
    return f"{name.partition('.')[0]}.py"


def _converts(code: str) -> bool:
    """Whether an implementation has no state dict adapter, or one that converts single tensors.

    The rule of NeMo RL's `_maybe_set_force_hf`, read from the source instead of the loaded class.
    """
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError):
        return True
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    adapts = "state_dict_adapter" in names | functions
    return not adapts or "convert_single_tensor_to_hf" in functions
