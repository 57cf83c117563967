"""Hugging Face Jobs, by the official client."""
