"""The recipe `sft`: supervised fine-tuning of a whole model or of an adapter."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import nn

from ..core.chat import ChatTokenizer
from ..core.errors import ExitCode
from ..core.files import write_atomic
from ..core.schema import TrainConfig
from ..core.schema.continuing import ROWS, data_order
from .agreement import VALIDATION_ROWS, check_same_content
from .checkpoints.progress import Progress
from .checkpoints.published import Checkpoints
from .checkpoints.restoring import Restored
from .checkpoints.saving import Saver, expected_seconds
from .checkpoints.weights import Weights, find_base, find_processor
from .data.assemble import TrainingRows, layout_of, prepare_table, training_rows
from .data.batches import Collate
from .data.streaming import StreamedRows
from .data.tokens import ChatFormat
from .lines import line, say
from .loop import Ending, TrainingLoop
from .model.cpu import use_fast_products
from .model.implementation import check_recipe
from .model.tokenizer import tokenizer_of
from .parallel.context import DistributedContext
from .parallel.mesh import first_on_each_machine, launched_rank, leave
from .parallel.share import Share
from .preempt import StopRequest
from .reporting import tracking
from .reporting.bar import progress_bar
from .reporting.plain import plain
from .reporting.validator import ValidationSet
from .runtime import ModelAndOptimizerState, RuntimeConfig
from .setup import (
    setup_distributed,
    setup_model_and_optimizer,
    validate_and_prepare_config,
)
from .update.out_of_memory import MicroBatches


def main(
    config: TrainConfig,
    run_dir: Path,
    *,
    stop: StopRequest | None = None,
    then: Callable[[ModelAndOptimizerState], None] | None = None,
) -> int:
    """Train as the config says.

    Args:
        config: the run's config.
        run_dir: where `result.json` and, unless the config says otherwise, checkpoints go.
        stop: has listened for signals so far; made here where nothing has.
        then: called with the model as it is when the training is over.

    Returns:
        The exit code: 0, or the one of a request to stop.

    Raises:
        TunedeckError: config or data are wrong, or training failed.
    """
    stop = stop or StopRequest()
    stop.listen(config.checkpoint.preempt_signals)
    tracking.check(config.wandb)
    check_recipe(config)
    runtime = validate_and_prepare_config(config, None, rank=launched_rank())
    try:
        context = setup_distributed(config, runtime)
        exit_code = _train(config, run_dir, stop, runtime, context, then)
    except BaseException:
        leave(failed=True)
        raise
    leave()
    return exit_code


def _train(
    config: TrainConfig,
    run_dir: Path,
    stop: StopRequest,
    runtime: RuntimeConfig,
    context: DistributedContext,
    then: Callable[[ModelAndOptimizerState], None] | None,
) -> int:
    """Train on this process's share of the data; all processes of the run do so together."""
    _seed(config)
    _quiet()
    if runtime.device.type == "cpu":
        use_fast_products()
    path = config.checkpoint.restore_from
    restored = Restored(path, context) if path else None
    restored_from = restored.folder if restored is not None else None
    tokenizer = tokenizer_of(config)
    order = data_order(config, tokenizer.chat_template)
    if restored is not None:
        restored.check_order(order)
    chat_format = ChatFormat.of(tokenizer, config.tokenizer.chat_template_kwargs)
    chat = chat_format.open()
    share = Share(context.data_rank, context.sizes.data_ranks)
    data, validation = _prepare(config, chat_format, chat, runtime, context, share)
    progress = restored.progress if restored is not None else Progress()
    total_steps = data.total_steps(config)
    checkpoints = Checkpoints(
        Path(config.checkpoint.checkpoint_dir or run_dir / "checkpoints"),
        keep_last=config.checkpoint.keep_last,
    )
    if config.checkpoint.enabled and context.main:
        checkpoints.try_folder()
    state = setup_model_and_optimizer(
        config,
        tokenizer,
        runtime,
        context,
        checkpoints,
        total_steps=total_steps,
        weights_path=restored_from,
        optimizer_path=restored_from,
    )
    _announce(state.model, total_steps, context.world_size)
    for _, words in config.remarks():
        say(f"tunedeck: warning: {words}")
    base = find_base(config.model)
    digest = base.digest if base is not None else None
    check_same_content({"model.pretrained_model_name_or_path": digest}, context)
    if restored is not None:
        restored.check_base(base)
        say(f"tunedeck: resumed from {restored_from} after step {progress.step}")
        if progress.step >= total_steps:
            said = f"nothing is left to train: the config comes to {total_steps} steps"
            say(f"tunedeck: warning: {said} (step_scheduler.max_steps, num_epochs)")

    loader = data.loader(config, progress, share=share, pin=runtime.device.type == "cuda")
    tracker = tracking.Tracker(config, run_dir, main=context.main)
    weights = Weights(
        state.model,
        state.adapter,
        tokenizer,
        base,
        processor=find_processor(config.model),
    )
    saver = Saver(
        config.checkpoint,
        checkpoints,
        state,
        weights,
        context,
        order,
        saved=progress.step or None,
    )
    loop = TrainingLoop(
        config,
        run_dir,
        state=state,
        data=data,
        loader=loader,
        validation=validation,
        tokenizer=chat,
        saver=saver,
        progress=progress,
        tracker=tracker,
        stop=stop,
        context=context,
        sizes=MicroBatches(
            config, runtime, context, folder=checkpoints.folder, restored=restored_from
        ),
    )
    if restored is not None:
        restored.set_random_state(config.rng.seed)
    elif context.seed_offset:
        # Other tokens, other dropout. What was drawn before was for all the same.
        torch.manual_seed(config.rng.seed + context.seed_offset * 2**32)
    exit_code = int(ExitCode.FAILURE)
    stop.agree = context.most
    stop.expect(save=expected_seconds(state))
    stop.training = True
    try:
        with progress_bar(progress, total_steps):
            ending = loop.run()
        if then is not None:
            then(state)
        exit_code = stop.exit_code if ending is Ending.STOPPED else 0
    finally:
        saver.close()
        tracker.finish(exit_code)
    if context.main:
        untouched = restored is not None and restored.progress.step == progress.step
        held = restored_from if untouched else None
        _report(config, run_dir, checkpoints, progress, ending, held)
    return exit_code


def _quiet() -> None:
    """Progress bars of libraries have no place in a log."""
    transformers.utils.logging.disable_progress_bar()


def _seed(config: TrainConfig) -> None:
    torch.manual_seed(config.rng.seed)
    if config.rng.deterministic:
        # cuBLAS reads it when its first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)


def _prepare(
    config: TrainConfig,
    chat_format: ChatFormat,
    chat: ChatTokenizer,
    runtime: RuntimeConfig,
    context: DistributedContext,
    share: Share,
) -> tuple[TrainingRows | StreamedRows, ValidationSet | None]:
    """The rows that are trained on and those of the validation, the same on all ranks."""
    data: TrainingRows | StreamedRows
    blend = None
    with first_on_each_machine(context, config.dist_env.timeout):
        if config.dataset.streaming:
            data = StreamedRows(config, chat_format, chat, runtime)
        else:
            data = training_rows(config, chat_format, chat, runtime)
        if (table := config.validation_dataset) is not None:
            blend = prepare_table("validation_dataset", table, config, chat_format, runtime)
    contents = {"tokenizer.name": chat_format.digest, ROWS: data.digest}
    if blend is not None:
        contents[VALIDATION_ROWS] = blend.digest
    check_same_content(contents, context)
    if blend is None:
        return data, None
    size = config.step_scheduler.local_batch_size
    layout = layout_of(config, chat, runtime, len(blend.names))
    collate = Collate(blend.rows, size, layout, share=share)
    return data, ValidationSet(blend.rows, blend.names, layout, collate, size * share.of)


def _announce(model: nn.Module, total_steps: int, world_size: int) -> None:
    parameters = list(model.parameters())
    counts = {
        "total_steps": total_steps,
        "world_size": world_size,
        "model_params": sum(p.numel() for p in parameters),
        "trainable_params": sum(p.numel() for p in parameters if p.requires_grad),
    }
    say(f"tunedeck: {line(counts)}")


def _report(
    config: TrainConfig,
    run_dir: Path,
    checkpoints: Checkpoints,
    progress: Progress,
    ending: Ending,
    held: Path | None,
) -> None:
    """Say where the result lies, and leave it for the launcher in `result.json`.

    A run that had nothing left to train has it where it came from, in `held`.
    """
    latest, best = checkpoints.target("latest") or held, checkpoints.target("best")
    kind = "adapter" if config.peft is not None else "model"
    if product := best or latest:
        say(f"tunedeck: the {kind} is in {product}")
        if not any(product.glob("*.safetensors")):
            tool = "python -m tunedeck.trainer consolidate"
            say(f"tunedeck: its Hugging Face form is not made yet: {tool} {product}")
    elif not config.checkpoint.enabled:
        say(f"tunedeck: the {kind} was not saved, as checkpoint.enabled=false has it")
    result = {
        "ending": str(ending),
        "kind": kind,
        "steps": progress.step,
        "checkpoint": None if latest is None else str(latest),
        "best_checkpoint": None if best is None else str(best),
        "base": config.model.pretrained_model_name_or_path,
        "train_loss": progress.loss,
        "first_val_loss": progress.first_val_loss,
        "val_loss": progress.val_loss,
        "best_val_loss": progress.best_val_loss,
    }
    write_atomic(run_dir / "result.json", json.dumps(plain(result), indent=2) + "\n")
