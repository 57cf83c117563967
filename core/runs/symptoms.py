"""The failures that people meet, whatever the step and the backend."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Symptom:
    """A cause of failure, how a log tells it, and what to do about it."""

    cause: str
    pattern: re.Pattern[str]
    advice: str


def _symptom(cause: str, pattern: str, advice: str) -> Symptom:
    return Symptom(cause, re.compile(pattern), advice)


SYMPTOMS = (
    _symptom(
        "CUDA out of memory: the GPU's memory ran out",
        r"CUDA out of memory|CUDA error: out of memory|OutOfMemoryError|HIP out of memory"
        r"|CUBLAS_STATUS_ALLOC_FAILED",
        "Set step_scheduler.local_batch_size=1, then distributed.activation_checkpointing=true, "
        "then a shorter dataset.seq_length.",
    ),
    _symptom(
        "out of memory: this machine's memory ran out",
        r"can't allocate memory|Cannot allocate memory|MemoryError|std::bad_alloc|oom[-_]kill"
        r"|Out Of Memory|DefaultCPUAllocator",
        "Use a smaller batch, sequence length or model, fewer dataloader workers, or more memory.",
    ),
    _symptom(
        "disk full",
        r"No space left on device|Errno 28\b|Disk quota exceeded|Errno 122\b",
        "Free some room, set checkpoint.checkpoint_dir to another disk, or keep fewer checkpoints "
        "with checkpoint.keep_last=1.",
    ),
    _symptom(
        "the loss or gradient was not finite (NaN or infinity)",
        r"(?i)non-finite|not finite|\b(?:loss|grad_norm)=[+-]?(?:nan|inf)\b|loss is nan",
        "Use bfloat16 instead of float16, lower optimizer.lr, raise lr_scheduler.lr_warmup_steps, "
        "and look at the batch that is named.",
    ),
    _symptom(
        "W&B API key missing or refused",
        r"api_key not configured|No API key configured|wandb login|wandb: ERROR.*(?:401|API key)",
        "export WANDB_API_KEY and name it in the profile's secrets, or set wandb.mode=offline.",
    ),
    _symptom(
        "gated repository: the token's account may not read it",
        r"GatedRepoError|[Gg]ated repo|Access to (?:model|dataset) .+ is restricted",
        "Accept the license on its hub page with the account of your token, then export HF_TOKEN.",
    ),
    _symptom(
        "token missing or refused by the hub",
        r"LocalTokenNotFoundError|Invalid user token|Invalid (?:username|credentials)|\b401 Client"
        r"|\b401\b.*Unauthorized|HTTP Error 401|\b403 Client Error",
        "Check the token with 'hf auth whoami', and export HF_TOKEN in the shell you launch from.",
    ),
    _symptom(
        "model or dataset not found",
        r"RepositoryNotFoundError|is not a valid model identifier|DatasetNotFoundError"
        r"|does not appear to have a file named|Couldn't find any data file",
        "Check the name or path; a private repository looks missing without HF_TOKEN.",
    ),
    _symptom(
        "port in use: address already in use",
        r"EADDRINUSE|[Aa]ddress already in use",
        "Start it again: another port is taken. If it stays, look for processes of an earlier run.",
    ),
    _symptom(
        "CUDA driver does not fit",
        r"driver version is insufficient|no kernel image is available|NVIDIA driver on your system"
        r" is too old|forward compatibility was attempted",
        "Use a torch build or container image that fits this machine's driver (see nvidia-smi).",
    ),
    _symptom(
        "CUDA not available: no GPU was found",
        r"No CUDA GPUs are available|Torch not compiled with CUDA|CUDA is not available"
        r"|Found no NVIDIA driver|no CUDA-capable device",
        "Check nvidia-smi and CUDA_VISIBLE_DEVICES, or use the CPU: run.env.gpus_per_node=0.",
    ),
    _symptom(
        "shared memory too small",
        r"Bus error|insufficient shared memory|unable to (?:open|write to|allocate) shared memory",
        "Raise shared_memory_size in the profile, or set dataloader.num_workers=0.",
    ),
    _symptom(
        "import error: a Python package is missing or broken",
        r"ModuleNotFoundError|ImportError|cannot import name",
        "Install what is named into the environment of the run; training here needs "
        "pip install 'tunedeck[train]'.",
    ),
    _symptom(
        "command not found",
        r"command not found|tunedeck: cannot start",
        "Check the profile's run_command, setup_lines and PATH.",
    ),
    _symptom(
        "no such file or directory",
        r"FileNotFoundError|No such file or directory",
        "Check the path that is named; where the run is elsewhere, it must exist over there.",
    ),
    _symptom(
        "permission denied",
        r"PermissionError|Permission denied",
        "Check who owns the path that is named, and the folder it is in.",
    ),
    _symptom(
        "missing key: a config or a row lacks a field",
        r"^KeyError: |ConfigKeyError|ConfigAttributeError|MissingMandatoryValue",
        "Check the key that is named against the config and the columns of the dataset.",
    ),
    _symptom(
        "collective timed out: a rank stopped and the others waited (NCCL)",
        r"collective operation timeout|Watchdog caught|nccl(?:System|Remote|Internal)Error"
        r"|NCCL error|NCCL WARN|Connection closed by peer|did not come within dist_env",
        "The cause is in the log of the rank that went first. If none failed, set "
        "NCCL_SOCKET_IFNAME to the right network interface in the profile's env_vars.",
    ),
    _symptom(
        "the network could not be reached",
        r"We couldn't connect to|Max retries exceeded|Temporary failure in name resolution"
        r"|LocalEntryNotFoundError|Network is unreachable|Connection refused",
        "Check the network of the machine it runs on, or give local paths instead of hub ids.",
    ),
)
"""Causes before their consequences: the first that is found is the diagnosis."""
