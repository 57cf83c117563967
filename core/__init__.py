"""Decides, renders, submits, watches and records. Knows neither torch nor textual."""
