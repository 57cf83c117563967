"""Saved launches: their ingredients, their lock, and what has changed since."""
