"""What runs on the machines that train: the recipes, in torch.

In an afternoon a run can be read from its command to its checkpoint, about 2,600 lines:

1. `__main__` picks the recipe; `sft` is that recipe, from the config to the result.
2. `setup` decides what the config leaves to the machine, joins the processes, makes model and
   optimizer, and hands them on as `runtime` has them.
3. `data.prepare` makes tokens of chats, once; `data.order` says which is the n-th sample of a run,
   `data.batches` makes the micro-batches of a step of them, `data.assemble` joins the three.
4. `loop` trains. `stepping` takes its steps, `update.step` is one, `update.loss` the loss in it.
   What a step came to is read later, in `reporting.accounts`, so that no GPU is waited for.
5. `checkpoints.saving` says which steps are saved and what a failure means, `checkpoints.writer`
   how all processes write one.

The other files answer a question each, and are read when it comes up:

- `data`: packs, rows that are streamed, caches.
- `model`: building, adapters, quantization, attention over packed documents, and parts of a model
  that compute faster than its own.
- `parallel`: how model and rows are laid out over processes; `parallel.apply` has the order.
- `update`: gradients that are not finite, memory that runs out, optimizer and learning rate.
- `checkpoints`: what is in one, in which forms, and how a run goes on from it.
- `reporting`: validation, answers, metric lines, the ledger, and steps that are repeated.
- `merging`, `prove`, `answer`: what else is done with a model, beside training.
- `preempt`, `agreement`, `failure`: ending in time, together, and in words.
- `torchrun`, `exit_file`, `rank_lines`, `lines`, `device`, `config_file`: a process, what surrounds
  it and what it says.
"""
