"""What all ranks hear of each other: whether work was done everywhere, and where they differ."""

from __future__ import annotations

import errno
import json
import textwrap
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from ..core.errors import UsageError
from ..core.keys import dotted, leaf_paths
from ..core.schema import TrainConfig
from ..core.schema.continuing import ROWS
from ..core.secrets import MASK, is_secret_name, shows_secret
from .parallel.context import DistributedContext

_PATIENCE = timedelta(hours=6)
"""A rank may wait so long for the others to read or write what is theirs."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
VALIDATION_ROWS = "validation_dataset.path_or_dataset_id"
_BY_CONTENT = (ROWS, VALIDATION_ROWS)
"""Each node may have them in a place of its own: their rows are compared, not their names."""
_SHOWN = 60
"""Characters of a value in a message."""


class Failure(NamedTuple):
    """Why a rank could not do its part.

    Attributes:
        rank: which one it was; None for a run of one process.
        number: the system's number of the error, where it has one.
        words: what to tell.
    """

    rank: int | None
    number: int | None
    words: str

    @property
    def full(self) -> bool:
        """Whether there was no room."""
        return self.number in _FULL

    def __str__(self) -> str:
        return self.words if self.rank is None else f"rank {self.rank}: {self.words}"


class FailedSomewhereError(Exception):
    """A rank could not do its part."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Together:
    """Lets all ranks work and agree on what came of it.

    It has a group of its own on the CPU, so that a thread may use it while the training
    communicates. All ranks make it together.

    Args:
        context: the ranks.
    """

    def __init__(self, context: DistributedContext) -> None:
        self.rank, self.ranks = context.rank, context.world_size
        self.group = dist.new_group(backend="gloo", timeout=_PATIENCE) if self.ranks > 1 else None

    def __call__(self, work: Callable[[], Any], *, main_only: bool = False) -> list[Any]:
        """Do something on all ranks; what it came to on each, by rank.

        Args:
            work: what is done.
            main_only: the others wait for the first rank alone to do it.

        Raises:
            FailedSomewhereError: on all ranks, if one of them failed.
        """
        done, cause = None, None
        try:
            done = work() if self.rank == 0 or not main_only else None
        # Whatever it is: the others wait to hear of it.
        except (Exception, CheckpointException) as error:  # noqa: BLE001
            done, cause = self._failure(error), error
        results = [done]
        if self.group is not None:
            results = [None] * self.ranks
            dist.all_gather_object(results, done, group=self.group)
        failures = [result for result in results if isinstance(result, Failure)]
        if failures:
            raise FailedSomewhereError(failures[0]) from cause
        return results

    def _failure(self, error: BaseException) -> Failure:
        """What went wrong, and the system's number of it, however deep in the causes it is."""
        rank = self.rank
        if isinstance(error, CheckpointException):
            rank, (error, _) = next(iter(error.failures.items()))
        where = rank if self.group is not None else None
        found: BaseException | None = error
        while found is not None and not (isinstance(found, OSError) and found.errno):
            found = found.__cause__ or found.__context__
        if isinstance(found, OSError):
            name = f": {found.filename}" if found.filename else ""
            return Failure(where, found.errno, f"{found.strerror}{name}")
        said = str(error).partition("\n")[0]
        return Failure(where, None, said or type(error).__name__)


class Difference(NamedTuple):
    """Where a rank is not like the first one.

    Attributes:
        rank: which one it is.
        key: what differs.
        there, first: its value there and on the first rank; None where there is none.
    """

    rank: int
    key: str
    there: Any
    first: Any


def difference(ranks: Sequence[Mapping[str, Any]]) -> Difference | None:
    """The first value that is not the first rank's; None if all are alike.

    Args:
        ranks: the values of each rank by key.
    """
    first = ranks[0]
    for rank, values in enumerate(ranks):
        for key in {**first, **values}:
            there, here = values.get(key), first.get(key)
            if there != here:
                return Difference(rank, key, there, here)
    return None


def check_same_config(config: TrainConfig) -> None:
    """See that all processes were started with the same config; all ask together, once they met.

    Raises:
        UsageError: on all of them, if one was not.
    """
    leaves = leaf_paths(config.model_dump(mode="json"))
    values = {dotted(path): value for path, value in leaves}
    found = _gathered({key: v for key, v in values.items() if key not in _BY_CONTENT})
    if found is not None:
        key = found.key
        there, first = _shown(key, found.there), _shown(key, found.first)
        raise UsageError(
            f"Process {found.rank} was started with another config: {key} is {there} there and "
            f"{first} on the first process.",
            fix="Start all processes from the same file, with the same overrides.",
        )


def check_same_content(contents: Mapping[str, str | None], context: DistributedContext) -> None:
    """See that all ranks found the same where the config says to look; all ask together.

    Args:
        contents: by the key that names it, a digest of it; None if it has none.
        context: the ranks.

    Raises:
        UsageError: on all of them, if one found something else.
    """
    found = _gathered(contents) if context.world_size > 1 else None
    if found is not None:
        raise UsageError(
            f"Process {found.rank} found something else under {found.key} than the first process.",
            fix="Bring the same files to all nodes, or name a folder that they share.",
        )


def _gathered(values: Mapping[str, Any]) -> Difference | None:
    ranks: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(ranks, dict(values))
    return difference(ranks)


def _shown(key: str, value: Any) -> str:
    """A value in a message: in one line, short, and no secret."""
    if is_secret_name(key) or shows_secret(value):
        return MASK
    text = value if isinstance(value, str) else json.dumps(value)
    return textwrap.shorten(text, _SHOWN, placeholder="…") or "empty"
