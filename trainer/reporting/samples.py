"""Answers to fixed prompts, to read how the model changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedModel

from ...core.chat import ChatTokenizer, Message
from ..lines import line, say
from ..parallel.fsdp import let_go

if TYPE_CHECKING:
    from ...core.schema.output import SamplingConfig
    from ..checkpoints.progress import Progress


class Sampler:
    """Prints what the model answers to the prompts of a config.

    Args:
        settings: the prompts.
        model: the model.
        tokenizer: renders the prompts.
        progress: where the run stands; learns which step was sampled.
        stopping: whether the run has been asked to end, which leaves the rest out.
    """

    def __init__(
        self,
        settings: SamplingConfig,
        model: PreTrainedModel,
        tokenizer: ChatTokenizer,
        *,
        progress: Progress,
        stopping: Callable[[], bool],
    ) -> None:
        self._settings, self._model, self._tokenizer = settings, model, tokenizer
        self._progress, self._stopping = progress, stopping

    def __call__(self) -> None:
        """Print the answers after a step, once."""
        step = self._progress.step
        if self._progress.sampled_step == step or self._stopping():
            return
        self._progress.sampled_step = step
        prompts, most = self._settings.prompts, self._settings.max_new_tokens
        for prompt, text in answers(self._model, self._tokenizer, prompts, max_new_tokens=most):
            say(f"sample {line({'step': step, 'prompt': prompt, 'answer': text})}")
            if self._stopping():
                break


def answers(
    model: PreTrainedModel, tokenizer: ChatTokenizer, prompts: Sequence[str], *, max_new_tokens: int
) -> Iterator[tuple[str, str]]:
    """Each prompt as a user message, with the model's most likely answer to it."""
    model.train(False)
    try:
        for prompt in prompts:
            yield prompt, answer(model, tokenizer, prompt, max_new_tokens=max_new_tokens)
    finally:
        let_go(model)
        model.train()


@torch.no_grad()
def answer(
    model: PreTrainedModel,
    tokenizer: ChatTokenizer,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
) -> str:
    """What the model answers to a user message.

    Args:
        model: in evaluation mode.
        tokenizer: renders the message and knows at which tokens an answer ends.
        prompt: the message.
        max_new_tokens: the longest answer.
        temperature: 0 takes the most likely token each time; above, tokens are drawn.

    Raises:
        RowError: the chat template refuses the message.
    """
    message = Message(role="user", content=prompt)
    text = tokenizer.render([message], add_generation_prompt=True).text
    ids = torch.tensor([tokenizer.encode(text).ids], device=model.device)
    out = cast(Any, model).generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature or None,
        use_cache=True,
        eos_token_id=list(tokenizer.stop_ids) or None,
        pad_token_id=tokenizer.pad_id,
    )
    return tokenizer.decode(out[0, ids.shape[1] :].tolist()).strip()
