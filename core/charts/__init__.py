"""Curves: read from logs, kept as they grow, drawn with characters."""
