"""Env files: found, parsed, inherited, checked, generated."""
