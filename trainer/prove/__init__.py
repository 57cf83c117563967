"""The trainer proves itself on a person's own model, cut to two layers, and their own data."""
