"""What a model's own files say of it, read without torch and without running any of its code."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, NamedTuple

_CAUSAL = "AutoModelForCausalLM"


class ModelFacts(NamedTuple):
    """A model, as far as a run's settings depend on it.

    Attributes:
        model_type: the architecture's name in transformers.
        vision: whether it takes images.
        own_code: whether it comes with its own implementation of itself, in Python.
        converts: whether that implementation can give its weights tensor by tensor in Hugging
            Face's form: it stores them so, or has an adapter with `convert_single_tensor_to_hf`.
            True where its code cannot be read.
    """

    model_type: str
    vision: bool = False
    own_code: bool = False
    converts: bool = True


def model_facts(config: Mapping[str, Any], code: str | None = None) -> ModelFacts:
    """The facts of a model.

    Args:
        config: its `config.json`.
        code: the file that `own_code_file` names, where it is at hand.
    """
    return ModelFacts(
        str(config.get("model_type") or ""),
        vision=isinstance(config.get("vision_config"), Mapping),
        own_code=_CAUSAL in (config.get("auto_map") or {}),
        converts=code is None or _converts(code),
    )


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
