"""Machines that commands run on: a login host over SSH, or this one through the same interface."""

from .machine import Done, Machine, open_machine
from .target import Target

__all__ = ["Done", "Machine", "Target", "open_machine"]
