"""A few processes that stay, and run what they are given as the ranks of a run.

Importing torch and transformers takes longer than the tests themselves, so it is done once, by the
process that they are forked from.
"""

from __future__ import annotations

import contextlib
import gc
import io
import multiprocessing
import os
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.ports import held_port

LIMIT = 300.0
"""Seconds for all ranks to answer."""
GRACE = 5.0
"""Seconds for the others to answer when one has failed; what they wait for may never come."""


class Workers:
    """Processes on this machine that can meet as the ranks of a run, over and over.

    Args:
        first: what each of them calls before it imports torch. They are then started anew.
    """

    def __init__(self, first: Callable[[], None] | None = None) -> None:
        self._first = first
        self._processes: list[Any] = []
        self._pipes: list[Connection[Any, Any]] = []
        self._held = socket.socket()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)
            process.kill()

    def _start(self, count: int) -> None:
        context: Any = multiprocessing.get_context("spawn" if self._first else "forkserver")
        if self._first is None:
            context.set_forkserver_preload(["tunedeck.trainer.sft"])
        while len(self._processes) < count:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._first), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._pipes.append(ours)

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        pid: int = self._processes[rank].pid
        return pid

    def send(self, ranks: int, function: Callable[..., Any], *arguments: Any) -> None:
        """Let so many ranks call a function of a module; `take` gets what comes of it."""
        self._start(ranks)
        self._held.close()
        self._held = held_port()
        port = self._held.getsockname()[1]
        for rank in range(ranks):
            env: dict[str, object] = {}
            if ranks > 1:
                env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks}
                env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            self._pipes[rank].send((function, arguments, {k: str(v) for k, v in env.items()}))

    def take(self, ranks: int) -> list[tuple[Any, str]]:
        """What each rank returned and printed.

        Raises:
            AssertionError: a rank raised, ended, or did not answer in time.
        """
        heard: dict[int, tuple[Any, str, str]] = {}
        waited: dict[Any, int] = {pipe: rank for rank, pipe in enumerate(self._pipes[:ranks])}
        until = time.monotonic() + LIMIT
        while waited and (left := until - time.monotonic()) > 0:
            for pipe in wait(list(waited), left):
                rank = waited.pop(pipe)
                heard[rank] = self._hear(rank)
                if heard[rank][2]:
                    until = min(until, time.monotonic() + GRACE)
        errors = [f"rank {rank}: {error}" for rank, (_, _, error) in sorted(heard.items()) if error]
        errors += [f"rank {rank} does not answer" for rank in waited.values()]
        if errors:
            for process in self._processes:
                process.kill()
            self._processes.clear()
            self._pipes.clear()
        assert not errors, "\n".join(errors)
        return [heard[rank][:2] for rank in range(ranks)]

    def _hear(self, rank: int) -> tuple[Any, str, str]:
        """What a rank returned, printed and raised."""
        try:
            answer: tuple[Any, str, str] = self._pipes[rank].recv()
        except (EOFError, OSError):
            self._processes[rank].join(10)
            return None, "", f"its process ended with code {self._processes[rank].exitcode}"
        return answer

    def run(self, ranks: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What each rank returned."""
        self.send(ranks, function, *arguments)
        return [value for value, _ in self.take(ranks)]


def _serve(pipe: Connection[Any, Any], first: Callable[[], None] | None) -> None:
    sys.path.insert(0, str(Path(__file__).parents[3]))
    os.environ["OMP_NUM_THREADS"] = "1"
    if first is not None:
        first()
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    while True:
        try:
            function, arguments, env = pipe.recv()
        except EOFError:
            return
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(env)
        value, error, printed = None, "", io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                value = function(*arguments)
        except BaseException:  # noqa: BLE001  # told to the test, whatever it is
            error = traceback.format_exc()
        finally:
            os.chdir("/")
        pipe.send((value, printed.getvalue(), error))
        gc.collect()  # sharded models are cycles, and each keeps its groups' threads and sockets
