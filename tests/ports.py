"""Ports at which processes of a test meet."""

from __future__ import annotations

import os
import socket


def held_port() -> socket.socket:
    """A port of loopback that the kernel gives to nobody else while this is open.

    It does not listen, and shares its address: the process that it is meant for may listen there.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def number_among_workers() -> int:
    """Which of the processes of pytest-xdist this is, from 0; 0 also where there is only one."""
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
