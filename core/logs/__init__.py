"""Logs: brought home byte for byte, indexed, followed and filtered."""
