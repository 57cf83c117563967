"""Setting a run up, as NeMo RL's `nemo_rl.models.automodel.setup` does: five functions, in order.

https://docs.nvidia.com/nemo/rl/latest/apidocs/nemo_rl/nemo_rl.models.automodel.setup.html
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.errors import UsageError
from ..core.schema import TrainConfig
from ..core.schema.mesh import architecture_misfits
from .checkpoints.published import Checkpoints, has_state
from .config_file import as_table
from .device import STRING_TO_DTYPE, device_of, formats_for
from .model.attention import SHARED, attends_by_document, keeps_rows_apart
from .model.build import (
    attention_of,
    build_model,
    check_vocabulary,
    freeze,
)
from .model.implementation import settle_implementation
from .model.kinds import Kind, class_of, kind_of
from .model.lean import use_lean_functions
from .model.lora import add_adapter, check_adapter, load_adapter
from .model.quantize import check_quantized
from .model.tokenizer import get_tokenizer
from .parallel.apply import parallelize
from .parallel.context import DistributedContext
from .parallel.experts import check_expert_parallel
from .parallel.load import load_weights, make_weights
from .parallel.mesh import check_mesh, join, launched_world
from .parallel.meta import empty_model, generates_as, hollow, place_tables, stand_ins
from .parallel.sequences import check_context_parallel
from .parallel.tensor import check_tensor_parallel
from .parallel.tensors import local
from .runtime import ModelAndOptimizerState, RuntimeConfig
from .update.optim import build_optimizer
from .update.schedule import Schedule

__all__ = [
    "STRING_TO_DTYPE",
    "ConfigError",
    "get_tokenizer",
    "setup_distributed",
    "setup_model_and_optimizer",
    "setup_reference_model_state",
    "validate_and_prepare_config",
]


class ConfigError(UsageError, ValueError, RuntimeError):
    """A config that no run can be set up by; the page has it as ValueError and RuntimeError."""


def validate_and_prepare_config(
    config: TrainConfig | Mapping[str, Any], processor: Any | None, rank: int
) -> RuntimeConfig:
    """Decide what the config leaves to the machine, before anything large is loaded.

    Args:
        config: the run's config, or its keys.
        processor: a multimodal processor; None for text.
        rank: this process.

    Raises:
        ConfigError: the config is none, its settings contradict each other, or it asks for what
            this machine or this trainer cannot do.
    """
    try:
        return _runtime(as_table(TrainConfig, config), processor, rank)
    except UsageError as error:
        raise ConfigError(error.message, place=error.place, fix=error.fix) from error


def _runtime(config: TrainConfig, processor: Any | None, rank: int) -> RuntimeConfig:
    check_mesh(config)
    check_quantized(config, launched_world())
    device = device_of(rank)
    model_config, remote = settle_implementation(config, vision=processor is not None)
    labels = model_config.num_labels
    kind = kind_of(config.model, model_config)
    if processor is not None and kind is Kind.TEXT:
        raise UsageError(
            f"There is a processor, and '{model_config.model_type}' takes no images.",
            fix="Give None for the processor, or choose a vision model.",
        )
    model_class = class_of(kind, model_config, remote=remote)
    packs = config.packed_sequence.packed_sequence_size > 0
    if packs and not keeps_rows_apart(model_class, model_config):
        raise UsageError(
            f"packed_sequence.packed_sequence_size: '{model_config.model_type}' has layers that "
            "carry one row into the next where rows share a sequence.",
            fix="Set packed_sequence.packed_sequence_size=0.",
        )
    attention = attention_of(config.model, model_class, model_config)
    if config.distributed.cp_size > 1:
        check_context_parallel(model_class, model_config)
        attention = SHARED
    if config.distributed.ep_size > 1:
        check_expert_parallel(model_config)
    if config.distributed.tp_size > 1:
        check_tensor_parallel(model_config)
    for misfit in architecture_misfits(config.distributed, model_config.to_dict()):
        raise UsageError(f"{misfit.key}: {misfit.message}", fix=misfit.fix)
    if processor is not None:
        check_vocabulary(model_config, len(processor.tokenizer))
    dtype, autocast = formats_for(config, device)
    return RuntimeConfig(
        model_config=model_config,
        model_class=model_class,
        dtype=dtype,
        attn_impl=attention,
        device=device,
        autocast=autocast,
        max_grad_norm=config.optimizer.max_grad_norm,
        kind=kind,
        own_code=remote,
        hf_config_overrides=(
            {} if model_config.num_labels == labels else {"num_labels": model_config.num_labels}
        ),
        allow_flash_attn_args=attends_by_document(model_class, model_config),
        enable_seq_packing=packs,
        cpu_offload=config.distributed.cpu_offload,
    )


def setup_distributed(
    config: TrainConfig | Mapping[str, Any], runtime_config: RuntimeConfig
) -> DistributedContext:
    """Join the other processes of the run, which torchrun started, and lay out the mesh.

    Raises:
        UsageError: the mesh does not fit the number of processes.
        TunedeckError: the others could not be met in time.
    """
    return join(as_table(TrainConfig, config), runtime_config.device)


def setup_model_and_optimizer(
    config: TrainConfig | Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    runtime_config: RuntimeConfig,
    distributed_context: DistributedContext,
    checkpoint_manager: Checkpoints,
    is_vlm: bool = False,
    init_optimizer: bool = True,
    weights_path: str | Path | None = None,
    optimizer_path: str | Path | None = None,
    *,
    total_steps: int | None = None,
) -> ModelAndOptimizerState:
    """Load the model, put adapters in, apply parallelism from outside, and build the optimizer.

    Args:
        config: the run's config, or its keys.
        tokenizer: the model's tokenizer.
        runtime_config: from `validate_and_prepare_config`.
        distributed_context: from `setup_distributed`.
        checkpoint_manager: restores `weights_path` and `optimizer_path`.
        is_vlm: the caller means a model that takes images, and any other is refused.
        init_optimizer: build optimizer and learning rate; off for inference.
        weights_path: checkpoint folder whose weights are used in place of the model's own: its
            shards, else its Hugging Face or PEFT form.
        optimizer_path: checkpoint folder whose optimizer state is used.
        total_steps: the length of the run, which the learning rate is spread over; None takes
            `step_scheduler.max_steps`.

    Raises:
        UsageError: weights do not fit, nothing is trainable, or the run's length is not known.
    """
    config = as_table(TrainConfig, config)
    if is_vlm and runtime_config.kind is not Kind.VISION:
        raise UsageError(
            f"is_vlm is set, and '{runtime_config.model_config.model_type}' takes no images.",
            fix="Choose a vision model.",
        )
    steps = total_steps or config.step_scheduler.max_steps
    if init_optimizer and steps is None:
        raise UsageError(
            "The length of the run is not known, which the learning rate is spread over.",
            fix="Set step_scheduler.max_steps, or give total_steps.",
        )
    weights_path = Path(weights_path) if weights_path is not None else None
    optimizer_path = Path(optimizer_path) if optimizer_path is not None else None
    check_vocabulary(runtime_config.model_config, len(tokenizer))
    source: str | None = config.model.pretrained_model_name_or_path
    has_shards = weights_path is not None and has_state(weights_path)
    if weights_path is not None and config.peft is None and not has_shards:
        source = str(weights_path)
    alone = distributed_context.device_mesh is None
    # A whole model that is continued has all its weights from the checkpoint.
    continued = has_shards and config.peft is None
    quantization = config.peft.quantization if config.peft is not None else None
    # New weights, of which a reward model has some over any base, are made after the adapters, on
    # any number of ranks, so that both are the same. In four or eight bits the base lies whole on
    # every rank.
    scores = runtime_config.kind is Kind.REWARD and config.peft is not None
    new = source is None or scores
    whole = quantization is not None or (alone and not new and not continued)
    if config.peft is not None or not whole:
        model = empty_model(runtime_config)
    if config.peft is not None:
        # Wrong names are found before anything is loaded.
        check_adapter(model, config.peft, config.model)
    if whole:
        model = build_model(config.model, runtime_config, source, quantization)
    if runtime_config.kind is Kind.REWARD:
        # The score is read off each row's last token that is none.
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    freeze(model, config.model.freeze)
    adapter = None
    if config.peft is not None:
        with nullcontext() if whole else stand_ins(model):
            adapter = add_adapter(model, config.peft, config.model)
    if runtime_config.device.type == "cpu":
        use_lean_functions(model)
    products = runtime_config.autocast or runtime_config.dtype
    parallelize(model, distributed_context, config.distributed, products)
    if not whole:
        _give_weights(model, config, runtime_config.device, source, continued=continued)
        if alone:
            # Adapters were made on the CPU.
            nn.Module.to(model, runtime_config.device)
    if weights_path is not None:
        if has_shards:
            checkpoint_manager.load_weights(model, adapter, weights_path)
        elif adapter is not None:
            load_adapter(adapter, weights_path)
    optimizer = scheduler = None
    if init_optimizer and steps is not None:
        optimizer = build_optimizer(model, config.optimizer)
        scheduler = Schedule(config.optimizer.lr, config.lr_phases(), steps)
        if optimizer_path is not None:
            checkpoint_manager.load_optimizer(optimizer, model, optimizer_path)
    return ModelAndOptimizerState(model, adapter, optimizer, scheduler, runtime_config)


def _give_weights(
    model: PreTrainedModel,
    config: TrainConfig,
    device: torch.device,
    source: str | None,
    *,
    continued: bool,
) -> None:
    """Fill a model that was laid out empty: each rank reads or makes its own pieces.

    Args:
        model: laid out over the ranks; adapters may be inside.
        config: the run's config.
        device: where the model computes.
        source: what the weights are read from; None makes new ones.
        continued: leave room for those that a checkpoint is about to bring.
    """
    place = torch.device("cpu") if config.distributed.cpu_offload else device
    if continued:
        hollow(model, place)
    elif source is None:
        make_weights(model, place)
    else:
        load_weights(model, source, config.model.revision, place)
    place_tables(model, device)
    if source is not None:
        generates_as(model, source, config.model.revision)


def setup_reference_model_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of a model's weights in main memory, for a reference that stays as the model was.

    Returns:
        Name to tensor on the CPU, of sharded weights this rank's piece; pinned where a GPU will
        fetch them.
    """
    pinned = torch.cuda.is_available()
    copies = {}
    for name, tensor in model.state_dict().items():
        piece = local(tensor)
        copy = torch.empty_like(piece, device="cpu", pin_memory=pinned)
        copies[name] = copy.copy_(piece)
    return copies
