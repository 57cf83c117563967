"""Work that all ranks do, each its part, and of which all hear whether it was done everywhere."""

from __future__ import annotations

import errno
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from torch import distributed as dist
from torch.distributed.checkpoint.api import CheckpointException

from .parallel.context import DistributedContext

_PATIENCE = timedelta(hours=6)
"""A rank may wait so long for the others to read or write what is theirs."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


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
