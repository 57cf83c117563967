"""Runs: what is recorded of them, watched, fetched and made of them once they ended."""
